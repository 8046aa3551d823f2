"""Free TCP ports on loopback."""

import socket
from collections.abc import Collection
from itertools import islice
from secrets import SystemRandom

from mlx_stack.gateway.endpoint import LOOPBACK

_QUIET_PORTS = range(20_000, 32_768, 2)


def free_ports(count: int) -> list[int]:
    """`count` ports that are free at this moment; so is the one after each, where LiteLLM may be.

    None of them is one that the system gives to outgoing connections: those begin at 32768 on
    Linux and at 49152 on macOS.
    """
    ports = SystemRandom().sample(_QUIET_PORTS, len(_QUIET_PORTS))
    return list(islice((port for port in ports if is_free(port) and is_free(port + 1)), count))


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
