"""Draw the documentation's pictures: what commands print for a made-up Mac.

uv run python docs/make_pictures.py

`demo.svg` shows a real run and is drawn by `picture.py` from a terminal's screen.
"""

import os
import pty
import subprocess
import sys
import tempfile
from pathlib import Path

from picture import COLUMNS, draw

REPOSITORY = Path(__file__).parent.parent
IMAGES = REPOSITORY / "docs" / "images"
PICTURES = {
    "profile": (f"--from={IMAGES / 'mac-mini.json'}",),
    "recommend": (),
    "estimate": ("qwen3-8b", "--context", "32768"),
    "models": ("list", "--catalog", "--family", "qwen3.5"),
    "init": ("--accept-defaults", "--intent", "agent-fleet"),
    "config": ("list",),
}
"""Each command's arguments, in the order in which they run in one home."""
SAVED = "Saved to "
"""Where `profile --from` starts to say what `profile` on a Mac doesn't."""


def main() -> int:
    """Draw every picture."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for name, arguments in PICTURES.items():
            screen = run(home, name, *arguments).partition(SAVED)[0]
            shown = [each for each in arguments if not each.startswith("--from=")]
            title = " ".join(("mlx-stack", name, *shown))
            picture = draw(title, screen.replace(f"{home}", "/Users/robin"))
            (IMAGES / f"{name}.svg").write_text(picture, encoding="utf-8")
    return 0


def run(home: Path, *arguments: str) -> str:
    """What a command shows on a terminal of the pictures' width."""
    ours, theirs = pty.openpty()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": f"{home}",
        "MLX_STACK_HOME": f"{home / '.mlx-stack'}",
        "COLUMNS": f"{COLUMNS}",
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
    }
    with subprocess.Popen(
        (sys.executable, "-m", "mlx_stack", *arguments),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    ):
        os.close(theirs)
        screen = read_all(ours)
    os.close(ours)
    return screen


def read_all(terminal: int) -> str:
    """Everything that is written to a terminal until its other end closes."""
    pieces: list[bytes] = []
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # how Linux says that the other end is closed
            piece = b""
        if not piece:
            return b"".join(pieces).decode().replace("\r\n", "\n")
        pieces.append(piece)


if __name__ == "__main__":
    sys.exit(main())
