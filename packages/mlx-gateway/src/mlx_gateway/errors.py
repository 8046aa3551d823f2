"""What goes wrong in the gateway: for whoever runs it, and for its clients."""

from http import HTTPStatus
from pathlib import Path

CLIENT_LEFT = 499
"""The status, nginx's, of a request whose client did not wait for its answer."""


class GatewayError(Exception):
    """Base of everything that this library raises on purpose."""


class ConfigError(GatewayError):
    """A `gateway.yaml` that can't be used.

    Attributes:
        path: The file; None for text that came from elsewhere.
    """

    def __init__(self, path: Path | None, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem


class PortInUseError(GatewayError):
    """Another program listens where the gateway should."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"Port {port} on {host} is in use by another program.")
        self.host = host
        self.port = port


class ApiError(GatewayError):
    """An answer that is an error, before it has the shape of the client's API.

    Attributes:
        code: The word that programs go by, such as `context_length_exceeded`; None leaves it out.
        tokens: For a prompt that is too long: its length and the longest allowed.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
        tokens: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(message)
        self.status: int = int(status)
        self.message = message
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s
        self.tokens = tokens

    @property
    def is_clients(self) -> bool:
        """Whether the request is at fault: it is answered so, and goes to no other model."""
        return HTTPStatus.BAD_REQUEST <= self.status < HTTPStatus.INTERNAL_SERVER_ERROR


class UpstreamFailedError(GatewayError):
    """An upstream gave no usable answer; another model may.

    Attributes:
        what: What happened, in words for the log.
        reason: The same for a client, with what the upstream said; that may quote the request.
        retry_after_s: When it may be worth another try, where that is known.
        has_answered: Whether it is there, and said that it can't.
    """

    def __init__(
        self,
        what: str,
        said: str = "",
        *,
        retry_after_s: int | None = None,
        has_answered: bool = False,
    ) -> None:
        self.what = what
        self.has_answered = has_answered
        self.retry_after_s = retry_after_s
        self.reason: str = f"{what}: {said}" if said else what
        super().__init__(self.reason)


class ClientLeftError(GatewayError):
    """The client disconnected before its request was complete."""
