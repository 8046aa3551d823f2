"""What can go wrong in mlx-hwprobe, as exceptions with fields."""


class HwprobeError(Exception):
    """Base of everything that this library raises on purpose."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UnknownChipError(HwprobeError):
    """No row of the table answers: the chip, or this combination of cores and memory, is unknown.

    Attributes:
        asked: What was asked for, as it was given.
        nearest: Names in the table that look like it, best first; may be empty.
    """

    def __init__(
        self, message: str, *, asked: str, nearest: tuple[str, ...] = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.asked = asked
        self.nearest = nearest


class InvalidDocumentError(HwprobeError):
    """A profile, a capture or a hardware specification is damaged or of another version.

    Attributes:
        place: The key path inside the document ("outputs.sysctl.returncode"), or "" for all of it.
    """

    def __init__(self, problem: str, *, place: str = "", hint: str | None = None) -> None:
        super().__init__(f"{place}: {problem}" if place else problem, hint=hint)
        self.place = place
        self.problem = problem


class UnknownPlatformError(HwprobeError):
    """The operating system is neither macOS nor Linux."""
