"""Keep the Mac awake while requests are served: a `caffeinate` of the watchdog (decision 0069)."""

import http.client
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from mlx_procsup import Ask
from mlx_stack.child_environment import inherited_environment
from mlx_stack.config import KeepAwake, load_config
from mlx_stack.errors import StackError
from mlx_stack.gateway.endpoint import LOOPBACK
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.engine_door import asker, request

LOOK_EVERY_S = 15.0
"""Shorter than macOS' shortest idle time before sleep, which is a minute."""
LINGER_S = 120.0
"""How long after the last request the Mac is still kept awake: a client that thinks between two
requests is still there, and macOS counts idle time in minutes."""
_METRICS_TIMEOUT_S = 2.0
_PROGRAM = "caffeinate"
_SAMPLE = re.compile(
    r"vllm_mlx_http_requests_(in_flight|total)\{([^}]*)\}\s+([0-9][0-9.eE+]*)(?:\s.*)?"
)


@contextmanager
def kept_awake(
    home: Home, pid: int, tell: Callable[[str], None], *, look_every_s: float = LOOK_EVERY_S
) -> Generator[None]:
    """Keep the Mac awake as configured while the block runs; elsewhere than on a Mac do nothing.

    Args:
        tell: Called when the Mac begins and stops being kept awake; from another thread.
    """
    program = shutil.which(_PROGRAM)
    if program is None:
        yield
        return
    # `-i` prevents idle sleep, `-s` system sleep on mains power. `-w` ties it to the process, so
    # that nothing keeps a Mac awake for a watchdog that was killed.
    holder = AssertionHolder((program, "-i", "-s", "-w", str(pid)), tell)
    stop = threading.Event()
    thread = threading.Thread(
        target=_keep, args=(home, holder, stop, look_every_s), name="keep-awake", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _keep(home: Home, holder: "AssertionHolder", stop: threading.Event, every_s: float) -> None:
    seen: Mapping[str, Activity] = {}
    trouble = ""
    try:
        while True:
            try:
                seen = _look(home, holder, seen)
                trouble = ""
            except OSError as error:  # no more files, say: the next look may be better
                if str(error) != trouble:
                    trouble = str(error)
                    holder.tell(f"can't see whether requests are served: {trouble}")
            if stop.wait(every_s):
                return
    finally:
        holder.release()


def _look(
    home: Home, holder: "AssertionHolder", before: Mapping[str, "Activity"]
) -> Mapping[str, "Activity"]:
    """Hold or release the assertion as the engines' work asks; what they do now."""
    policy, seen = configured_policy(home), before
    serving = False
    if policy is KeepAwake.SERVING:
        seen = read_activities(engines_to_ask(home))
        serving = any(is_serving(before.get(name), now) for name, now in seen.items())
    holder.look(policy, serving=serving, now_s=time.monotonic())
    return seen


@dataclass(slots=True)
class AssertionHolder:
    """The power assertion of one process, held just when it should be.

    Attributes:
        tell: Called when the Mac begins and stops being kept awake.
        linger_s: How long after the last request it is still held.
    """

    command: Sequence[str]
    tell: Callable[[str], None]
    linger_s: float = LINGER_S
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)
    _last_served_s: float | None = field(default=None, init=False)

    def look(self, policy: KeepAwake, *, serving: bool, now_s: float) -> bool:
        """Take or release the assertion as the policy and the requests ask; whether it is held."""
        if serving:
            self._last_served_s = now_s
        wanted = policy is KeepAwake.ALWAYS or (
            policy is KeepAwake.SERVING
            and self._last_served_s is not None
            and now_s - self._last_served_s <= self.linger_s
        )
        if self._process is not None and self._process.poll() is not None:
            self._process = None
        if wanted and self._process is None:
            streams = subprocess.DEVNULL
            self._process = subprocess.Popen(
                self.command,
                stdin=streams,
                stdout=streams,
                stderr=streams,
                env=inherited_environment(),
            )
            why = "always" if policy is KeepAwake.ALWAYS else "requests are served"
            self.tell(f"the Mac is kept awake ({why})")
        elif not wanted and self._process is not None:
            self.release()
            self.tell("the Mac may sleep again")
        return self._process is not None

    def release(self) -> None:
        """Let the Mac sleep again."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


@dataclass(frozen=True, slots=True)
class Activity:
    """What an engine has done and does, from the metrics that vllm-mlx publishes.

    Only POST counts: inference is asked for that way, while health checks and this question are
    GET. A streamed answer is in flight until its last token.

    Attributes:
        in_flight: Requests being answered now.
        answered: Requests answered since the engine started.
    """

    in_flight: int
    answered: int


def parse_activity(metrics: str) -> Activity:
    """What Prometheus' text format says of requests; zeros where it says nothing."""
    counts = {"in_flight": 0, "total": 0}
    for line in metrics.splitlines():
        sample = _SAMPLE.fullmatch(line.strip())
        if sample and 'method="POST"' in sample[2]:
            counts[sample[1]] += int(float(sample[3]))
    return Activity(in_flight=counts["in_flight"], answered=counts["total"])


def read_activities(engines: Mapping[str, tuple[Ask, int]]) -> dict[str, Activity]:
    """What these engines do; one that doesn't answer or publishes nothing is left out.

    An engine that is silent is not known to serve.

    Args:
        engines: For each tier what makes its proof, and its port.
    """
    activities: dict[str, Activity] = {}
    for name, (ask, port) in engines.items():
        try:
            status, text = request(
                *(f"{LOOPBACK}:{port}", "GET", "/metrics"), ask=ask, timeout_s=_METRICS_TIMEOUT_S
            )
        except (OSError, http.client.HTTPException):
            continue
        if status == http.client.OK:
            activities[name] = parse_activity(text.decode(errors="replace"))
    return activities


def is_serving(before: Activity | None, now: Activity) -> bool:
    """Whether a request is in flight, or one was answered since the look before.

    A smaller count than before is an engine that was restarted.
    """
    return now.in_flight > 0 or (
        before is not None and now.answered != before.answered and now.answered > 0
    )


def engines_to_ask(home: Home) -> dict[str, tuple[Ask, int]]:
    """The stack's engines, as `read_activities` wants them; none while the file can't be read."""
    stack = OpenStack(home).readable_stack
    tiers = stack.tiers if stack is not None else ()
    return {tier.name: (asker(home.state_dirs, tier.name), tier.port) for tier in tiers}


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
    with suppress(psutil.Error):
        for child in psutil.Process(pid).children():
            with suppress(psutil.Error):
                if any(Path(word).name == _PROGRAM for word in child.cmdline()):
                    return True
    return False
