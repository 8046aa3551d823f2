"""Nodes listed, added and removed."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from mlx_stack.errors import UsageError
from mlx_stack.home import Home
from mlx_stack.nodes.client import NodeAnswer, ask
from mlx_stack.nodes.file import Node, Nodes, changing, load_nodes, name_in, save_nodes
from mlx_stack.nodes.link import node_url, require_private
from mlx_stack.nodes.trust import fingerprint
from mlx_stack.open_stack import OpenStack


@dataclass(frozen=True, slots=True)
class ListedNodes:
    """Every node, in the order in which they were added."""

    nodes: tuple[Node, ...]

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer; no key."""
        return {"nodes": [shown(node) for node in self.nodes]}


@dataclass(frozen=True, slots=True)
class AddedNode:
    """A node that takes part from now on, and what it said."""

    node: Node
    answer: NodeAnswer

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer; no key."""
        said = self.answer.description
        return {
            **shown(self.node),
            "version": said.version,
            "chip": said.chip,
            "memory_bytes": said.memory_bytes,
            "tiers": [each.tier for each in said.models],
        }


@dataclass(frozen=True, slots=True)
class RemovedNode:
    """A node that takes part no longer."""

    name: str

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {"name": self.name, "removed": True}


def shown(node: Node) -> dict[str, object]:
    """A node without its key."""
    return {
        "name": node.name,
        "url": node.url,
        "private_link": node.private_link,
        "mac": node.mac,
        "fingerprint": fingerprint(node.ca) if node.ca is not None else None,
    }


def list_nodes(home: Home) -> ListedNodes:
    """Every node; asks none of them.

    Raises:
        InvalidFileError: When the file is damaged.
    """
    return ListedNodes(load_nodes(home.nodes).nodes)


def prepared(
    home: Home,
    url: str,
    *,
    name: str | None,
    is_private: bool,
    mac: str | None,
    is_paired: bool = False,
) -> Node:
    """The node that is to be added, without its key, if everything else can be right.

    Args:
        is_paired: It will be known by an authority of its own.

    Raises:
        UsageError: When an argument is wrong, the name is taken, or the link is open to others.
        StackError: When the address has none.
        InvalidFileError: When the file is damaged.
    """
    root = node_url(url, is_paired=is_paired)
    require_private(root, is_said_to_be_private=is_private)
    fields = {
        "name": name_in(urlsplit(root).hostname or "") if name is None else name,
        "url": root,
        "key": "-",
        "private_link": is_private,
        "mac": None if mac is None else _hardware_address(mac),
    }
    try:
        node = msgspec.convert(fields, Node)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"A node can't be called {fields['name']!r}.",
            hint="Names have up to 32 lower-case letters, digits and dashes: --name NAME.",
        ) from error
    _require_free(load_nodes(home.nodes), node)
    return node


def add_node(home: Home, node: Node, key: str) -> AddedNode:
    """Let the node take part, once it has answered to the key.

    Raises:
        UsageError: When the key can't be one, or the name is taken by now.
        NodeUnreachableError: When it doesn't answer, or not to this key.
        InvalidFileError: When the file is damaged.
    """
    try:
        node = msgspec.convert({**msgspec.structs.asdict(node), "key": key.strip()}, Node)
    except msgspec.ValidationError as error:
        raise UsageError(
            "That is not a key.", hint="`mlx-stack keys add NAME` on the other Mac creates one."
        ) from error
    answer = ask(node)
    with changing(home):
        nodes = load_nodes(home.nodes)
        _require_free(nodes, node)
        save_nodes(home.nodes, msgspec.structs.replace(nodes, nodes=(*nodes.nodes, node)))
    return AddedNode(node, answer)


def remove_node(opened: OpenStack, name: str) -> RemovedNode:
    """Forget the node and its key.

    Raises:
        UsageError: When there is no such node, or a tier has a replica there.
        InvalidFileError: When the file, or the stack file, is damaged.
    """
    home, stack = opened.home, opened.defined_stack
    for tier in stack.tiers if stack is not None else ():
        if any(each.node == name for each in tier.replicas):
            raise UsageError(
                f"The tier {tier.name!r} has a replica on {name!r}.",
                hint="Take it out of `replicas` in the stack file, and run `mlx-stack up`.",
            )
    with changing(home):
        nodes = load_nodes(home.nodes)
        require_node(nodes, name)
        left = tuple(node for node in nodes.nodes if node.name != name)
        save_nodes(home.nodes, msgspec.structs.replace(nodes, nodes=left))
    return RemovedNode(name)


def require_node(nodes: Nodes, name: str) -> Node:
    """The node of that name.

    Raises:
        UsageError: When there is none; the hint names those that there are.
    """
    node = nodes.get(name)
    if node is None:
        names = ", ".join(each.name for each in nodes.nodes) or "none yet"
        raise UsageError(f"There is no node {name!r}.", hint=f"Nodes: {names}.")
    return node


def _require_free(nodes: Nodes, node: Node) -> None:
    if nodes.get(node.name) is not None:
        raise UsageError(
            f"There is already a node {node.name!r}.",
            hint=f"Choose another name with --name, or `mlx-stack nodes remove {node.name}` first.",
        )
    same = next((each.name for each in nodes.nodes if each.url == node.url), None)
    if same is not None:
        raise UsageError(f"The node {same!r} has this address already.")


def _hardware_address(text: str) -> str:
    digits = re.sub(r"[:.\-\s]", "", text).lower()
    if not re.fullmatch(r"[0-9a-f]{12}", digits):
        raise UsageError(
            f"{text!r} is not a MAC address.",
            hint="For example 3c:22:fb:0a:11:9d (`ifconfig en0`).",
        )
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))
