"""Stand-ins for tests of whatever supervises processes: real ones, that misbehave on request."""

import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from secrets import SystemRandom

_QUIET_PORTS = range(20_000, 32_768)
_first = SystemRandom().randrange(len(_QUIET_PORTS))
_ports = cycle((*_QUIET_PORTS[_first:], *_QUIET_PORTS[:_first]))
_SERVER = Path(__file__).with_name("web_server.py")


def web_server_command(
    port: int,
    *,
    ready_after_s: float = 0.0,
    listen_after_s: float = 0.0,
    answer_after_s: float = 0.0,
    exit_after_s: float | None = None,
    exit_code: int = 3,
    ignore_sigterm: bool = False,
    spawn_child: bool = False,
    print_lines: int = 0,
) -> tuple[str, ...]:
    """The command of a web server that starts in a few hundredths of a second.

    `GET /health` answers 200, or 503 until it is ready; `GET /hang` never answers. `GET /token` is
    its work, of which `GET /work` tells: requests in flight, answers, failures. From SIGUSR1 on it
    delivers nothing, from SIGUSR2 on it fails each time; to everything else it goes on answering.

    Args:
        ready_after_s: Until then it answers 503.
        listen_after_s: Until then it accepts no connection.
        answer_after_s: How long each answer takes.
        exit_after_s: When it ends by itself; never, if None.
        exit_code: The status that it then ends with.
        ignore_sigterm: Only SIGKILL ends it.
        spawn_child: It starts a child that sleeps, in the same process group.
        print_lines: How many lines a second it prints.
    """
    options: dict[str, object] = {
        "port": port,
        "ready-after-s": ready_after_s,
        "listen-after-s": listen_after_s,
        "answer-after-s": answer_after_s,
        "exit-after-s": -1.0 if exit_after_s is None else exit_after_s,
        "exit-code": exit_code,
        "ignore-sigterm": int(ignore_sigterm),
        "spawn-child": int(spawn_child),
        "print-lines": print_lines,
    }
    words = [f"{name}={value}" for name, value in options.items()]
    return (sys.executable, "-I", "-S", str(_SERVER), *words)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free at this moment.

    It isn't one that the system gives to outgoing connections: those begin at 32768 on Linux and
    at 49152 on macOS, and one of them may be taken before a service listens. Each process has a
    sequence of its own, since two that pick at random pick the same one sooner or later.
    """
    while True:
        port = next(_ports)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def eventually(condition: Callable[[], bool], within_s: float = 60.0) -> bool:
    """Whether the condition comes true in time; it is looked at every hundredth of a second.

    Args:
        within_s: By default so long that a busy machine is in time as well.
    """
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return condition()
