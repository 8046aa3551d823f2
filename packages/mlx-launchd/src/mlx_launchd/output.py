"""Pure parsers for the output of `launchctl print` and `print-disabled`.

launchctl's man page says of these texts that they are "NOT API in any sense". So the parsers take
the parts that they recognise, return None for absent ones, and never take a value from a nested
block.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mlx_launchd.errors import OutputError

# A longer number is neither a pid nor a count nor a code, and int() refuses very long ones.
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_EXIT_CODE = re.compile(r"(-?[0-9]{1,18})(?::\s*(\S.*))?")
_NAMED_SIGNAL = re.compile(r"(?:(\S[^:]*):\s*)?([0-9]{1,9})(?:\s*\(.*\))?")
_HEADER = re.compile(r"((?:gui|user|login|pid|system)(?:/.*?)?)\s*(?:=\s*\{)?")
_ANY_HEADER = re.compile(r"(\S.*?)\s*=\s*\{\s*")
_FIELD = re.compile(r"([^\s=][^=]*?) =(?!>) ?(.*)")
_OPENERS = ("{", "[", "(")
_CLOSERS = ("}", "]", "};", "];", ");")
_CLOSING_ELEMENT = re.compile(r"[0-9]+ =\s*\]")
_LEVEL = re.compile(r"[ \t]*")


@dataclass(frozen=True, slots=True)
class PrintedJob:
    """A job as `launchctl print <domain>/<label>` shows it; absent values are None.

    Attributes:
        target: The job's name with its domain, as in the first line: `gui/501/com.example.job`.
        state: launchd's own word: `running`, `not running`, `spawn scheduled`, `waiting`, …
        pid: The process, only while there is one.
        last_exit_code: Exit code of the last run; None also if no run has ended, or if a signal
            ended it.
        last_exit_name: launchd's name for that code, such as `EX_CONFIG`, if it gives one.
        last_terminating_signal: Number of the signal that ended the last run.
        last_terminating_signal_name: Its name, such as `Killed`.
        last_exit_reason: launchd's reason, such as `OS_REASON_CODESIGNING`.
        runs: How many times the program was started since the job was loaded.
        type: `LaunchAgent`, `LaunchDaemon` or `Submitted`; absent before macOS 13.
        path: The plist that the job was loaded from.
        job_state: A second word for the state: `running`, `exited`, `uninitialized`, …
        minimum_runtime_s: `ThrottleInterval`.
        spawn_type: `ProcessType` in launchd's words: `interactive (4)`.
        properties: `keepalive`, `runatload`, …
    """

    target: str | None = None
    state: str | None = None
    pid: int | None = None
    last_exit_code: int | None = None
    last_exit_name: str | None = None
    last_terminating_signal: int | None = None
    last_terminating_signal_name: str | None = None
    last_exit_reason: str | None = None
    runs: int | None = None
    type: str | None = None
    path: str | None = None
    program: str | None = None
    job_state: str | None = None
    exit_timeout_s: int | None = None
    minimum_runtime_s: int | None = None
    spawn_type: str | None = None
    domain: str | None = None
    properties: tuple[str, ...] = ()


def parse_print(text: str) -> PrintedJob:
    """The job that `launchctl print <domain>/<label>` describes.

    Both tabs and spaces count as indentation, so that output pasted into a bug report is read in
    the same way. A block that is never closed includes everything after it, and the last line of a
    truncated text is left out, because an absent value is better than a wrong one. If a key appears
    twice, the first one counts.

    Raises:
        OutputError: The text contains neither a header nor a field.
    """
    target, fields = _top_level(text)
    if target is None and not fields:
        raise OutputError("this is not what `launchctl print` writes")
    code, code_name = _exit_code(fields.get("last exit code"))
    signal, signal_name = _terminating_signal(fields.get("last terminating signal"))
    pid = _integer(fields.get("pid"))
    return PrintedJob(
        target=target,
        state=fields.get("state"),
        pid=pid if pid is not None and pid > 0 else None,
        last_exit_code=code,
        last_exit_name=code_name,
        last_terminating_signal=signal,
        last_terminating_signal_name=signal_name,
        last_exit_reason=fields.get("last exit reason"),
        runs=_integer(fields.get("runs")),
        type=fields.get("type"),
        path=fields.get("path"),
        program=fields.get("program"),
        job_state=fields.get("job state"),
        exit_timeout_s=_integer(fields.get("exit timeout")),
        minimum_runtime_s=_integer(fields.get("minimum runtime")),
        spawn_type=fields.get("spawn type"),
        domain=fields.get("domain"),
        properties=tuple(p.strip() for p in fields.get("properties", "").split("|") if p.strip()),
    )


def parse_print_disabled(text: str) -> dict[str, bool]:
    """Each label with an override in the domain: True if it is disabled.

    A label that is absent has no override, and the plist's `Disabled` key counts. Both vocabularies
    are read: `true` and `false` up to macOS 12, `disabled` and `enabled` since. The block of login
    items that newer systems print after it is something different and is left out.

    Raises:
        OutputError: There is no block of disabled services.
    """
    overrides: dict[str, bool] = {}
    lines = iter(_lines(text))
    header = next((line for line in lines if _DISABLED_HEADER.fullmatch(line)), None)
    if header is None:
        raise OutputError("this is not what `launchctl print-disabled` writes")
    if header.rstrip().endswith("}"):
        return overrides
    for line in lines:
        if line.strip() == "}" or _BLOCK.fullmatch(line):
            break
        entry = _OVERRIDE.fullmatch(line)
        if entry:
            overrides.setdefault(entry[1], entry[2] in {"true", "disabled"})
    return overrides


_DISABLED_HEADER = re.compile(r"\s*disabled services = \{\s*(?:\}\s*)?")
_BLOCK = re.compile(r"\s*[^\s\"].* = \{\s*")
_OVERRIDE = re.compile(r"\s*\"(.+)\"\s*=>\s*(true|false|enabled|disabled)\s*;?\s*")


def _lines(text: str) -> list[str]:
    # Not splitlines(): an argument may hold a form feed or a line separator of Unicode.
    return [line.removesuffix("\r") for line in text.split("\n")]


def _indent(line: str) -> str:
    level = _LEVEL.match(line)
    return level[0] if level else ""


def _top_level(text: str) -> tuple[str | None, dict[str, str]]:
    """The header and the fields directly below it, the first of each name."""
    # What follows the last newline is the closing brace, or a line that was cut off.
    *lines, cut_off = _lines(text)
    target, outer, lines = _after_header(lines)
    body = _body(lines, outer)
    if target is None and not body and cut_off.endswith("{"):
        target, _, _ = _after_header([cut_off])
    fields: dict[str, str] = {}
    for line in _outside_blocks(body):
        field = _FIELD.fullmatch(line.strip())
        if field and field[2]:
            fields.setdefault(field[1], field[2].strip())
    return target, fields


def _after_header(lines: list[str]) -> tuple[str | None, str | None, list[str]]:
    """The header's name, its indentation, and the lines after it.

    What a person pasted above the header, such as the command itself, is skipped.
    """
    for number, line in enumerate(lines):
        stripped = line.strip()
        header = _HEADER.fullmatch(stripped) or _ANY_HEADER.fullmatch(line)
        if header:
            return header[1], _indent(line), lines[number + 1 :]
        if _FIELD.fullmatch(stripped) or stripped.endswith("{"):
            break
    return None, None, lines


def _body(lines: list[str], outer: str | None) -> list[str]:
    """The lines between the header and its brace, or the end."""
    base = next((_indent(line) for line in lines if line.strip()), "")
    if outer is None or base == outer:
        # Without indentation only counting braces tells where the header's own block ends.
        return _until_unbalanced(lines)
    for number, line in enumerate(lines):
        if line.strip() == "}" and _indent(line) == outer:
            return lines[:number]
    return lines


def _until_unbalanced(lines: list[str]) -> list[str]:
    depth = 0
    for number, line in enumerate(lines):
        depth += _nesting(line)
        if depth < 0:
            return lines[:number]
    return lines


def _nesting(line: str) -> int:
    stripped = line.strip()
    if stripped.endswith(_OPENERS):
        return 1
    # A list inside LWCR closes on the line of its last element: `0 = ]`.
    if stripped in _CLOSERS or _CLOSING_ELEMENT.fullmatch(stripped):
        return -1
    return 0


def _outside_blocks(body: list[str]) -> Iterator[str]:
    """The lines that are in no nested block."""
    filled = [line for line in body if line.strip()]
    base = next((_indent(line) for line in filled), "")
    indented = any(len(_indent(line)) > len(base) for line in filled)
    depth = 0
    for line in filled:
        if indented and _indent(line) != base:
            continue
        if indented and depth and line.strip() not in _CLOSERS:
            # Text of several lines inside an argument may imitate a field at this level.
            continue
        nesting = _nesting(line)
        if nesting == 0 and depth == 0:
            yield line
        depth = max(0, depth + nesting)


def _integer(value: str | None) -> int | None:
    if value is None:
        return None
    number = _INTEGER.fullmatch(value)
    return int(number[0]) if number else None


def _exit_code(value: str | None) -> tuple[int | None, str | None]:
    code = _EXIT_CODE.fullmatch(value) if value is not None else None
    return (int(code[1]), code[2]) if code else (None, None)


def _terminating_signal(value: str | None) -> tuple[int | None, str | None]:
    signal = _NAMED_SIGNAL.fullmatch(value) if value is not None else None
    return (int(signal[2]), signal[1]) if signal else (None, None)
