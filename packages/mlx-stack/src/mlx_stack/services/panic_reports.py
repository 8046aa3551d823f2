"""What macOS wrote down of its kernel's panics: files that it leaves behind with the next boot."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

FOLDER = Path("/Library/Logs/DiagnosticReports")
FOLDER_VARIABLE = "MLX_STACK_PANIC_REPORTS"
"""Names another folder than macOS's own."""
_PATTERNS = ("panic-full-*.ips", "*.panic")
_MOST_REPORTS = 50
_LONGEST_BYTES = 8 * 2**20
_LONGEST_REASON = 200
_KINDS = frozenset({"210", "110"})
"""What Apple calls a panic; other numbers are crashes of programs, and more."""
_PANIC = re.compile(r"panic\(cpu \d+ caller [^)]*\):\s*(.+)")
_TASK = re.compile(r"^Panicked task 0x[0-9a-fA-F]+:.*?\bpid (\d{1,10}): ?(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class PanicReport:
    """One panic.

    Attributes:
        name: The file that tells of it.
        at: When it was, in seconds since the epoch.
        pid: The process whose work the kernel was at; None where it doesn't say.
        reason: The kernel's own words, in one line.
    """

    name: str
    at: float
    pid: int | None
    reason: str


def folder_of(variables: Mapping[str, str]) -> Path:
    """Where this machine's reports are."""
    named = variables.get(FOLDER_VARIABLE)
    return Path(named) if named else FOLDER


def changed_at(folder: Path) -> float | None:
    """When a report last came or went, in seconds since the epoch; None where nothing says so."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return None


def read_reports(folder: Path, known: Collection[str] = ()) -> Iterator[PanicReport]:
    """The panics that the newest reports in `folder` tell of, but those of `known` names.

    What is damaged, or still being written, or may not be read, is passed over.
    """
    dated: list[tuple[float, Path]] = []
    for path in {path for pattern in _PATTERNS for path in folder.glob(pattern)}:
        with suppress(OSError):
            if path.name not in known and path.is_file():
                dated.append((path.stat().st_mtime, path))
    for _, path in sorted(dated, reverse=True)[:_MOST_REPORTS]:
        with suppress(OSError):
            with path.open("rb") as file:
                text = file.read(_LONGEST_BYTES).decode("utf-8", errors="replace")
            report = parse_report(path.name, text)
            if report is not None:
                yield report


def parse_report(name: str, text: str) -> PanicReport | None:
    """The panic that a report tells of; None where it tells of none, or of none that we understand.

    A report is a line of JSON with its kind and its time, and then either another JSON object, with
    the kernel's words in one string, or these words themselves.
    """
    first, _, rest = text.partition("\n")
    head = _object(first)
    if head is None or str(head.get("bug_type")) not in _KINDS:
        return None
    body = _object(rest) or {}
    words = body.get("panicString") or body.get("macOSPanicString") or rest
    at = _time(head.get("timestamp")) or _time(body.get("date"))
    found = _PANIC.search(words) if isinstance(words, str) else None
    if at is None or found is None:
        return None
    task = _TASK.search(words)
    reason = "".join(each for each in found[1].strip() if each.isprintable())
    return PanicReport(name, at, int(task[1]) if task else None, reason[:_LONGEST_REASON])


def _object(text: str) -> dict[str, Any] | None:
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _time(value: object) -> float | None:
    """Such as `2026-11-29 02:14:07.00 +0100`; without a zone it is no time."""
    date, _, rest = value.partition(" ") if isinstance(value, str) else ("", "", "")
    with suppress(ValueError, OverflowError):
        moment = datetime.fromisoformat(f"{date} {rest.replace(' ', '')}")
        return moment.timestamp() if moment.tzinfo is not None else None
    return None
