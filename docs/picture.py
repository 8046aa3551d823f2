"""Turn what a terminal shows into an SVG picture.

tmux capture-pane -pe | uv run python docs/picture.py "mlx-stack demo" docs/images/demo.svg
"""

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

_COLUMNS = 100


def main(title: str, path: str) -> int:
    """Draw standard input."""
    screen = sys.stdin.read().rstrip()
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(screen))
    svg = console.export_svg(title=title)
    # the picture must not fetch a font from anywhere
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    Path(path).write_text(svg, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
