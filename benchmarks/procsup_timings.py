"""How long supervision itself takes: start, stop, probes, noticing a crash, reading a huge log.

    uv run python benchmarks/procsup_timings.py [--log-gb 2]

Everything is real: processes, sockets, files. Each figure is the median of several runs, with the
slowest next to it, and stands next to what it should stay below.
"""

import argparse
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from script import run_script

from mlx_procsup import (
    ExitedEarlyError,
    HttpReadiness,
    ProbeTarget,
    ProcessSpec,
    RestartPolicy,
    StartPlan,
    StateDirs,
    Supervised,
    Watchdog,
    WatchEvent,
    WatchSettings,
    bring_up,
    probe_all,
    start_all,
    start_service,
    stop_service,
    tail_with_archive,
    wait_for_healthy,
)
from mlx_procsup.testing import eventually, free_port, web_server_command

OWN_START_S = 2.0


def main() -> int:
    """Run every measurement and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log-gb", type=float, default=2.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="procsup-timings-") as folder:
        home = Path(folder)
        bench = Bench(home)
        show("up of three services beyond the slowest's own start", bench.up, 5, 0.5)
        show("down of three services that obey SIGTERM", bench.down, 5, 0.3)
        show("a child that dies at start is reported after", bench.early_exit, 10, 0.2)
        show("status of 50 services, 25 of them hanging", bench.status, 3, 5.1)
        noticed, begun = bench.crash()
        show("a crash is noticed after (interval 1 s)", iter_of(noticed), len(noticed), 1.0)
        show("the restart begins, beyond its delay, after", iter_of(begun), len(begun), 1.0)
        log = home / "huge.log"
        write_log(log, int(options.log_gb * 1e9))
        show(f"tail 50 of a {options.log_gb:g} GB log", lambda: timed(tail, log), 10, 0.3)
    return 0


def show(what: str, measure: Callable[[], float], runs: int, limit_s: float) -> None:
    """Measure and print one line."""
    seconds = sorted(measure() for _ in range(runs))
    median, slowest = statistics.median(seconds), seconds[-1]
    verdict = "ok" if slowest <= limit_s else "TOO SLOW"
    print(
        f"{what:<54} {median:7.3f} s  slowest {slowest:7.3f} s  <= {limit_s:g} s  {verdict}",
        flush=True,
    )


def iter_of(values: list[float]) -> Callable[[], float]:
    """Hands the values out one by one."""
    waiting = iter(values)
    return lambda: next(waiting)


def timed(function: Callable[..., object], *arguments: object) -> float:
    """The seconds that a call takes."""
    began = time.monotonic()
    function(*arguments)
    return time.monotonic() - began


def tail(log: Path) -> None:
    """Read the end of a log."""
    assert len(tail_with_archive(log, 50)) == 50


def write_log(log: Path, size_bytes: int) -> None:
    """A log of numbered lines; written in blocks, since only its end matters."""
    block = "".join(f"INFO request {n} answered in 0.123 s\n" for n in range(20_000)).encode()
    with log.open("wb") as file:
        for _ in range(size_bytes // len(block) + 1):
            file.write(block)


class Bench:
    """The measurements that need services."""

    def __init__(self, home: Path) -> None:
        """Prepare to keep state in `home`."""
        self.home = home
        self.dirs = StateDirs(home / "pids", home / "run", home / "logs")

    def spec(self, name: str, listen_after_s: float = 0.0) -> ProcessSpec:
        """A web server on a free port."""
        port = free_port()
        return ProcessSpec(
            name,
            web_server_command(port, listen_after_s=listen_after_s),
            {"PATH": os.defpath},
            self.home,
            HttpReadiness(f"http://127.0.0.1:{port}/health"),
        )

    def stop(self, names: list[str]) -> None:
        """Stop services, side by side."""
        threads = [threading.Thread(target=stop_service, args=(n, self.dirs)) for n in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def up(self) -> float:
        """Three services of which the slowest takes two seconds."""
        specs = [
            self.spec("a"),
            self.spec("b", listen_after_s=1.0),
            self.spec("c", listen_after_s=OWN_START_S),
        ]
        seconds = timed(lambda: start_all([StartPlan(spec) for spec in specs], self.dirs))
        self.stop([spec.name for spec in specs])
        return seconds - OWN_START_S

    def down(self) -> float:
        """Three healthy services."""
        specs = [self.spec(name) for name in "abc"]
        start_all([StartPlan(spec) for spec in specs], self.dirs)
        return timed(self.stop, [spec.name for spec in specs])

    def early_exit(self) -> float:
        """From a child's death to the report."""
        moment = self.home / "died"
        script = f"sleep 0.7; date +%s.%N > {moment}; exit 3"
        readiness = HttpReadiness(f"http://127.0.0.1:{free_port()}/")
        spec = ProcessSpec(
            "dies", ("/bin/sh", "-c", script), {"PATH": os.defpath}, self.home, readiness
        )
        started = start_service(spec, self.dirs)
        with suppress(ExitedEarlyError):
            wait_for_healthy(started, 30)
        seconds = time.time() - float(moment.read_text())
        stop_service("dies", self.dirs)
        return seconds

    def status(self) -> float:
        """Fifty probes; every other service never answers."""
        specs = [self.spec(f"s{n}") for n in range(50)]
        start_all([StartPlan(spec) for spec in specs], self.dirs)
        targets = [
            ProbeTarget(spec.name, HttpReadiness(spec.readiness.url.replace("health", path)))
            for number, spec in enumerate(specs)
            for path in ("hang" if number % 2 else "health",)
            if spec.readiness is not None
        ]
        seconds = timed(probe_all, targets, self.dirs)
        self.stop([spec.name for spec in specs])
        return seconds

    def crash(self, times: int = 10) -> tuple[list[float], list[float]]:
        """From a kill to the decision, and from there to the restart less its delay."""
        decisions: list[WatchEvent] = []
        delay_s = 0.5
        spec = self.spec("w")
        settings = WatchSettings(
            lock=self.home / "lock",
            interval_s=1.0,
            restart=RestartPolicy(delay_s=delay_s, max_delay_s=delay_s, max_restarts=10**6),
        )
        watchdog = Watchdog(self.dirs, settings, lambda: [Supervised(spec)], decisions.append)
        bring_up(StartPlan(spec), self.dirs)
        end = threading.Event()
        thread = threading.Thread(target=watchdog.run, args=(end.wait,))
        thread.start()
        noticed: list[float] = []
        begun: list[float] = []
        for number in range(times):
            time.sleep(0.3 + number * 0.17)
            decisions.clear()
            pid = int(self.dirs.pid_file("w").read_text())
            killed_at = time.time()
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: "restarted" in [d.what for d in decisions], 15)
            at = {decision.what: decision.at for decision in decisions}
            noticed.append(at["noticed"] - killed_at)
            begun.append(at["restarted"] - at["noticed"] - delay_s)
        end.set()
        thread.join()
        stop_service("w", self.dirs)
        return noticed, begun


if __name__ == "__main__":
    run_script(main)
