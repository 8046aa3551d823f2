"""What can go wrong, as types with fields."""


class BenchError(Exception):
    """The base of every error that mlx_bench raises on purpose.

    Attributes:
        message: What happened, one sentence.
        hint: What the reader can do about it, or an empty string.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class EndpointError(BenchError):
    """The endpoint could not be measured: unreachable, refused, or no run succeeded."""

    def __init__(
        self, message: str, *, url: str, status: int | None = None, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.url = url
        self.status = status


class ReportError(BenchError):
    """A report could not be read or written.

    Attributes:
        key_path: Where in it, as `runs[3].ttft_s`, or an empty string.
        problem: The place and what is wrong there, without the file's name.
    """

    def __init__(self, message: str, *, source: str, key_path: str = "") -> None:
        self.source = source
        self.key_path = key_path
        self.problem: str = f"{key_path}: {message}" if key_path else message
        super().__init__(f"{source}: {self.problem}")


class ParametersError(BenchError, ValueError):
    """The workload, schedule or command line is invalid."""
