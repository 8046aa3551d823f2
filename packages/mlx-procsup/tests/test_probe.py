"""What `status` sees, with real processes."""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import psutil

import mlx_procsup
from mlx_procsup import (
    HttpReadiness,
    ProbeTarget,
    ProcessSpec,
    ServiceState,
    StateDirs,
    identify,
    probe_all,
    probe_service,
    read_pid,
    start_service,
    stop_service,
    target_of,
    wait_for_healthy,
)
from mlx_procsup.http_probe import accepts_connection
from mlx_procsup.identity import reap
from mlx_procsup.testing import eventually
from mlx_procsup.usage import measure_usage

SpecMaker = Callable[..., ProcessSpec]


def test_a_healthy_service_shows_its_figures(dirs: StateDirs, web: SpecMaker) -> None:
    spec = web()
    started = start_service(spec, dirs)
    wait_for_healthy(started, 10)
    status = probe_service(target_of(spec), dirs)
    assert status.state is ServiceState.HEALTHY
    assert status.pid == started.pid
    assert status.response_ms is not None
    assert status.response_ms < 2000
    assert status.memory_bytes is not None
    assert status.memory_bytes > 1_000_000
    assert status.uptime_s is not None
    assert 0 <= status.uptime_s < 60
    assert status.last_error is None


def test_a_slow_answer_is_degraded(dirs: StateDirs, web: SpecMaker) -> None:
    spec = web(answer_after_s=2.1)
    start_service(spec, dirs)
    readiness = spec.readiness
    assert readiness is not None
    assert eventually(lambda: accepts_connection(readiness.url))
    status = probe_service(target_of(spec), dirs)
    assert status.state is ServiceState.DEGRADED
    assert status.response_ms is not None
    assert 2000 < status.response_ms < 5000


def test_an_error_status_is_down_and_says_which(dirs: StateDirs, web: SpecMaker) -> None:
    spec = web(ready_after_s=60)
    start_service(spec, dirs)
    assert eventually(lambda: probe_service(target_of(spec), dirs).last_error == "HTTP 503")
    assert probe_service(target_of(spec), dirs).state is ServiceState.DOWN


def test_a_dead_process_is_crashed_with_its_last_words(dirs: StateDirs, tmp_path: Path) -> None:
    spec = ProcessSpec(
        "dead", ("/bin/sh", "-c", "echo out of memory; exit 1"), {"PATH": os.defpath}, tmp_path
    )
    started = start_service(spec, dirs)
    assert eventually(lambda: identify(started.pid) is None)
    status = probe_service(target_of(spec), dirs)
    assert (status.state, status.pid) == (ServiceState.CRASHED, started.pid)
    assert status.last_error == "crashed; last log line: out of memory"
    reap(started.pid)


def test_without_a_pid_file_it_is_stopped_and_nothing_is_written(dirs: StateDirs) -> None:
    status = probe_service(ProbeTarget("never"), dirs)
    assert status.state is ServiceState.STOPPED
    assert status.pid is None
    assert not dirs.pids.exists()


def test_hanging_services_cost_their_deadline_only_once(dirs: StateDirs, web: SpecMaker) -> None:
    specs = [web(f"web{n}") for n in range(4)]
    for started in [start_service(spec, dirs) for spec in specs]:
        wait_for_healthy(started, 10)
    hanging = [
        ProbeTarget(spec.name, HttpReadiness(spec.readiness.url.replace("/health", "/hang")))
        for spec in specs[:3]
        if spec.readiness is not None
    ]
    began = time.monotonic()
    statuses = probe_all([*hanging, target_of(specs[3])], dirs, timeout_s=1.0)
    assert time.monotonic() - began < 2.0  # two of them, one after the other
    assert [status.state for status in statuses] == [*[ServiceState.DOWN] * 3, ServiceState.HEALTHY]
    assert statuses[0].last_error == "no answer within 1 s"


def test_a_suspended_service_is_down(dirs: StateDirs, web: SpecMaker) -> None:
    spec = web()
    started = start_service(spec, dirs)
    wait_for_healthy(started, 10)
    os.kill(started.pid, signal.SIGSTOP)
    status = probe_service(target_of(spec), dirs, timeout_s=0.5)
    assert status.state is ServiceState.DOWN
    os.kill(started.pid, signal.SIGCONT)


def test_a_damaged_run_file_is_told_not_hidden(dirs: StateDirs, web: SpecMaker) -> None:
    spec = web()
    wait_for_healthy(start_service(spec, dirs), 10)
    whole = dirs.run_file("web").read_text()
    dirs.run_file("web").write_text("[]")
    status = probe_service(target_of(spec), dirs)
    dirs.run_file("web").write_text(whole)
    assert status.state is ServiceState.HEALTHY
    assert status.last_error is not None
    assert "isn't a run file" in status.last_error


def test_a_pid_file_with_the_number_of_another_process_means_crashed(
    dirs: StateDirs, web: SpecMaker
) -> None:
    dirs.create()
    dirs.pid_file("web").write_text(f"{os.getpid()}\n")
    status = probe_service(target_of(web()), dirs)
    assert status.state is ServiceState.CRASHED
    assert status.pid is None


@dataclass(frozen=True, slots=True)
class ChangedMeanwhile(StateDirs):
    """Folders in which a service is started or stopped just when its run file is looked for."""

    change: Callable[[], object] = field(kw_only=True)

    def run_file(self, name: str) -> Path:
        self.change()
        return StateDirs.run_file(self, name)


def test_a_service_that_is_stopped_while_it_is_looked_at_has_not_crashed(
    dirs: StateDirs, tmp_path: Path
) -> None:
    spec = ProcessSpec("a", ("/bin/sleep", "60"), {}, tmp_path)
    start_service(spec, dirs)
    looked_at = ChangedMeanwhile(
        dirs.pids, dirs.run, dirs.logs, change=lambda: stop_service("a", dirs)
    )
    status = probe_service(target_of(spec), looked_at)
    assert (status.state, status.files_problem) == (ServiceState.STOPPED, None)


def test_a_service_that_is_started_again_while_it_is_looked_at_has_no_wrong_files(
    dirs: StateDirs, tmp_path: Path
) -> None:
    spec = ProcessSpec("a", ("/bin/sleep", "60"), {}, tmp_path)
    first = start_service(spec, dirs)

    def start_again() -> None:
        if read_pid(dirs, "a") == first.pid:
            stop_service("a", dirs)
            start_service(spec, dirs)

    looked_at = ChangedMeanwhile(dirs.pids, dirs.run, dirs.logs, change=start_again)
    status = probe_service(target_of(spec), looked_at)
    assert (status.pid, status.files_problem) == (read_pid(dirs, "a"), None)
    assert status.pid != first.pid


def test_every_public_name_can_be_imported_and_is_no_module() -> None:
    for name in mlx_procsup.__all__:
        assert not isinstance(getattr(mlx_procsup, name), ModuleType), name


def test_what_a_service_starts_counts_as_its_own_and_what_left_its_session_does_not(
    dirs: StateDirs, tmp_path: Path
) -> None:
    child = "import sys, time; blob = bytes(60_000_000); print('up', flush=True); time.sleep(60)"
    code = (
        "import subprocess, sys, time\n"
        f"words = [sys.executable, '-c', {child!r}]\n"
        "for apart in (False, True):\n"
        "    made = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=apart)\n"
        "    made.stdout.readline(); print(made.pid, flush=True)\n"
        "time.sleep(60)"
    )
    spec = ProcessSpec("parent", (sys.executable, "-c", code), {}, tmp_path)
    started = start_service(spec, dirs)
    log = dirs.log_file("parent")
    assert eventually(lambda: len(log.read_text().split()) == 2)
    try:
        held = probe_service(ProbeTarget("parent"), dirs).memory_bytes
        own, inside, _ = (
            psutil.Process(pid).memory_info().rss
            for pid in (started.pid, *map(int, log.read_text().split()))
        )
        assert held is not None
        assert abs(held - own - inside) < 2_000_000
        below_us = measure_usage(os.getpid(), time.time())
        assert below_us is not None
        assert below_us.memory_bytes < psutil.Process().memory_info().rss + inside
    finally:
        stop_service("parent", dirs)
