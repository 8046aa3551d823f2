"""Turn what a terminal shows into an SVG picture.

tmux capture-pane -pe | uv run python docs/picture.py "mlx-stack demo" docs/images/demo.svg
"""

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 100


def draw(title: str, screen: str) -> str:
    """A picture of a terminal that shows `screen`."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(screen.rstrip()))
    # the same picture has the same names in it whenever it is drawn
    svg = console.export_svg(title=title, unique_id=re.sub(r"\W", "-", title))
    # the picture must not fetch a font from anywhere
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def main(title: str, path: str) -> int:
    """Draw standard input."""
    Path(path).write_text(draw(title, sys.stdin.read()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
