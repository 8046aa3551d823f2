"""Free TCP ports on loopback."""

import contextlib
import socket
from collections.abc import Collection

from mlx_stack.gateway.endpoint import LOOPBACK


def free_ports(count: int) -> list[int]:
    """`count` different ports of the system's choice, free at this moment."""
    with contextlib.ExitStack() as sockets:
        probes = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]


def next_free_port(preferred: int, taken: Collection[int] = ()) -> int:
    """`preferred`, or the first port above it that is neither in use nor in `taken`."""
    for port in range(preferred, 2**16):
        if port not in taken and is_free(port):
            return port
    return free_ports(1)[0]


def is_free(port: int) -> bool:
    """Whether a service could listen on `port` at this moment."""
    with socket.socket() as probe:
        # as servers do, so that a connection in TIME_WAIT doesn't count as a listener
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
