"""`mlx-stack demo` as in the README: real engines, a real answer, and nothing left of it."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from mlx_stack.engines import embedded_model
from mlx_stack.home import Home
from stack_testkit.program import Program
from stack_testkit.schemas import differences

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """The folder of the demo's temporary files, and of nothing else."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@pytest.fixture
def demonstrator(temporary: Path, tmp_path: Path) -> Program:
    return Program(Home(tmp_path / "home"), {"TMPDIR": str(temporary), "NO_COLOR": "1"})


def _is_of(process: psutil.Process, folder: Path) -> bool:
    try:
        return any(str(folder) in word for word in process.cmdline())
    except psutil.Error:  # it has just ended
        return False


def _running(folder: Path) -> list[psutil.Process]:
    """The processes that have something in `folder` on their command line."""
    return [process for process in psutil.process_iter() if _is_of(process, folder)]


def test_it_answers_falls_back_heals_and_leaves_nothing(
    demonstrator: Program, temporary: Path
) -> None:
    done = demonstrator.run("demo", "--json", timeout_s=380)

    assert done.code == 0, done.err
    shown = done.document
    assert differences(shown, "demo") == []
    assert shown["ok"]
    assert shown["answer"].strip() == embedded_model.ANSWER
    assert shown["fallback"]["killed"] != shown["fallback"]["answered_by"]
    assert shown["fallback"]["restored_s"] > 0
    assert all(step["ok"] for step in shown["steps"])
    assert list(temporary.iterdir()) == []
    assert _running(temporary) == []
    assert not demonstrator.home.root.exists(), "the user's own state is not touched"


@pytest.mark.parametrize("step", ["install engines", "make the model", "up", "watchdog", "ask"])
def test_ctrl_c_leaves_nothing(step: str, demonstrator: Program, temporary: Path) -> None:
    demo = demonstrator.start("demo")
    assert demo.stderr is not None
    next(line for line in demo.stderr if line.startswith(f"… {step}:"))
    os.kill(demo.pid, signal.SIGINT)
    _, told = demo.communicate(timeout=200)

    assert demo.returncode == 130, told
    assert "error: interrupted" in told
    assert "Traceback" not in told
    assert list(temporary.iterdir()) == []
    assert _running(temporary) == []


def test_a_registry_out_of_reach_is_told_with_what_to_do(
    demonstrator: Program, temporary: Path, tmp_path: Path
) -> None:
    away = {
        "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple/",
        "UV_CACHE_DIR": str(tmp_path / "cache"),
        "UV_HTTP_RETRIES": "0",
    }
    program = Program(demonstrator.home, {**demonstrator.variables, **away})

    done = program.run("demo", "--json", timeout_s=200)

    assert done.code == 1
    assert done.document["error"]["message"]
    assert done.document["error"]["hint"]
    assert list(temporary.iterdir()) == []
