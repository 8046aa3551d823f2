"""Keep the Mac awake while requests are served: a power assertion in the watchdog's hands."""

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mlx_launchd import KeepAwake, ServingHistory, caffeinate_command, should_hold
from mlx_stack.config import load_config
from mlx_stack.engines.activity import Activity, is_serving, parse_activity
from mlx_stack.errors import StackError
from mlx_stack.gateway.endpoint import LOOPBACK
from mlx_stack.home import Home
from mlx_stack.stack import load_stack

if TYPE_CHECKING:
    import psutil

LOOK_EVERY_S = 15.0
"""Shorter than macOS' shortest idle time before sleep, which is a minute."""
LINGER_S = 120.0
"""How long after the last request the Mac is still kept awake."""
_METRICS_TIMEOUT_S = 2.0
_PROGRAM = "caffeinate"

type Tell = Callable[[str], None]


class Held(Protocol):
    """An assertion that is held until it is released."""

    def is_alive(self) -> bool:
        """Whether it is still held."""
        ...

    def release(self) -> None:
        """Let the Mac sleep again."""
        ...


class AwakeKeeper:
    """Holds and releases the assertion as configuration and requests demand."""

    def __init__(
        self,
        *,
        policy: Callable[[], KeepAwake],
        serving: Callable[[], bool],
        hold: Callable[[], Held],
        tell: Tell,
        linger_s: float = LINGER_S,
    ) -> None:
        """Prepare a keeper; nothing is held yet.

        Args:
            policy: The configured policy, asked at every look.
            serving: Whether requests are served now.
            hold: Takes the assertion.
            tell: Told when the Mac is kept awake, and when no longer.
            linger_s: How long after the last request it is still held.
        """
        self._policy = policy
        self._serving = serving
        self._hold = hold
        self._tell = tell
        self._linger_s = linger_s
        self._history = ServingHistory()
        self._held: Held | None = None

    def look(self, now_s: float) -> bool:
        """See to it that the assertion is held just when it should be; whether it is held now."""
        policy = self._policy()
        serving = policy is KeepAwake.SERVING and self._serving()
        self._history = self._history.seen(serving=serving, now_s=now_s)
        wanted = should_hold(policy, self._history, now_s=now_s, linger_s=self._linger_s)
        if self._held is not None and not self._held.is_alive():
            self._held = None
        if wanted and self._held is None:
            self._held = self._hold()
            why = "always" if policy is KeepAwake.ALWAYS else "requests are served"
            self._tell(f"the Mac is kept awake ({why})")
        elif not wanted and self._held is not None:
            self.release()
            self._tell("the Mac may sleep again")
        return self._held is not None

    def release(self) -> None:
        """Hold nothing any more."""
        if self._held is not None:
            self._held.release()
            self._held = None


@dataclass(frozen=True, slots=True)
class Caffeinated:
    """The assertion of a running `caffeinate`; it ends with the process that it was taken for."""

    process: "subprocess.Popen[bytes]"

    def is_alive(self) -> bool:
        """Whether it is still held."""
        return self.process.poll() is None

    def release(self) -> None:
        """Let the Mac sleep again."""
        self.process.terminate()
        self.process.wait()


def caffeinate(program: Path, pid: int) -> Caffeinated:
    """Keep the Mac awake for as long as the process `pid` lives, or until released."""
    command = (str(program), *caffeinate_command(pid)[1:])
    streams = subprocess.DEVNULL
    return Caffeinated(subprocess.Popen(command, stdin=streams, stdout=streams, stderr=streams))


@contextmanager
def kept_awake(
    home: Home, pid: int, tell: Tell, *, look_every_s: float = LOOK_EVERY_S
) -> Generator[None]:
    """Keep the Mac awake as configured while the block runs; elsewhere than on a Mac do nothing.

    Args:
        home: Where the configuration and the stack are.
        pid: The process to hold the assertion for: this one.
        tell: Told when the Mac is kept awake, and when no longer; from another thread.
        look_every_s: The time between two looks at the engines.
    """
    program = shutil.which(_PROGRAM)
    if program is None:
        yield
        return
    requests = RequestWatch(lambda: tier_ports(home))
    keeper = AwakeKeeper(
        policy=lambda: configured_policy(home),
        serving=requests.look,
        hold=lambda: caffeinate(Path(program), pid),
        tell=tell,
    )
    stop = threading.Event()

    def keep() -> None:
        try:
            while True:
                keeper.look(time.monotonic())
                if stop.wait(look_every_s):
                    return
        finally:
            keeper.release()

    thread = threading.Thread(target=keep, name="keep-awake", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class RequestWatch:
    """Remembers what each engine had answered, so that requests between two looks count too."""

    def __init__(
        self,
        ports: Callable[[], tuple[int, ...]],
        read: "Callable[[int], Activity | None] | None" = None,
    ) -> None:
        """Prepare to watch the engines on these ports.

        Args:
            ports: The engines' ports, asked at every look.
            read: Gives an engine's activity, None where it does not answer.
        """
        self._ports = ports
        self._read = read or read_activity
        self._seen: Mapping[int, Activity] = {}

    def look(self) -> bool:
        """Whether any engine serves requests now, or has since the last look."""
        now = {
            port: activity for port in self._ports() if (activity := self._read(port)) is not None
        }
        serving = any(is_serving(self._seen.get(port), activity) for port, activity in now.items())
        self._seen = now
        return serving


def read_activity(port: int) -> Activity | None:
    """What the engine on this port does; None where it does not answer or publishes nothing."""
    import httpx

    try:
        answer = httpx.get(f"http://{LOOPBACK}:{port}/metrics", timeout=_METRICS_TIMEOUT_S)
    except httpx.HTTPError:
        return None
    return parse_activity(answer.text) if answer.is_success else None


def tier_ports(home: Home) -> tuple[int, ...]:
    """The ports of the stack's engines; none while the stack file cannot be read."""
    try:
        return tuple(tier.port for tier in load_stack(home.stack).tiers)
    except StackError:
        return ()


def configured_policy(home: Home) -> KeepAwake:
    """The policy in the configuration; the default while the file cannot be read."""
    try:
        return KeepAwake(load_config(home).keep_awake)
    except StackError:
        return KeepAwake.SERVING


def is_supported() -> bool:
    """Whether this system has power assertions: `caffeinate` is on PATH."""
    return shutil.which(_PROGRAM) is not None


def is_held_by(pid: int) -> bool:
    """Whether the process `pid` holds an assertion: a `caffeinate` is among its children."""
    import psutil

    try:
        children = psutil.Process(pid).children()
    except psutil.Error:
        return False
    return any(_is_caffeinate(child) for child in children)


def _is_caffeinate(process: "psutil.Process") -> bool:
    import psutil

    try:
        return any(Path(word).name == _PROGRAM for word in process.cmdline())
    except psutil.Error:
        return False
