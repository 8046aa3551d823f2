"""The logs of the services: found by name, read from their end, followed, joined, rotated."""

import difflib
from collections.abc import Iterator
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


def find_logs(opened: OpenStack) -> list[LogInfo]:
    """Every service's log, by name."""
    return list_logs(opened.home.logs)


def find_log(opened: OpenStack, service: str, *, wait: bool = False) -> Path:
    """The log of one service.

    Args:
        opened: Whose services.
        service: Its name.
        wait: A log that is not there yet is no error.

    Raises:
        UsageError: There is no such service.
        StackError: It has no log yet.
    """
    logged = {info.name: info.path for info in find_logs(opened)}
    if service in logged:
        return logged[service]
    known = sorted({*logged, *_defined(opened), WATCHDOG})
    if service not in known:
        near = difflib.get_close_matches(service, known, n=1)
        guess = f"Did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"There is no service {service!r}.", hint=f"{guess}There are: {', '.join(known)}."
        )
    if not wait:
        raise StackError(
            f"{service} has no log yet: it was never started.",
            hint=f"`mlx-stack {'watch' if service == WATCHDOG else 'up'}` starts it.",
        )
    return opened.home.state_dirs.log_file(service)


def read_lines(log: Path, *, tail: int | None, keep_colours: bool = False) -> Iterator[str]:
    """The last `tail` lines of a log, or with None all that are kept, made safe to print."""
    lines = all_lines(log) if tail is None else iter(tail_with_archive(log, tail))
    return (plain(line, keep_colours=keep_colours) for line in lines)


def follow_lines(log: Path, *, tail: int, keep_colours: bool = False) -> Iterator[str]:
    """The last `tail` lines and then every new one, made safe to print; never ends by itself."""
    return (plain(line, keep_colours=keep_colours) for line in follow(log, tail=tail))


def rotate_logs(opened: OpenStack, service: str | None) -> list[tuple[str, Rotation]]:
    """Archive one log, or all of them, now; those that were not empty, with their archives.

    Raises:
        UsageError: There is no such service.
        StackError: It has no log yet.
        OSError: An archive can't be written; the log is as it was.
    """
    max_files = opened.config.log_max_files
    if service is not None:
        chosen = [(service, find_log(opened, service))]
    else:
        chosen = [(info.name, info.path) for info in find_logs(opened)]
    done = [(name, rotate_log(path, max_files)) for name, path in chosen]
    return [(name, rotation) for name, rotation in done if rotation is not None]


def _defined(opened: OpenStack) -> list[str]:
    try:
        return service_names(opened.stack)
    except StackError:
        return []
