"""A node's gateway as a command asks it: who it is, how far away, how wide the link is."""

import http.client
import ssl
import statistics
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from mlx_stack import __version__
from mlx_stack.errors import StackError
from mlx_stack.nodes.description import SCHEMA_VERSION, NodeDescription
from mlx_stack.nodes.facts import one_line
from mlx_stack.nodes.file import Node
from mlx_stack.nodes.mount import BYTES_PATH, MOST_BYTES, PATH
from mlx_stack.nodes.trust import CONNECT_WITHIN_S, trusting

_ROUND_TRIPS = 7
_FIRST_BYTES = 2**20
_LONG_ENOUGH_S = 0.2
_LONGEST_ANSWER_BYTES = 2**20


class NodeUnreachableError(StackError):
    """Nothing of use answers where the node should be."""


@dataclass(frozen=True, slots=True)
class LinkSpeed:
    """The way to a node.

    Attributes:
        round_trip_s: The median of some small requests on one connection.
        bytes_per_s: How fast it sends; of one connection.
    """

    round_trip_s: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """What a node said.

    Attributes:
        clock_ahead_s: How far its clock is ahead of ours; less than 0 where it is behind.
        clock_within_s: How wrong that may be: half the time that the answer took.
    """

    description: NodeDescription
    clock_ahead_s: float
    clock_within_s: float


class _Versioned(msgspec.Struct, frozen=True):
    """The part of a description that every version has."""

    schema_version: int
    version: str


def _require_understood(node: Node, said: _Versioned) -> None:
    if said.schema_version != SCHEMA_VERSION:
        raise NodeUnreachableError(
            f"{node.url} runs mlx-stack {one_line(said.version)[:50]}, whose answer this one "
            f"({__version__}) can't read.",
            hint="Have the same mlx-stack on both (`mlx-stack upgrade`).",
        )


def ask(node: Node) -> NodeAnswer:
    """What the node says of itself.

    Raises:
        NodeUnreachableError: When it doesn't answer, or not as a node; the message says why.
    """
    with connected(node) as connection:
        _get(connection, node, "/health/liveliness")
        began = time.time()
        body = _get(connection, node, PATH)
        ended = time.time()
    try:
        _require_understood(node, msgspec.json.decode(body, type=_Versioned))
        said = msgspec.json.decode(body, type=NodeDescription)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NodeUnreachableError(f"{node.url} answers, but not as mlx-stack does.") from error
    return NodeAnswer(said, said.time - (began + ended) / 2, (ended - began) / 2)


def measure(node: Node) -> LinkSpeed:
    """How far away the node is, and how wide the link.

    Raises:
        NodeUnreachableError: When it doesn't answer.
    """
    trips: list[float] = []
    with connected(node) as connection:
        _get(connection, node, "/health/liveliness")
        for _ in range(_ROUND_TRIPS):
            began = time.perf_counter()
            _get(connection, node, "/health/liveliness")
            trips.append(time.perf_counter() - began)
        count, seconds = _FIRST_BYTES, 0.0
        while True:
            began = time.perf_counter()
            got = len(_get(connection, node, f"{BYTES_PATH}?n={count}", longest_bytes=count))
            seconds = time.perf_counter() - began
            if got != count:
                raise NodeUnreachableError(f"{node.url} sent {got} bytes instead of {count}.")
            if seconds >= _LONG_ENOUGH_S or count >= MOST_BYTES:
                break
            count = min(count * 4, MOST_BYTES)
    return LinkSpeed(statistics.median(trips), count / seconds)


@contextmanager
def connected(node: Node) -> Generator[http.client.HTTPConnection]:
    """A connection to the node, which is known by its certificate where it is asked with TLS.

    Raises:
        NodeUnreachableError: When it doesn't answer, or someone else does.
    """
    parts = urlsplit(node.url)
    if parts.scheme == "https":
        context = trusting(node.ca) if node.ca is not None else ssl.create_default_context()
        connection = http.client.HTTPSConnection(
            parts.netloc, timeout=CONNECT_WITHIN_S, context=context
        )
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=CONNECT_WITHIN_S)
    try:
        yield connection
    except ssl.SSLCertVerificationError as error:
        raise _distrusted(node, error) from error
    except (OSError, http.client.HTTPException) as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise NodeUnreachableError(
            f"Nothing answers at {node.url}: {said}.",
            hint=f"Is the Mac awake, does its `{_setting(node)}` let others in, and may this "
            "program use the network (Privacy & Security > Local Network)?",
        ) from error
    finally:
        connection.close()


def require_known_host(node: Node, status: int, body: bytes) -> None:
    """Return unless the Mac refuses whoever asks it by this name.

    Raises:
        NodeUnreachableError: When it does.
    """
    if status == http.client.FORBIDDEN and b'"host_not_allowed"' in body:
        raise NodeUnreachableError(
            f"The Mac that answers at {node.url} doesn't have this name.",
            hint="Use its address, or NAME.local.",
        )


def _setting(node: Node) -> str:
    """What lets other Macs reach the node, where it runs."""
    return "gateway-host" if node.ca is None else "node-host"


def _distrusted(node: Node, error: ssl.SSLCertVerificationError) -> NodeUnreachableError:
    if node.ca is None:
        return NodeUnreachableError(
            f"The certificate of {node.url} isn't trusted: {error.verify_message}.",
            hint="If that is a mlx-stack: `mlx-stack nodes pair` there, then `nodes add HOST "
            "--code` here.",
        )
    return NodeUnreachableError(
        f"The certificate of {node.url} is not from the Mac that was added: "
        f"{error.verify_message}.",
        hint="Another machine may answer there; nothing was sent to it. If mlx-stack was set up "
        "again on that Mac, remove the node here and pair again. If not, compare the clocks.",
    )


def _get(
    connection: http.client.HTTPConnection,
    node: Node,
    target: str,
    *,
    longest_bytes: int = _LONGEST_ANSWER_BYTES,
) -> bytes:
    connection.request("GET", target, headers={"Authorization": f"Bearer {node.key}"})
    response = connection.getresponse()
    body = response.read(longest_bytes + 1)
    require_known_host(node, response.status, body)
    if response.status == http.client.UNAUTHORIZED:
        raise NodeUnreachableError(
            f"{node.url} doesn't accept the key.",
            hint="`mlx-stack keys add NAME` on that Mac creates one.",
        )
    if response.status != http.client.OK:
        raise NodeUnreachableError(
            f"{node.url} answers with HTTP {response.status}.",
            hint="Is it the gateway of an mlx-stack of this version?",
        )
    return body
