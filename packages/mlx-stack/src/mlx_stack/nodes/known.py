"""The nodes as the running gateway knows them: their keys, and how to wake them (decision 0110)."""

import logging
import socket
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlx_stack.errors import StackError
from mlx_stack.home import Home
from mlx_stack.nodes.trust import trusting

if TYPE_CHECKING:
    from mlx_stack.nodes.file import Node

_WAKE_AGAIN_S = 5.0
_WAKE_PORT = 9
_BROADCAST = "255.255.255.255"

_log = logging.getLogger("mlx_stack")

type SendPacket = Callable[[bytes], None]


def magic_packet(mac: str) -> bytes:
    """What wakes the machine with this hardware address: six times 255, then it sixteen times."""
    return b"\xff" * 6 + bytes.fromhex(mac.replace(":", "")) * 16


def broadcast(packet: bytes) -> None:
    """Send a packet to everyone on the networks of this machine.

    Raises:
        OSError: When there is no network.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.sendto(packet, (_BROADCAST, _WAKE_PORT))


class KnownNodes:
    """What `nodes.yaml` says, read again when it has changed; a damaged file changes nothing."""

    def __init__(self, home: Home, send: SendPacket = broadcast) -> None:
        self._path = home.nodes
        self._send = send
        self._nodes: tuple[Node, ...] = ()
        self._read_at: tuple[int, int] | None = None
        self._could_not_read = False
        self._woken_at: dict[str, float] = {}
        self._trusting: dict[str, ssl.SSLContext] = {}

    def at(self, root: str) -> "Node | None":
        """The node at a root, or None."""
        self._refresh()
        return next((node for node in self._nodes if node.url == root), None)

    def trust(self, root: str) -> ssl.SSLContext | None:
        """What accepts the certificate of the node at a root alone; None where any browser does."""
        node = self.at(root)
        if node is None or node.ca is None:
            return None
        if node.ca not in self._trusting:
            self._trusting[node.ca] = trusting(node.ca)
        return self._trusting[node.ca]

    def wake(self, root: str) -> bool:
        """Send what wakes the node at a root, not too often; whether there is a way to wake it."""
        node = self.at(root)
        if node is None or node.mac is None:
            return False
        now = time.monotonic()
        if now - self._woken_at.get(root, -_WAKE_AGAIN_S) >= _WAKE_AGAIN_S:
            self._woken_at[root] = now
            try:
                self._send(magic_packet(node.mac))
                _log.info("%s is being woken", node.name)
            except OSError as error:
                _log.warning("%s can't be woken: %s", node.name, error)
        return True

    def _refresh(self) -> None:
        read_at = None
        try:
            stat = self._path.stat()
            read_at = stat.st_ino, stat.st_mtime_ns
            if read_at == self._read_at:
                return
            self._nodes = self._load()
        except FileNotFoundError:
            read_at, self._nodes = None, ()
        except StackError as error:
            _log.warning("the nodes were not reloaded: %s", error)
        except OSError as error:  # too many files are open, say: the next request tries again
            if not self._could_not_read:
                _log.warning("the nodes were not reloaded: %s", error)
            self._could_not_read = True
            return
        self._read_at, self._could_not_read = read_at, False

    def _load(self) -> "tuple[Node, ...]":
        # imported where there are nodes: a gateway starts without the catalog's reader of YAML
        from mlx_stack.nodes.file import load_nodes  # noqa: PLC0415

        return load_nodes(self._path).nodes
