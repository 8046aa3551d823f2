"""Two Macs made known to each other: a code shown here, or one typed here."""

import http.client
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import urlsplit

import msgspec

from mlx_gateway.access import machine_name
from mlx_procsup import locate
from mlx_stack.config import Config
from mlx_stack.errors import StackError, UsageError
from mlx_stack.gateway.endpoint import EVERY_ADDRESS, GATEWAY
from mlx_stack.home import Home
from mlx_stack.nodes.client import NodeUnreachableError, connected, require_known_host
from mlx_stack.nodes.file import Node
from mlx_stack.nodes.identity import find_identity
from mlx_stack.nodes.link import TLS_PORT
from mlx_stack.nodes.manage import AddedNode, add_node
from mlx_stack.nodes.mount import HELLO_PATH, PROOF_PATH
from mlx_stack.nodes.own_door import HINT, closed_because
from mlx_stack.nodes.pairing import PairingError, TypingSide, code_in
from mlx_stack.nodes.pairing_server import (
    Hello,
    Paired,
    PairingProof,
    Welcome,
    key_name,
    show_code,
)
from mlx_stack.nodes.trust import digits_in, fingerprint, presented_ca
from mlx_stack.open_stack import OpenStack

_LONGEST_ANSWER_BYTES = 2**14
_WRONG = "Either the code was mistyped, or another machine answers instead of that Mac."


@dataclass(frozen=True, slots=True)
class ShownCode:
    """A code, at the only time when it can be read.

    Attributes:
        host: What to type on the other Mac.
        fingerprint: Of this Mac's authority.
        expires_at: In seconds since the epoch.
    """

    code: str
    host: str
    fingerprint: str
    expires_at: float

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        expires_at = datetime.fromtimestamp(self.expires_at, UTC).isoformat(timespec="seconds")
        return {
            "code": self.code,
            "host": self.host,
            "fingerprint": self.fingerprint,
            "expires_at": expires_at,
        }


def show(opened: OpenStack) -> ShownCode:
    """A new code with which another Mac can add this one.

    Raises:
        UsageError: When other Macs can't reach this one.
        StackError: When the gateway doesn't run, or not with that door.
        InvalidFileError: When a file is damaged.
    """
    home, config = opened.home, opened.config
    if not config.node_host:
        raise UsageError(
            "Other Macs can't reach this one.",
            hint="`mlx-stack config set node-host 0.0.0.0`, then `mlx-stack up`: the gateway then "
            "listens on the network, with TLS.",
        )
    identity = find_identity(home)
    if identity is None or locate(home.state_dirs, GATEWAY).process is None:
        raise StackError("The gateway isn't open to other Macs yet.", hint="`mlx-stack up`.")
    problem = closed_because(opened)
    if problem is not None:
        raise StackError(problem, hint=HINT)
    code = show_code(home, time.time())
    return ShownCode(code.code, _host_to_type(config), identity.fingerprint, code.expires_at)


def _host_to_type(config: Config) -> str:
    host = f"{machine_name()}.local" if config.node_host in EVERY_ADDRESS else config.node_host
    host = f"[{host}]" if ":" in host else host
    return host if config.node_port == TLS_PORT else f"{host}:{config.node_port}"


def add_by_code(home: Home, node: Node, code: str) -> AddedNode:
    """Let a Mac take part that shows this code: learn its authority, and get a key from it.

    Raises:
        UsageError: When that can't be a code, or the name is taken by now.
        NodeUnreachableError: When it doesn't answer, or the code isn't its own.
        InvalidFileError: When the file is damaged.
    """
    digits = code_in(code)
    if digits is None:
        raise UsageError(
            "A code has six digits.", hint="`mlx-stack nodes pair` on the other Mac shows one."
        )
    node = with_authority(node)
    assert node.ca is not None  # just learnt
    side = TypingSide(digits, fingerprint(node.ca))
    with connected(node) as connection:
        hello = Hello(name=machine_name(), message=side.hello.hex())
        welcome = _say(connection, node, HELLO_PATH, hello, Welcome)
        try:
            proof = side.prove(bytes.fromhex(welcome.message))
        except PairingError as error:
            raise NodeUnreachableError(f"{node.url} answers, but not as mlx-stack does.") from error
        said = PairingProof(session=welcome.session, proof=proof.hex())
        paired = _say(connection, node, PROOF_PATH, said, Paired)
    if not side.is_proven_by(bytes.fromhex(paired.proof)):
        raise NodeUnreachableError(f"{node.url} doesn't know the code.", hint=_WRONG)
    try:
        return add_node(home, node, paired.key)
    except StackError as error:
        left = (
            "That Mac now has a key for this one, which can't be used: `mlx-stack keys` there "
            "lists "
            f"it as {key_name(machine_name())!r}, or with a number behind it if that name was "
            "taken; `mlx-stack keys revoke NAME` there revokes it."
        )
        error.hint = f"{error.hint} {left}" if error.hint else left
        raise


def add_by_fingerprint(home: Home, node: Node, given: str, key: str) -> AddedNode:
    """Let a Mac take part whose authority has this fingerprint, with a key that it made.

    Raises:
        UsageError: When that can't be a fingerprint or a key, or the name is taken by now.
        NodeUnreachableError: When it doesn't answer, has another authority, or refuses the key.
        InvalidFileError: When the file is damaged.
    """
    expected = digits_in(given)
    if expected is None:
        raise UsageError(
            "A fingerprint has 64 hexadecimal digits.",
            hint="`mlx-stack nodes pair` on the other Mac shows it.",
        )
    node = with_authority(node)
    assert node.ca is not None  # just learnt
    if fingerprint(node.ca) != expected:
        raise NodeUnreachableError(
            f"The authority of {node.url} has another fingerprint: {fingerprint(node.ca)}.",
            hint="Another machine may answer there; nothing was sent to it.",
        )
    return add_node(home, node, key)


def with_authority(node: Node) -> Node:
    """The node with the authority that whoever answers there claims; it remains to be verified.

    Raises:
        NodeUnreachableError: When nobody answers with TLS, or without an authority.
    """
    parts = urlsplit(node.url)
    assert parts.hostname is not None  # as `node_url` made it
    assert parts.port is not None
    try:
        return msgspec.structs.replace(node, ca=presented_ca(parts.hostname, parts.port))
    except ssl.SSLError as error:
        raise NodeUnreachableError(
            f"What answers at {node.url} doesn't speak TLS.",
            hint="`mlx-stack nodes pair` on the other Mac shows its address.",
        ) from error
    except OSError as error:
        raise NodeUnreachableError(
            f"Nothing answers at {node.url}: {error.strerror or error}.",
            hint="Is the Mac awake, is its `node-host` set, and may this program use the network "
            "(Privacy & Security > Local Network)?",
        ) from error
    except ValueError as error:
        raise NodeUnreachableError(
            f"{node.url} has no certificate authority.", hint="Add it with a key, without --code."
        ) from error


def _say[T](
    connection: http.client.HTTPConnection,
    node: Node,
    path: str,
    words: msgspec.Struct,
    answer: type[T],
) -> T:
    """Say something to a side that is not trusted yet; what it answers."""
    headers = {"Content-Type": "application/json"}
    connection.request("POST", path, body=msgspec.json.encode(words), headers=headers)
    response = connection.getresponse()
    body = response.read(_LONGEST_ANSWER_BYTES)
    require_known_host(node, response.status, body)
    problem = _PROBLEMS.get(response.status)
    if problem is not None:
        message, hint = problem
        raise NodeUnreachableError(f"{node.url} {message}.", hint=hint)
    try:
        return msgspec.json.decode(body, type=answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NodeUnreachableError(f"{node.url} answers, but not as mlx-stack does.") from error


_PROBLEMS: dict[int, tuple[str, str]] = {
    HTTPStatus.CONFLICT: (
        "shows no code now, or its five tries are used up",
        "`mlx-stack nodes pair` on that Mac shows a new one, for five minutes.",
    ),
    HTTPStatus.FORBIDDEN: ("refuses the code", _WRONG),
    HTTPStatus.TOO_MANY_REQUESTS: ("is being paired", "Try again in a second."),
    HTTPStatus.UNAUTHORIZED: (
        "can't be paired",
        "It has to run an mlx-stack of this version.",
    ),
}
