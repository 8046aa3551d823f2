"""Random faults on real services under a real watchdog: what is lost, orphaned or hit by mistake.

    uv run python benchmarks/procsup_chaos.py [--faults 1000] [--seed 1]

Three web servers run under a watchdog in its own process, in a folder that is a small tmpfs
where we may mount one (root on Linux), so that the disk can be filled. After each fault every
service must be healthy again and deliver, nothing else of ours may run, no stranger may have been
signalled, none that delivered may have been called wedged, and every state file that we did not
damage ourselves must be readable at every moment.
"""

import argparse
import http.client
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from script import run_script

from mlx_procsup import (
    AnswerKind,
    DeliveryRule,
    HangRule,
    HttpReadiness,
    LockHeldError,
    MachineReader,
    Pressure,
    ProcessSpec,
    RequestInFlight,
    RestartPolicy,
    RotationRule,
    ServiceState,
    StartPlan,
    StateDirs,
    StateFileError,
    Supervised,
    TokenAnswer,
    Unreadable,
    Watchdog,
    WatchSettings,
    Work,
    acquire_lock,
    bring_up,
    probe_all,
    read_pid,
    read_run,
    stop_service,
    target_of,
)
from mlx_procsup.testing import free_port, web_server_command

POLICY = RestartPolicy(delay_s=0.1, max_delay_s=1.0, max_restarts=10**9, window_s=600, stable_s=1.0)
DELIVERY = DeliveryRule(
    idle_look_s=0.4,
    busy_look_s=0.2,
    ask_look_s=0.1,
    floor_s=2.0,
    first_s=0.0,
    doubt_s=1.0,
    ask_every_s=1.0,
    errors_apart_s=0.1,
)
INTERVAL_S = 0.25
PROBE_TIMEOUT_S = 0.5
GRACE_S = 0.3
SETTLES_WITHIN_S = 30.0


def specs(home: Path, ports: list[int]) -> list[ProcessSpec]:
    """Three services: a plain one, one with a child, one that ignores SIGTERM.

    Each exits at once while a file of its name with `.broken` exists.
    """
    odd: list[dict[str, bool]] = [{}, {"spawn_child": True}, {"ignore_sigterm": True}]
    made: list[ProcessSpec] = []
    for number, (port, options) in enumerate(zip(ports, odd, strict=True)):
        name = f"web{number}"
        script = f'test -e {home}/{name}.broken && exit 1; exec "$0" "$@"'
        made.append(
            ProcessSpec(
                name,
                ("/bin/sh", "-c", script, *web_server_command(port, **options)),
                {"PATH": os.defpath},
                home,
                HttpReadiness(f"http://127.0.0.1:{port}/health"),
            )
        )
    return made


@dataclass(frozen=True)
class Delivery:
    """How to learn what a stand-in delivers."""

    port: int
    asks_when_idle: bool = True

    def look(self) -> Work | Unreadable:
        """What it says of its work."""
        status, body = ask(self.port, "/work", 1.0)
        if status is None:
            return Unreadable("no answer")
        in_flight, written, failures = map(int, body.split())
        running = tuple(RequestInFlight(str(number), 0) for number in range(in_flight))
        return Work(running, written=written, failures=failures)

    def ask(self, wait_s: float) -> TokenAnswer:
        """One token."""
        status, _ = ask(self.port, "/token", wait_s)
        kinds = {None: AnswerKind.NOTHING, 200: AnswerKind.TOKEN}
        return TokenAnswer(kinds.get(status, AnswerKind.ERROR), f"HTTP {status}")

    def predict_s(self, size: int | None, /) -> float:
        """Its prompts take no time."""
        del size
        return 0.0


def ask(port: int, path: str, timeout_s: float) -> tuple[int | None, str]:
    """The status and the body of an answer; None where there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException):
        return None, ""
    finally:
        connection.close()


def state_dirs(home: Path) -> StateDirs:
    """Where the state is kept."""
    return StateDirs(home / "pids", home / "run", home / "logs")


def watch(home: Path, ports: list[int]) -> None:
    """The watchdog's process; the file `clock` shifts its wall clock."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    def clock() -> float:
        with suppress(OSError, ValueError):
            return time.time() + float((home / "clock").read_text())
        return time.time()

    settings = WatchSettings(
        lock=home / "lock",
        interval_s=INTERVAL_S,
        restart=POLICY,
        hang=HangRule(polls=2, start_grace_s=0.0),
        delivery=DELIVERY,
        rotation=RotationRule(max_bytes=100_000, max_files=2),
        probe_timeout_s=PROBE_TIMEOUT_S,
        grace_s=GRACE_S,
    )
    services = [
        Supervised(spec, delivery=Delivery(port))
        for spec, port in zip(specs(home, ports), ports, strict=True)
    ]
    machine = MachineReader(clock=clock, pressure=lambda: Pressure.NORMAL)
    watchdog = Watchdog(
        state_dirs(home),
        settings,
        lambda: services,
        lambda d: print(f"{d.service} {d.what}: {d.reason}", flush=True),
        machine,
    )
    watchdog.run(threading.Event().wait)


@dataclass
class World:
    """Everything that a fault can hit, and what was seen to go wrong."""

    home: Path
    ports: list[int]
    rng: random.Random
    services: list[ProcessSpec]
    dirs: StateDirs
    can_fill: bool
    log: Path
    watchdog: subprocess.Popen[bytes] | None = None
    strangers: list[subprocess.Popen[bytes]] = field(default_factory=list[subprocess.Popen[bytes]])
    damaged: set[Path] = field(default_factory=set[Path])
    thieves_hit: int = 0
    wedges: int = 0
    wedges_missed: int = 0
    unreadable: list[str] = field(default_factory=list[str])

    def start_watchdog(self) -> None:
        """Start the watchdog's process."""
        command = (sys.executable, __file__, "--watch", str(self.home), *map(str, self.ports))
        with self.log.open("ab") as log:
            self.watchdog = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def stop_watchdog(self, number: int = signal.SIGTERM) -> None:
        """End the watchdog's process and wait for it."""
        assert self.watchdog is not None
        self.watchdog.send_signal(number)
        self.watchdog.wait()

    def stranger(self) -> int:
        """The PID of a process that must not be signalled."""
        if len(self.strangers) < 5:
            self.strangers.append(subprocess.Popen(("sleep", "86400"), start_new_session=True))
        return self.rng.choice(self.strangers).pid

    def pid(self, spec: ProcessSpec) -> int | None:
        """The recorded process of a service."""
        with suppress(StateFileError):
            record = read_run(self.dirs, spec.name)
            return record.identity.pid if record is not None and record.identity else None
        return None

    def send(self, spec: ProcessSpec, number: int) -> None:
        """Signal a service's own process."""
        pid = self.pid(spec)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def wedge(self, spec: ProcessSpec, number: int) -> None:
        """Let a service answer and deliver nothing, and wait until another has taken its place."""
        before = self.pid(spec)
        if before is None:
            return
        self.wedges += 1
        self.send(spec, number)
        began = time.monotonic()
        while self.pid(spec) == before:
            if time.monotonic() - began > SETTLES_WITHIN_S:
                self.wedges_missed += 1
                self.send(spec, signal.SIGKILL)
                return
            time.sleep(0.02)

    def watch_files(self, stop: threading.Event) -> None:
        """Read every state file again and again."""
        while not stop.wait(0.005):
            for spec in self.services:
                for path, read in (
                    (self.dirs.pid_file(spec.name), read_pid),
                    (self.dirs.run_file(spec.name), read_run),
                ):
                    if path in self.damaged:
                        continue
                    try:
                        read(self.dirs, spec.name)
                    except StateFileError as error:
                        if path not in self.damaged:
                            self.unreadable.append(str(error))


def fault_sigkill(world: World, spec: ProcessSpec) -> None:
    """The process dies; a child of it stays behind."""
    world.send(spec, signal.SIGKILL)


def fault_sigstop(world: World, spec: ProcessSpec) -> None:
    """The process hangs."""
    world.send(spec, signal.SIGSTOP)


def fault_wedged_idle(world: World, spec: ProcessSpec) -> None:
    """It delivers nothing, and nobody asks."""
    world.wedge(spec, signal.SIGUSR1)


def fault_wedged_busy(world: World, spec: ProcessSpec) -> None:
    """It delivers nothing, and somebody waits."""
    port = world.ports[world.services.index(spec)]
    pid = world.pid(spec)
    world.send(spec, signal.SIGUSR1)
    threading.Thread(target=ask, args=(port, "/token", SETTLES_WITHIN_S), daemon=True).start()
    if pid is not None and world.pid(spec) == pid:
        world.wedge(spec, signal.SIGUSR1)


def fault_wedged_failing(world: World, spec: ProcessSpec) -> None:
    """Every answer is an error."""
    world.wedge(spec, signal.SIGUSR2)


def fault_port_stolen(world: World, spec: ProcessSpec) -> None:
    """A stranger takes the port of a dead service for a while."""
    port = int(str(spec.readiness.url).split(":")[2].split("/")[0]) if spec.readiness else 0
    world.send(spec, signal.SIGKILL)
    thief = subprocess.Popen(web_server_command(port), stderr=subprocess.DEVNULL)
    time.sleep(world.rng.uniform(0.3, 1.0))
    if thief.poll() is None:
        thief.kill()
    elif thief.returncode < 0:  # it may end by itself where the service had its port back before
        world.thieves_hit += 1
    thief.wait()


def fault_pid_file_corrupted(world: World, spec: ProcessSpec) -> None:
    """The PID file holds nonsense, or is gone."""
    path = world.dirs.pid_file(spec.name)
    world.damaged.add(path)
    if world.rng.random() < 0.3:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(world.rng.choice([b"", b"x", b"-1\n", b"\xff\x00", b"9" * 40]))
    if world.rng.random() < 0.5:
        world.send(spec, signal.SIGKILL)


def fault_pid_recycled(world: World, spec: ProcessSpec) -> None:
    """The PID now belongs to a stranger, in the PID file and half of the time in the run file."""
    pid = world.stranger()
    world.damaged.add(world.dirs.pid_file(spec.name))  # written below, not atomically
    world.send(spec, signal.SIGKILL)
    with acquire_when_free(world.home / "lock"):
        world.dirs.pid_file(spec.name).write_text(f"{pid}\n")
        run = world.dirs.run_file(spec.name)
        if world.rng.random() < 0.5:
            document = json.loads(run.read_text()) | {"pid": pid}
            # the real process is dead: what it left in its group can't be found by this record
            old = world.pid(spec)
            if old is not None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(old, signal.SIGKILL)
            temporary = run.with_suffix(".new")
            temporary.write_text(json.dumps(document))
            temporary.rename(run)


def fault_run_file_corrupted(world: World, spec: ProcessSpec) -> None:
    """The run file is damaged; the process lives."""
    path = world.dirs.run_file(spec.name)
    world.damaged.add(path)
    path.write_text(world.rng.choice(["", "{", "[]", '{"schema_version": 99}']))


def fault_disk_full(world: World, spec: ProcessSpec) -> None:
    """No byte can be written for a while, and a service dies meanwhile."""
    if not world.can_fill:
        fault_sigkill(world, spec)
        return
    filler = world.home / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 65536)
    world.send(spec, signal.SIGKILL)
    time.sleep(world.rng.uniform(0.3, 1.0))
    filler.unlink()


def fault_lock_holder_killed(world: World, spec: ProcessSpec) -> None:
    """A process dies holding the lock, just when a service needs a restart."""
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from mlx_procsup import LockHeldError, acquire_lock\n"
        "try:\n"
        "  with acquire_lock(Path(sys.argv[1]), 'up'): time.sleep(60)\n"
        "except LockHeldError: pass"
    )
    holder = subprocess.Popen((sys.executable, "-c", program, str(world.home / "lock")))
    time.sleep(0.2)
    world.send(spec, signal.SIGKILL)
    time.sleep(world.rng.uniform(0.0, 0.6))
    holder.kill()
    holder.wait()


def fault_clock_jump(world: World, spec: ProcessSpec) -> None:
    """The wall clock jumps by up to a day, and a service dies."""
    (world.home / "clock").write_text(str(world.rng.uniform(-86400, 86400)))
    world.send(spec, signal.SIGKILL)


def fault_exits_at_once(world: World, spec: ProcessSpec) -> None:
    """A service dies, and so does each restart of it for a while."""
    broken = world.home / f"{spec.name}.broken"
    broken.touch()
    world.send(spec, signal.SIGKILL)
    time.sleep(world.rng.uniform(0.3, 1.0))
    broken.unlink()


def fault_watchdog_killed(world: World, spec: ProcessSpec) -> None:
    """The watchdog dies wherever it just is; another one takes over."""
    world.send(spec, signal.SIGKILL)
    time.sleep(world.rng.uniform(0.0, 0.6))
    world.stop_watchdog(signal.SIGKILL)
    world.start_watchdog()


def fault_user_restarts(world: World, spec: ProcessSpec) -> None:
    """A user stops and starts a service while the watchdog looks on."""
    with acquire_when_free(world.home / "lock"):
        stop_service(spec.name, world.dirs, GRACE_S, command=spec.command)
        time.sleep(world.rng.uniform(0.0, 0.4))
        bring_up(StartPlan(spec), world.dirs, 20.0)


FAULTS: dict[str, Callable[[World, ProcessSpec], None]] = {
    name.removeprefix("fault_"): function
    for name, function in list(globals().items())
    if name.startswith("fault_")
}


@contextmanager
def acquire_when_free(path: Path) -> Generator[None]:
    """The lock, as soon as the watchdog lets go of it."""
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(acquire_lock(path, "chaos"))
                break
            except LockHeldError:
                time.sleep(0.01)
        yield


def settle(world: World) -> float | None:
    """The seconds until every service is healthy; None if they are not in time."""
    began = time.monotonic()
    while time.monotonic() - began < SETTLES_WITHIN_S:
        statuses = probe_all([target_of(spec) for spec in world.services], world.dirs)
        recorded = all(s.record is not None and s.record.identity for s in statuses)
        if recorded and all(s.state is ServiceState.HEALTHY for s in statuses):
            pids = [s.record.identity.pid for s in statuses if s.record and s.record.identity]
            if pids == [read_pid_or_none(world, spec) for spec in world.services]:
                return time.monotonic() - began
        time.sleep(0.02)
    return None


def read_pid_or_none(world: World, spec: ProcessSpec) -> int | None:
    """What the PID file says."""
    with suppress(StateFileError):
        return read_pid(world.dirs, spec.name)
    return None


def orphans(world: World) -> list[int]:
    """Stand-in servers of ours that belong to no recorded service."""
    sessions = {world.pid(spec) for spec in world.services}
    found: list[int] = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if not any(f"port={port}" in words for port in world.ports):
            continue
        with suppress(ProcessLookupError, psutil.Error):
            if os.getsid(process.pid) not in sessions and process.status() != "zombie":
                found.append(process.pid)
    return found


def run(faults: int, seed: int, home: Path, *, can_fill: bool) -> int:
    """Let the faults happen; 0 if everything held."""
    rng = random.Random(seed)
    ports = [free_port() for _ in range(3)]
    log = Path(tempfile.gettempdir()) / f"procsup_chaos.{os.getpid()}.log"
    world = World(home, ports, rng, specs(home, ports), state_dirs(home), can_fill, log)
    for spec in world.services:
        result = bring_up(StartPlan(spec), world.dirs)
        assert result.error is None, result.error
    world.start_watchdog()
    stop = threading.Event()
    threading.Thread(target=world.watch_files, args=(stop,), daemon=True).start()
    times: dict[str, list[float]] = {name: [] for name in FAULTS}
    problems: Counter[str] = Counter()
    try:
        for number in range(faults):
            name = rng.choice(list(FAULTS))
            FAULTS[name](world, rng.choice(world.services))
            seconds = settle(world)
            if seconds is None:
                problems[f"not healthy after {name}"] += 1
                print(f"fault {number} ({name}): not healthy; see {log}", flush=True)
            else:
                times[name].append(seconds)
            world.damaged.clear()
            if orphans(world):
                time.sleep(0.2)  # one that is just being stopped is none
                problems[f"orphan after {name}"] += len(orphans(world))
            problems["stranger signalled"] += sum(s.poll() is not None for s in world.strangers)
            if (number + 1) % 100 == 0:
                print(f"{number + 1} faults, problems: {dict(+problems)}", flush=True)
    finally:
        stop.set()
        world.stop_watchdog()
        for spec in world.services:
            stop_service(spec.name, world.dirs, GRACE_S)
        for stranger in world.strangers:
            stranger.kill()
            stranger.wait()
    problems["thief signalled"] += world.thieves_hit
    problems["wedge missed"] += world.wedges_missed
    said = sum(" wedged: " in line for line in log.read_text(errors="replace").splitlines())
    problems["called wedged without being it"] += max(said - world.wedges, 0)
    print(f"{world.wedges} wedges, {said} times called so")
    problems["state file unreadable"] += len(world.unreadable)
    for words in world.unreadable:
        print(words)
    report(times, problems)
    return 1 if +problems else 0


def report(times: dict[str, list[float]], problems: Counter[str]) -> None:
    """Print what happened."""
    print(f"\n{'fault':<22} {'times':>5} {'median':>8} {'p95':>8} {'slowest':>8}   healthy again")
    for name, seconds in sorted(times.items()):
        if seconds:
            ordered = sorted(seconds)
            p95 = ordered[int(len(ordered) * 0.95)]
            print(
                f"{name:<22} {len(ordered):>5} {statistics.median(ordered):>6.2f} s "
                f"{p95:>6.2f} s {ordered[-1]:>6.2f} s"
            )
    print(f"\nfaults: {sum(map(len, times.values()))}, problems: {dict(+problems) or 'none'}")


def main() -> int:
    """Parse the arguments and run."""
    if sys.argv[1:2] == ["--watch"]:
        watch(Path(sys.argv[2]), [int(port) for port in sys.argv[3:]])
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="procsup-chaos-"))
    mount = ("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(home))
    can_fill = sys.platform == "linux" and os.geteuid() == 0
    can_fill = can_fill and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    print(f"home {home}, the disk {'can' if can_fill else 'can not'} be filled", flush=True)
    try:
        return run(options.faults, options.seed, home, can_fill=can_fill)
    finally:
        if can_fill:
            subprocess.run(("umount", str(home)), check=False)
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    run_script(main)
