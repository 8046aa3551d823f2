"""What can go wrong, with the fields that a caller needs to report it or to act."""

from collections.abc import Sequence


class LaunchdError(Exception):
    """Something that this library was asked to do did not happen."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ProgramMissingError(LaunchdError):
    """A program of macOS is not on PATH: this isn't a Mac, or PATH is wrong."""

    def __init__(self, program: str) -> None:
        super().__init__(
            f"{program} is not on PATH",
            hint=f"{program} is a part of macOS; on another system use its own service manager.",
        )
        self.program = program


class OutputError(LaunchdError):
    """A text is not the program's output."""


class PlistError(LaunchdError):
    """launchd would not accept a property list.

    Attributes:
        key: launchd's key, dotted if nested, or `""` for the whole file.
        expected: What launchd expects there.
        got: What is there instead.
    """

    def __init__(self, key: str, *, expected: str, got: str, hint: str = "") -> None:
        super().__init__(f"{key or 'property list'}: expected {expected}, got {got}", hint=hint)
        self.key = key
        self.expected = expected
        self.got = got


class LaunchctlError(LaunchdError):
    """A command failed, or did something other than what was asked.

    Attributes:
        command: The command as it was run.
        returncode: Its exit code.
        text: What it wrote to standard error, stripped.
    """

    def __init__(
        self, message: str, *, command: Sequence[str], returncode: int, text: str, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.command: tuple[str, ...] = tuple(command)
        self.returncode = returncode
        self.text = text


class NoSessionError(LaunchctlError):
    """The domain does not exist, since its user isn't logged in; a LaunchDaemon needs no login."""


class NotPermittedError(LaunchctlError):
    """The domain belongs to another user or to root."""


class DisabledError(LaunchctlError):
    """The label is disabled, by `launchctl disable` or in Login Items."""


class StillStoppingError(LaunchctlError):
    """The job was still there when the deadline to stop had passed."""


class NotRunningError(LaunchctlError):
    """The job is loaded, but its program does not stay alive."""
