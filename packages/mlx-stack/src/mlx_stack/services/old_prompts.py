"""Prompts that engines of before the guard wrote into their logs: taken out of them, once."""

import gzip
import re
import zlib
from collections.abc import Collection

from mlx_procsup import SupervisionError, rewrite_log
from mlx_stack import atomic_file
from mlx_stack.engines.guard import PREVIEW, REMOVED
from mlx_stack.home import Home

_PREVIEW = re.compile(rb"(?:" + PREVIEW.encode() + rb")([^\r\n]+)")
_END_OF_PREVIEW = b"..."
_LONGEST_PREVIEW_LINES = 80


def remove_old_prompts(home: Home, still_writing: Collection[str] = ()) -> list[str]:
    """The logs that can't be cleaned, each with the reason; what was cleaned is not read again.

    Args:
        home: The state folder.
        still_writing: Services that may run an engine of before: their logs are left for later.
    """
    noted = home.logs / ".without-prompts"
    done = set(noted.read_text(encoding="utf-8").split()) if noted.exists() else set[str]()
    problems: list[str] = []
    cleaned = set(done)
    for log in sorted(home.logs.glob("*.log")):
        if log.stem in done or log.stem in still_writing:
            continue
        try:
            rewrite_log(log, _Cleaner())
        except (SupervisionError, OSError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            problems.append(f"{log}: {error}")
        else:
            cleaned.add(log.stem)
    if cleaned != done:
        text = "".join(f"{name}\n" for name in sorted(cleaned))
        atomic_file.write_text(noted, text, mode=atomic_file.PRIVATE)
    return problems


class _Cleaner:
    """A line without the beginning of a prompt; a preview of a message may have several lines."""

    def __init__(self) -> None:
        self._lines_left = 0

    def __call__(self, line: bytes) -> bytes:
        """The line as it shall be, as long as it was."""
        if self._lines_left:
            ends = line.rstrip().endswith(_END_OF_PREVIEW)
            self._lines_left = 0 if ends else self._lines_left - 1
            content = line.rstrip(b"\r\n")
            return _blank(content) + line[len(content) :]
        found = _PREVIEW.search(line)
        if found is None:
            return line
        text = found[1]
        if b"content=" in found[0] and not text.rstrip().endswith(_END_OF_PREVIEW):
            self._lines_left = _LONGEST_PREVIEW_LINES
        return line[: found.start(1)] + _blank(text) + line[found.end(1) :]


def _blank(text: bytes) -> bytes:
    return REMOVED.encode()[: len(text)].ljust(len(text))
