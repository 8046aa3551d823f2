"""`nodes.yaml`: the other Macs that take part, each with our key there; one reader, one writer."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec

from mlx_catalog import yaml12
from mlx_procsup import acquire_lock
from mlx_stack import atomic_file, yaml_file
from mlx_stack.errors import InvalidFileError
from mlx_stack.home import Home
from mlx_stack.nodes.trust import trusting
from mlx_stack.stack import NodeName

SCHEMA_VERSION = 1
_HINT = "Fix the file, or move it away and add the nodes again (`mlx-stack nodes add`)."


class Node(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another Mac.

    Attributes:
        name: How it is called here; the tier `standard` there is shown as `standard@NAME`.
        url: Where its gateway answers, without `/v1` and without a slash at the end.
        key: What its gateway knows us by.
        ca: The authority that its certificate must come from, base64 of the DER form; None where
            its URL begins with http, or with https and a certificate that any browser accepts.
        private_link: Whether the user said that nobody else can listen on the way there.
        mac: The hardware address that wakes it; None where it is not to be woken.
    """

    name: NodeName
    url: Annotated[str, msgspec.Meta(pattern=r"\Ahttps?://[^/?#\s@]+\Z")]
    key: Annotated[str, msgspec.Meta(pattern=r"\A[!-~]+\Z")]
    ca: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9+/]{1,8192}={0,2}\Z")] | None = None
    private_link: bool = False
    mac: Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{2}:){5}[0-9a-f]{2}\Z")] | None = None


class Nodes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of the file."""

    schema_version: int = SCHEMA_VERSION
    nodes: tuple[Node, ...] = ()

    def get(self, name: str) -> Node | None:
        """The node of that name, or None."""
        return next((node for node in self.nodes if node.name == name), None)


def load_nodes(path: Path) -> Nodes:
    """The nodes in the file at `path`; none where there is no file.

    Raises:
        InvalidFileError: When it is damaged, of a newer version, or names a node twice.
    """
    try:
        nodes = yaml_file.read(path, Nodes, hint=_HINT)
    except FileNotFoundError:
        return Nodes()
    if nodes.schema_version != SCHEMA_VERSION:
        problem = f"has schema_version {nodes.schema_version}; this mlx-stack reads 1"
        raise InvalidFileError(path, problem, hint=_HINT)
    names = [node.name for node in nodes.nodes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidFileError(path, f"the node {twice!r} is defined twice", hint=_HINT)
    for node in nodes.nodes:
        _require_authority(path, node)
    return nodes


def _require_authority(path: Path, node: Node) -> None:
    try:
        if node.ca is not None:
            trusting(node.ca)
    except ValueError as error:
        problem = f"`ca` of the node {node.name!r} is not a certificate"
        raise InvalidFileError(path, problem, hint=_HINT) from error


def save_nodes(path: Path, nodes: Nodes) -> None:
    """Write the file, readable by its owner only: it holds keys."""
    atomic_file.write_text(path, yaml12.write(msgspec.to_builtins(nodes)), mode=atomic_file.PRIVATE)


@contextmanager
def changing(home: Home) -> Generator[None]:
    """Around a change of the file, so that two commands at once lose nothing."""
    home.create()
    lock = home.nodes.with_name("nodes.lock")
    with acquire_lock(lock, "nodes", on_wait=lambda _: None, on_unsupported=lambda _: None):
        yield


def name_in(host: str) -> str:
    """A name for the node at `host`: its first label, or its address with dashes."""
    text = (
        host.lower()
        if re.fullmatch(r"[\d.:a-fA-F]*[.:][\d.:a-fA-F]*", host)
        else (host.lower().partition(".")[0])
    )
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")[:32].strip("-") or "node"
