"""Other Macs that can be heard on the network: suggestions of what to pair with."""

import sys
from dataclasses import dataclass

from zeroconf import Error

from mlx_stack.errors import StackError
from mlx_stack.home import Home
from mlx_stack.nodes.bonjour import Said, listen
from mlx_stack.nodes.file import Node, load_nodes
from mlx_stack.nodes.identity import find_identity
from mlx_stack.nodes.link import TLS_PORT
from mlx_stack.nodes.trust import fingerprint


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A machine that says that it can be a node.

    Attributes:
        host: What `nodes add HOST --code` is given.
        node: How it is called here, if it says that it is a Mac that was added; else None.
    """

    said: Said
    host: str
    node: str | None

    def to_document(self) -> dict[str, object]:
        """One row of the JSON answer."""
        return {
            "name": self.said.name,
            "host": self.host,
            "addresses": list(self.said.addresses),
            "port": self.said.port,
            "version": self.said.version,
            "fingerprint": self.said.fingerprint,
            "node": self.node,
        }


@dataclass(frozen=True, slots=True)
class Discovered:
    """What could be heard, by name."""

    found: tuple[Suggestion, ...]

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {"found": [each.to_document() for each in self.found]}


def discover(home: Home) -> Discovered:
    """Listen for a second; adds nothing, and asks none of them anything.

    Raises:
        StackError: When the network can't be used.
        InvalidFileError: When the file of nodes, or this Mac's authority, is damaged.
    """
    own = find_identity(home)
    nodes = load_nodes(home.nodes).nodes
    try:
        heard = listen()
    except (OSError, Error) as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise StackError(
            f"The network can't be used: {said}.",
            hint="Is there one, and may this program use it (Privacy & Security > Local Network)?",
        ) from error
    return Discovered(suggestions(heard, nodes, own.fingerprint if own is not None else None))


def suggestions(
    heard: tuple[Said, ...],
    nodes: tuple[Node, ...],
    own: str | None,
    *,
    knows_local: bool = sys.platform == "darwin",
) -> tuple[Suggestion, ...]:
    """What was heard, without this Mac itself.

    Args:
        own: The fingerprint of this Mac's authority.
        knows_local: Whether names in `.local` have addresses on this machine, as on a Mac.
    """
    names = {fingerprint(each.ca): each.name for each in nodes if each.ca is not None}
    return tuple(
        Suggestion(each, _to_type(each, knows_local=knows_local), names.get(each.fingerprint or ""))
        for each in heard
        if each.fingerprint is None or each.fingerprint != own
    )


def _to_type(said: Said, *, knows_local: bool) -> str:
    host = said.host if said.host is not None and (knows_local or not said.addresses) else None
    host = host or said.addresses[0]
    host = f"[{host}]" if ":" in host else host
    return host if said.port == TLS_PORT else f"{host}:{said.port}"
