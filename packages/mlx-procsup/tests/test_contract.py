"""What each call does in each state: the table in `mlx_procsup.service`, line by line."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_procsup import (
    AlreadyRunningError,
    HangRule,
    ProcessSpec,
    RestartPolicy,
    ServiceState,
    StartPlan,
    StateDirs,
    Supervised,
    Watchdog,
    WatchEvent,
    WatchSettings,
    adopt,
    bring_up,
    identify,
    probe_service,
    read_pid,
    start_service,
    stop_service,
    target_of,
    wait_for_healthy,
)
from mlx_procsup.testing import eventually

SpecMaker = Callable[..., ProcessSpec]

STATES = ("stopped", "crashed", "loading", "hung", "healthy")
_RUNS = "already-running"
TABLE = {
    "start_service": ("started", "started", _RUNS, _RUNS, _RUNS),
    "bring_up": ("started", "started", _RUNS, "started", _RUNS),
    "adopt": ("None", "None", "adopted", "adopted", "adopted"),
    "stop_service": ("not-running", "stale-removed", "stopped", "stopped", "stopped"),
    "Watchdog": ("nothing", "restarted", "nothing", "restarted", "nothing"),
}
AFTERWARDS = {"stop_service": "stopped", "bring_up": "healthy"}
_OLD_S = 1.5  # by then it has had its time to load


def _enter(state: str, web: SpecMaker, dirs: StateDirs) -> ProcessSpec:
    """A service in this state."""
    spec = web(ready_after_s=0.4 if state == "loading" else 0.0)
    if state == "stopped":
        return spec
    started = start_service(spec, dirs)
    if state == "loading":
        return spec
    wait_for_healthy(started, 10)
    if state == "hung":
        os.kill(started.pid, signal.SIGSTOP)
    if state == "crashed":
        os.kill(started.pid, signal.SIGKILL)
        assert eventually(lambda: identify(started.pid) is None)
    return spec


def _call(call: str, spec: ProcessSpec, dirs: StateDirs, lock: Path) -> str:
    """What a call did."""
    match call:
        case "start_service":
            try:
                start_service(spec, dirs)
            except AlreadyRunningError:
                return _RUNS
            return "started"
        case "bring_up":
            return bring_up(StartPlan(spec), dirs, timeout_s=_OLD_S).outcome
        case "adopt":
            return "None" if adopt(spec, dirs) is None else "adopted"
        case "stop_service":
            return stop_service(spec.name, dirs).outcome
        case _:
            return _watch(spec, dirs, lock)


def _watch(spec: ProcessSpec, dirs: StateDirs, lock: Path) -> str:
    """What a watchdog that looks three times does first."""
    events: list[WatchEvent] = []
    settings = WatchSettings(
        lock,
        interval_s=0.0,
        restart=RestartPolicy(delay_s=0.0),
        hang=HangRule(polls=2, start_grace_s=_OLD_S),
        probe_timeout_s=0.2,
    )
    watchdog = Watchdog(dirs, settings, lambda: [Supervised(spec)], events.append)
    for _ in range(3):
        watchdog.look()
    done = [event.what for event in events if event.what in ("started", "restarted", "recycled")]
    return done[0] if done else "nothing"


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("call", TABLE)
def test_each_call_does_in_each_state_what_the_table_says(
    dirs: StateDirs, web: SpecMaker, tmp_path: Path, call: str, state: str
) -> None:
    spec = _enter(state, web, dirs)
    before = read_pid(dirs, spec.name)
    if state == "hung":
        target = target_of(spec)
        assert eventually(
            lambda: (probe_service(target, dirs, timeout_s=0.1).uptime_s or 0) > _OLD_S
        )

    done = _call(call, spec, dirs, tmp_path / "lock")

    assert done == TABLE[call][STATES.index(state)]
    after = read_pid(dirs, spec.name)
    assert (after == before) == (done not in ("started", "restarted", "stopped", "stale-removed"))
    if call in AFTERWARDS:
        state_now = probe_service(target_of(spec), dirs).state
        assert state_now is ServiceState(AFTERWARDS[call])
