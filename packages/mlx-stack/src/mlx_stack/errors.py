"""The failures that a user sees: what happened, what to do, and the exit code.

Libraries raise their own exceptions; `error_table.py` holds the one table that turns them into
these. Anything that is not in that table and not a `StackError` is a defect, and shows a traceback.
"""

from pathlib import Path
from typing import ClassVar

from mlx_stack import exit_codes


class StackError(Exception):
    """A failure that the user can do something about, if no more specific type fits.

    Attributes:
        hint: What to do about it, or None where there is nothing to advise.
        type: A stable name for programs, as in the `error.type` field of `--json`.
    """

    type: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = exit_codes.FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(StackError):
    """Wrong usage: an invalid value, or options that can't be combined."""

    type = "usage"
    exit_code = exit_codes.USAGE


class InvalidFileError(StackError):
    """A file is damaged or contains something that isn't allowed.

    Attributes:
        line: The 1-based line where the trouble is, where it is known.
    """

    type = "invalid-file"
    exit_code = exit_codes.USAGE

    def __init__(
        self, path: Path, problem: str, *, line: int | None = None, hint: str | None = None
    ) -> None:
        place = f"{path}, line {line}" if line is not None else str(path)
        super().__init__(f"{place}: {problem}", hint=hint)
        self.path = path
        self.line = line


class NoStackError(StackError):
    """No stack is defined yet."""

    type = "no-stack"
    exit_code = exit_codes.FAILED

    def __init__(self) -> None:
        super().__init__(
            "No stack is defined yet.",
            hint="`mlx-stack setup` creates one; `mlx-stack demo` shows one without any setup.",
        )


class MissingError(StackError):
    """The command needs a program, an engine or a platform that is missing."""

    type = "missing"
    exit_code = exit_codes.MISSING


class LockedError(StackError):
    """Another command is changing the running services."""

    type = "locked"
    exit_code = exit_codes.LOCKED


class Interrupted(BaseException):
    """SIGTERM arrived; raised so that every `finally` on the way out runs."""
