"""Text for a terminal without Rich, whose import takes longer than `--help` may.

Only what the help and the overview need: two columns, and a few colours on stdout.
"""

import os
import shutil
import sys
import textwrap

_WIDEST = 100
_NAME_COLUMNS = 14
_INDENT = "  "
_CODES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}


def columns() -> int:
    """How wide text may be: the terminal's width, but never so wide that lines are hard to read."""
    return min(shutil.get_terminal_size().columns, _WIDEST)


def paint(text: str, colour: str) -> str:
    """`text` in a colour, where stdout is a terminal that wants colours."""
    return f"\033[{_CODES[colour]}m{text}\033[0m" if _has_colours() else text


def wrap(text: str) -> list[str]:
    """`text` in lines that fit."""
    return textwrap.wrap(text, columns(), break_on_hyphens=False)


def two_columns(pairs: list[tuple[str, str]]) -> list[str]:
    """Lines of two columns: names, and beside each its explanation, folded where it is long."""
    column = max([_NAME_COLUMNS, *(len(name) for name, _ in pairs)])
    room = max(columns() - column - 2 * len(_INDENT), 20)
    lines: list[str] = []
    for name, explanation in pairs:
        first, *more = textwrap.wrap(explanation, room, break_on_hyphens=False) or [""]
        padding = " " * (column - len(name))
        lines.append(f"{_INDENT}{paint(name, 'cyan')}{padding}{_INDENT}{first}".rstrip())
        lines += [f"{_INDENT}{' ' * column}{_INDENT}{line}" for line in more]
    return lines


def _has_colours() -> bool:
    return (
        sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )
