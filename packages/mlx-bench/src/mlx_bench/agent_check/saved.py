"""Checks as files, and the one to compare with."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from mlx_bench.agent_check.report import SCHEMA_VERSION, CheckReport
from mlx_bench.errors import ReportError
from mlx_bench.report_file import read_text, write_atomically


def load_check(path: Path) -> CheckReport:
    """A saved check.

    Raises:
        ReportError: The file can't be read, or isn't one.
    """
    try:
        report = msgspec.json.decode(read_text(path), type=CheckReport)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ReportError(f"isn't a check: {error}", source=str(path)) from error
    if report.schema_version != SCHEMA_VERSION:
        problem = f"has schema_version {report.schema_version}; this reads {SCHEMA_VERSION}"
        raise ReportError(problem, source=str(path))
    return report


def save_check(report: CheckReport, path: Path) -> None:
    """Write a check, in one step.

    Raises:
        ReportError: The file can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = msgspec.json.format(msgspec.json.encode(report), indent=2).decode()
        write_atomically(path, text + "\n")
    except OSError as error:
        why = f"can't be written: {error.strerror}"
        raise ReportError(why, source=str(path)) from error


def latest_check(folder: Path, model: str, *, model_hash: str | None = None) -> CheckReport | None:
    """The last check of a model that a folder holds, or None.

    Args:
        model_hash: Of the weights, where it is known; None takes any.

    Raises:
        ReportError: A file there isn't a check.
    """
    return latest_of(load_checks(folder), model, model_hash=model_hash)


def load_checks(folder: Path) -> tuple[CheckReport, ...]:
    """All checks that a folder holds, by the names of their files, the last first.

    Raises:
        ReportError: A file there isn't a check.
    """
    return tuple(load_check(path) for path in sorted(folder.glob("*.json"), reverse=True))


def latest_of(
    checks: Iterable[CheckReport], model: str, *, model_hash: str | None = None
) -> CheckReport | None:
    """The last check of a model, or None; of two in a second, the first given."""
    mine = [
        check
        for check in checks
        if check.model == model and model_hash in (None, check.conditions.model_hash)
    ]
    return max(mine, key=lambda check: check.started_at, default=None)
