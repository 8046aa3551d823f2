"""What the page's server says: documents, errors in their shape, and headers on all of it."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import ClassVar

import msgspec

from mlx_gateway.outbox import Send
from mlx_stack import exit_codes
from mlx_stack.errors import StackError

PATH = "/ui"
"""Where the gateway mounts the page."""
SCHEMA_VERSION = 1
JSON = "application/json"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
SECURITY = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
"""On every answer of the page's: nothing from elsewhere runs, and nothing of it goes elsewhere."""
_STATUS = {
    exit_codes.USAGE: HTTPStatus.BAD_REQUEST,
    exit_codes.LOCKED: HTTPStatus.CONFLICT,
    exit_codes.MISSING: HTTPStatus.SERVICE_UNAVAILABLE,
}

type Header = tuple[bytes, bytes]
type JsonDocument = Mapping[str, object]


class RefusedError(StackError):
    """A request that the page's server doesn't answer; `status` says why in HTTP's words."""

    type: ClassVar[str] = "refused"

    def __init__(self, status: HTTPStatus, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class CommandFailedError(StackError):
    """What a command's process said of its failure: the name that it gave it, and its exit code."""

    def __init__(self, kind: str, code: int, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.code = code


async def answer(
    send: Send,
    status: int,
    body: bytes = b"",
    *,
    content_type: str = JSON,
    headers: Iterable[Header] = (),
) -> None:
    """Send a whole answer."""
    head = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        *SECURITY,
        *headers,
    ]
    await send({"type": "http.response.start", "status": int(status), "headers": head})
    await send({"type": "http.response.body", "body": body})


def encode(document: JsonDocument) -> bytes:
    """A document as the commands print it with `--json`."""
    return msgspec.json.encode({"schema_version": SCHEMA_VERSION, **document})


def error_of(problem: StackError) -> dict[str, object]:
    """The same fields that a command gives an error."""
    kind = problem.kind if isinstance(problem, CommandFailedError) else problem.type
    return {"error": {"type": kind, "message": problem.message, "hint": problem.hint}}


def status_of(problem: StackError) -> int:
    """HTTP's word for an error."""
    if isinstance(problem, RefusedError):
        return problem.status
    if problem.type == "no-stack":
        return HTTPStatus.NOT_FOUND
    code = problem.code if isinstance(problem, CommandFailedError) else problem.exit_code
    return _STATUS.get(code, HTTPStatus.INTERNAL_SERVER_ERROR)
