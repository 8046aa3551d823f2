"""The gateway's view of what the watchdog found."""

import os
import time
from pathlib import Path

import pytest

from mlx_gateway.settings import GatewaySettings, parse_settings
from mlx_procsup import LastLook, RunRecord, StateDirs, Wedge, identify, write_run
from mlx_procsup.looks import write_last_look
from mlx_stack.gateway_process import WedgedEngines

ROOT = "http://127.0.0.1:8000"
SETTINGS = parse_settings(
    f"schema_version: 1\nhost: 127.0.0.1\nport: 4000\n"
    f"models: {{standard: {{upstreams: [{{url: '{ROOT}', model: big}}]}}}}"
)


@pytest.fixture
def dirs(tmp_path: Path) -> StateDirs:
    dirs = StateDirs(tmp_path / "pids", tmp_path / "run", tmp_path / "logs")
    dirs.create()
    write_run(dirs, "standard", RunRecord(identity=identify(os.getpid())))
    return dirs


def settings() -> GatewaySettings:
    return SETTINGS


def note(dirs: StateDirs, pid: int, *, at: float | None = None) -> None:
    wedge = Wedge(pid, "nothing moves", time.time())
    write_last_look(dirs, LastLook(at or time.time(), 30, 1, {"standard": wedge}))


def test_an_engine_that_the_watchdog_found_wedged_is_avoided_until_it_is_another_process(
    dirs: StateDirs,
) -> None:
    is_wedged = WedgedEngines(dirs, settings)
    assert not is_wedged(ROOT)
    note(dirs, os.getpid())
    assert is_wedged(ROOT)
    assert not is_wedged("http://127.0.0.1:8001")
    write_run(dirs, "standard", RunRecord(identity=identify(os.getppid())))
    assert not is_wedged(ROOT)


def test_what_a_watchdog_said_that_looks_no_more_is_forgotten(dirs: StateDirs) -> None:
    note(dirs, os.getpid(), at=time.time() - 600)
    assert not WedgedEngines(dirs, settings)(ROOT)


def test_a_damaged_note_avoids_nobody(dirs: StateDirs) -> None:
    dirs.last_look_file.write_text("{")
    assert not WedgedEngines(dirs, settings)(ROOT)
