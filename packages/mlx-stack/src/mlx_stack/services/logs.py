"""The logs of the services: found by name, read from their end, followed, joined, rotated."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlx_procsup import (
    LogInfo,
    Rotation,
    all_lines,
    follow,
    list_logs,
    plain,
    rotate_log,
    tail_with_archive,
)
from mlx_stack.errors import StackError, UsageError
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.service import WATCHDOG, service_names


@dataclass(frozen=True, slots=True)
class ServiceLogs:
    """The logs that there are."""

    folder: Path
    logs: tuple[LogInfo, ...]

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        rows = [
            {
                "name": info.name,
                "path": str(info.path),
                "size_bytes": info.size_bytes,
                "modified_at": datetime.fromtimestamp(info.modified_at, UTC).isoformat(),
                "archives": [str(path) for path in reversed(info.archives)],
            }
            for info in self.logs
        ]
        return {"logs": rows}


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a service's log, made safe to print."""

    service: str
    line: str

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {"service": self.service, "line": self.line}


@dataclass(frozen=True, slots=True)
class LogLines:
    """What a log says.

    Attributes:
        lines: Its lines, read as they are asked for.
    """

    service: str
    path: Path
    lines: Iterator[LogLine]

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        lines = [each.line for each in self.lines]
        return {"service": self.service, "path": str(self.path), "lines": lines}


@dataclass(frozen=True, slots=True)
class RotatedLogs:
    """The logs that were archived, by the services' names; an empty log is not."""

    rotated: tuple[tuple[str, Rotation], ...]

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        rows = [
            {"service": name, "archive": str(each.archive), "bytes": each.archived_bytes}
            for name, each in self.rotated
        ]
        return {"rotated": rows}


def find_logs(opened: OpenStack) -> ServiceLogs:
    """Every service's log."""
    return ServiceLogs(opened.home.logs, tuple(list_logs(opened.home.logs)))


def read_log(
    opened: OpenStack, service: str, *, tail: int | None, keep_colours: bool = False
) -> LogLines:
    """The last `tail` lines of a service's log, or with None all that are kept.

    Raises:
        UsageError: When there is no such service.
        StackError: When it has no log yet.
    """
    path = _find_log(opened, service)
    lines = all_lines(path) if tail is None else iter(tail_with_archive(path, tail))
    return LogLines(
        service, path, (LogLine(service, plain(line, keep_colours=keep_colours)) for line in lines)
    )


def follow_log(
    opened: OpenStack, service: str, *, tail: int, keep_colours: bool = False
) -> Iterator[LogLine]:
    """The last `tail` lines of a service's log and then every new one; never ends by itself.

    A log that is not there yet is waited for.

    Raises:
        UsageError: When there is no such service.
    """
    path = _find_log(opened, service, wait=True)
    for line in follow(path, tail=tail):
        yield LogLine(service, plain(line, keep_colours=keep_colours))


def rotate_logs(opened: OpenStack, service: str | None) -> RotatedLogs:
    """Archive one log, or all of them, now.

    Raises:
        UsageError: When there is no such service.
        StackError: When it has no log yet.
        OSError: When an archive can't be written; the log is as it was.
    """
    max_files = opened.config.log_max_files
    if service is not None:
        chosen = [(service, _find_log(opened, service))]
    else:
        chosen = [(info.name, info.path) for info in find_logs(opened).logs]
    done = [(name, rotate_log(path, max_files)) for name, path in chosen]
    return RotatedLogs(tuple((name, each) for name, each in done if each is not None))


def _find_log(opened: OpenStack, service: str, *, wait: bool = False) -> Path:
    """The log of one service; with `wait`, one that is not there yet isn't an error."""
    logged = {info.name: info.path for info in find_logs(opened).logs}
    if service in logged:
        return logged[service]
    stack = opened.readable_stack
    defined = service_names(stack) if stack is not None else ()
    known = sorted({*logged, *defined, WATCHDOG})
    if service not in known:
        near = difflib.get_close_matches(service, known, n=1)
        guess = f"Did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"There is no service {service!r}.", hint=f"{guess}Available: {', '.join(known)}."
        )
    if not wait:
        raise StackError(
            f"{service} has no log yet: it hasn't been started.",
            hint=f"`mlx-stack {'watch' if service == WATCHDOG else 'up'}` starts it.",
        )
    return opened.home.state_dirs.log_file(service)
