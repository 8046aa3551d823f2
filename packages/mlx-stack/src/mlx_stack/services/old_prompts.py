"""Prompts that engines of before the guard wrote into their logs: taken out of them, once."""

import gzip
import re
import zlib
from collections.abc import Collection

from mlx_procsup import SupervisionError, rewrite_log
from mlx_stack import atomic_file
from mlx_stack.engines.guard import PREVIEW, REMOVED
from mlx_stack.home import Home

_LINE = re.compile(rb"(" + PREVIEW.encode() + rb")([^\r\n]*)")
_LONGEST_MESSAGE_BYTES = 400
_MESSAGE = re.compile(
    rb"(Chat msg \d+: role=\w+, content=)(.{0,%d}?\.\.\.)(?=\r?\n[A-Z]+:|\r?\n?\Z)"
    % _LONGEST_MESSAGE_BYTES,
    re.DOTALL,
)
"""The beginning of a message, which may have several lines; the next record follows."""
_CUT_OFF = re.compile(rb"Chat msg \d+: role=\w+, content=(?!.*\.\.\.\r?\n\Z).*\Z", re.DOTALL)
_REST = re.compile(rb"\A(.{0,%d}?\.\.\.)(?=\r?\n)" % _LONGEST_MESSAGE_BYTES, re.DOTALL)


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
    """Blocks of a log without the beginnings of prompts, each as long as it was."""

    def __init__(self) -> None:
        self._is_cut_off = False

    def __call__(self, block: bytes) -> bytes:
        """The block as it shall be."""
        if self._is_cut_off:
            block = _REST.sub(lambda found: _blank(found[1]), block, count=1)
        self._is_cut_off = _CUT_OFF.search(block, len(block) - _LONGEST_MESSAGE_BYTES) is not None
        block = _MESSAGE.sub(lambda found: found[1] + _blank(found[2]), block)
        return _LINE.sub(lambda found: found[1] + _blank(found[2]), block)


def _blank(text: bytes) -> bytes:
    """As many bytes that say nothing, on as many lines."""
    first, *others = text.splitlines(keepends=True) or [b""]
    content = first.rstrip(b"\r\n")
    shown = REMOVED.encode()[: len(content)].ljust(len(content))
    return shown + first[len(content) :] + b"".join(re.sub(rb"[^\r\n]", b" ", o) for o in others)
