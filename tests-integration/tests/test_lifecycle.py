"""`up`, `down` and `status` of the installed program, on real processes and ports."""

import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import ollama
import psutil
import pytest

from mlx_procsup import identify
from mlx_procsup.testing import eventually
from mlx_stack.config import save_values
from mlx_stack.home import Home
from mlx_stack.services.ports import free_ports
from mlx_stack.stack import save_stack
from stack_testkit.home import define_stack, install_fake_engines
from stack_testkit.program import Program

_NAMES = ("standard", "fast", "gateway")


def _outcomes(document: dict[str, list[dict[str, object]]]) -> dict[str, object]:
    return {str(row["name"]): row["outcome"] for row in document["services"]}


def _states(document: dict[str, list[dict[str, object]]]) -> dict[str, object]:
    return {str(row["name"]): row["state"] for row in document["services"]}


def _pid(program: Program, name: str) -> int:
    return int((program.home.pids / f"{name}.pid").read_text())


def _ask(program: Program, model: str, question: str) -> Any:
    """A chat completion through the gateway, as a client makes it."""
    key = json.loads(program.home.credentials.read_text())["gateway_key"]
    url = program.run("env", "--json").document["env"]["OPENAI_BASE_URL"]
    body = {"model": model, "messages": [{"role": "user", "content": question}]}
    request = urllib.request.Request(
        f"{url}/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


@pytest.mark.story
def test_a_terminal_shows_that_a_start_takes_a_while_and_the_pipe_gets_the_answer(
    served: Program,
) -> None:
    install_fake_engines(served.home, engine_options=["--ready-after", "0.5"])
    define_stack(served.home, {"standard": {}})
    terminal, other_end = pty.openpty()
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        up = subprocess.Popen(
            served.command("up"),
            env={**served.environment, "TERM": "xterm"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=other_end,
        )
        answer, _ = up.communicate(timeout=60)
        os.close(other_end)
        shown = screen.read(65536)

    assert up.returncode == 0
    assert [line.split()[1] for line in answer.decode().splitlines()] == ["standard", "gateway"]
    assert b"starting" in shown
    assert b"ready after" not in shown


@pytest.mark.story
def test_a_failed_up_names_the_log_and_still_the_endpoint_that_serves(served: Program) -> None:
    define_stack(served.home, {"standard": {}, "fast": {"ready-after": 30, "exit-after": 0.1}})

    failed = served.run("up")

    assert failed.code == 1
    assert "Endpoint http://127.0.0.1:" in failed.err
    assert failed.err.endswith("`mlx-stack logs fast` shows why.\n")


@pytest.mark.story
def test_after_a_change_everything_knows_what_runs_and_what_up_would_change(
    served: Program,
) -> None:
    stack = define_stack(served.home, {"standard": {}, "fast": {}, "coder": {}})
    assert served.run("up").code == 0
    before = served.run("env", "--json").document["env"]["OPENAI_BASE_URL"]
    new_port = free_ports(1)[0]

    done = served.run("config", "set", "litellm-port", str(new_port))
    standard, fast, _coder = stack.tiers
    save_stack(
        served.home.stack,
        msgspec.structs.replace(
            stack, tiers=(standard, msgspec.structs.replace(fast, model="new-model"))
        ),
    )

    assert "`mlx-stack up` applies it" in done.err
    assert served.run("env", "--json").document["env"]["OPENAI_BASE_URL"] == before
    assert "hi" in served.run("ask", "hi").out
    report = served.run("status", "--json")
    rows = {row["name"]: row for row in report.document["services"]}
    assert report.code == 0
    assert report.document["gateway_url"] == before
    assert (rows["fast"]["model"], rows["fast"]["model_after_up"]) == ("fast-model", "new-model")
    assert rows["gateway"]["port_after_up"] == new_port
    assert (rows["coder"]["is_defined"], rows["coder"]["state"]) == (False, "healthy")
    text = served.run("status").out
    assert "fast-model → new-model" in text
    assert "coder: no longer in the stack, but still running" in text

    assert served.run("up").code == 0
    after = served.run("env", "--json").document["env"]["OPENAI_BASE_URL"]
    assert after == f"http://127.0.0.1:{new_port}/v1"
    rows = {row["name"]: row for row in served.run("status", "--json").document["services"]}
    assert rows["fast"]["model"] == "new-model"
    assert rows["gateway"]["port_after_up"] is None
    assert "coder" not in rows


def test_a_mistyped_tier_is_wrong_usage_before_anything_else(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    shutil.rmtree(served.home.engines)

    refused = served.run("up", "--tier", "standrad", "--json")

    assert refused.code == 2
    assert "standard" in refused.document["error"]["hint"]
    assert not served.home.credentials.exists()


@pytest.mark.story
@pytest.mark.parametrize("key", ["litellm-port", "ollama-port"])
def test_a_tier_on_a_port_of_the_gateway_is_told_before_anything_starts(
    served: Program, key: str
) -> None:
    port = define_stack(served.home, {"standard": {}}).tiers[0].port
    save_values(served.home, {key: port})

    refused = served.run("up", "--json")

    assert refused.code == 2
    assert f"share port {port}" in refused.document["error"]["message"]
    assert not served.home.pids.exists()
    assert served.run("status", "--json").code == 3
    assert served.run("down", "--json").code == 0


@pytest.mark.story
def test_ollamas_client_is_answered_on_its_own_port_unless_ollama_has_it(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert served.run("config", "set", "ollama-port", str(port)).code == 0
        refused = served.run("up")

    assert refused.code == 1
    assert f"Port {port} on 127.0.0.1 is in use by another program." in refused.out + refused.err

    assert served.run("up").code == 0
    key = json.loads(served.home.credentials.read_text())["gateway_key"]
    headers = {"authorization": f"Bearer {key}"}
    with ollama.Client(f"http://127.0.0.1:{port}", headers=headers) as client:
        assert [each.model for each in client.list().models] == ["standard", "standard-model"]
        answer = client.chat("standard:latest", [{"role": "user", "content": "Hi"}])
        streamed = client.chat("standard", [{"role": "user", "content": "Hi"}], stream=True)

        assert answer.message.content == "You said: Hi"
        assert "".join(each.message.content or "" for each in streamed) == "You said: Hi"


@pytest.mark.story
def test_a_tier_without_its_model_fails_with_the_port_that_it_would_have(served: Program) -> None:
    stack = define_stack(served.home, {"standard": {}})
    shutil.rmtree(served.home.models)

    started = served.run("up", "--json")

    assert started.code == 1
    row = started.document["services"][0]
    assert (row["outcome"], row["port"]) == ("failed", stack.tiers[0].port)


@pytest.fixture
def lacking(served: Program) -> Program:
    """A stack with a tier on mlx-lm, which isn't installed and, offline, can't be."""
    define_stack(
        served.home, {"standard": {}, "new": {}}, fields={"new": {"engine": "mlx-lm"}},
        config={"litellm": "never"},
    )  # fmt: skip
    offline = {"UV_OFFLINE": "1", "UV_CACHE_DIR": str(served.home.root.parent / "uv-cache")}
    return replace(served, variables={**served.variables, **offline})


@pytest.mark.story
def test_a_tier_whose_engine_cannot_be_installed_keeps_no_other_from_starting(
    lacking: Program,
) -> None:
    alone = lacking.run("up", "--tier", "standard", "--json")
    assert (alone.code, _outcomes(alone.document)) == (0, {"standard": "started"})
    assert "mlx-lm" not in alone.err

    started = lacking.run("up", "--json")

    assert started.code == 1
    assert _outcomes(started.document) == {
        "standard": "already-running", "new": "failed", "gateway": "started",
    }  # fmt: skip
    assert "mlx-lm 0.32.2 could not be installed" in started.err
    (row,) = [row for row in started.document["services"] if row["name"] == "new"]
    assert "mlx-lm is not installed" in row["error"]
    steps = lacking.run().out
    assert ("doctor --fix" in steps, "pull" in steps) == (True, False), steps


@pytest.mark.story
def test_a_watchdog_starts_what_it_can_at_login_though_an_engine_is_missing(
    lacking: Program,
) -> None:
    watchdog = lacking.start("watch", "--up", "--interval", "1")
    try:
        assert eventually(lambda: _are_healthy(lacking, "standard", "gateway"), 120)
    finally:
        watchdog.terminate()
        watchdog.communicate(timeout=60)


def _are_healthy(program: Program, *names: str) -> bool:
    states = _states(program.run("status", "--json").document)
    return all(states[name] == "healthy" for name in names)


def test_up_starts_every_tier_and_the_gateway_and_status_finds_them_healthy(
    served: Program,
) -> None:
    define_stack(served.home, {"standard": {}, "fast": {}})

    started = served.run("up", "--json")

    assert started.code == 0, started.err
    assert _outcomes(started.document) == {
        "standard": "started",
        "fast": "started",
        "gateway": "started",
    }
    status = served.run("status", "--json")
    assert status.code == 0
    assert _states(status.document) == {
        "standard": "healthy",
        "fast": "healthy",
        "gateway": "healthy",
        "watchdog": "stopped",
    }


@pytest.mark.story
def test_up_again_leaves_what_runs_alone(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    first = served.run("up", "--json").document

    again = served.run("up", "--json")

    assert again.code == 0
    assert set(_outcomes(again.document).values()) == {"already-running"}
    pids = [[row["pid"] for row in document["services"]] for document in (first, again.document)]
    assert pids[0] == pids[1]


@pytest.mark.story
def test_a_question_to_a_tier_that_was_killed_is_answered_by_the_next(served: Program) -> None:
    define_stack(served.home, {"standard": {}, "fast": {}})
    served.run("up")
    os.killpg(_pid(served, "standard"), signal.SIGKILL)

    answer = _ask(served, "standard", "hello")

    assert answer["model"] == "fast-model"
    assert answer["choices"][0]["message"]["content"] == "You said: hello"


@pytest.mark.story
def test_down_stops_everything_and_status_says_so(served: Program) -> None:
    define_stack(served.home, {"standard": {"spawn-child": True}})
    served.run("up")
    family = psutil.Process(_pid(served, "standard")).children(recursive=True)
    assert family, "the fake engine should have a child of its own"
    pids = [process.pid for process in family]

    stopped = served.run("down", "--json")

    assert stopped.code == 0
    assert _outcomes(stopped.document) == {"gateway": "stopped", "standard": "stopped"}
    assert eventually(lambda: not any(map(identify, pids))), "a grandchild was left behind"
    status = served.run("status", "--json")
    assert status.code == 3
    assert set(_states(status.document).values()) == {"stopped"}
    assert not list(served.home.pids.iterdir())


@pytest.mark.story
def test_an_engine_that_ignores_sigterm_is_killed_and_down_says_so(served: Program) -> None:
    define_stack(served.home, {"standard": {"ignore-sigterm": True}})
    served.run("up")

    stopped = served.run("down", "--json", "--tier", "standard")

    assert _outcomes(stopped.document) == {"standard": "forced"}


@pytest.mark.story
def test_an_engine_that_dies_at_start_fails_at_once_with_the_end_of_its_log(
    served: Program,
) -> None:
    define_stack(served.home, {"standard": {"ready-after": 60, "exit-after": 0.2}, "fast": {}})

    started = served.run("up", "--json")

    assert started.code == 1
    rows = {row["name"]: row for row in started.document["services"]}
    assert rows["standard"]["outcome"] == "failed"
    assert "exiting with 3" in rows["standard"]["error"]
    assert rows["fast"]["outcome"] == "started"
    assert rows["gateway"]["outcome"] == "started"


@pytest.mark.story
def test_a_killed_engine_is_shown_as_crashed_and_up_brings_it_back(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    served.run("up")
    os.killpg(_pid(served, "standard"), signal.SIGKILL)

    crashed = served.run("status", "--json")
    assert crashed.code == 3
    assert _states(crashed.document)["standard"] == "crashed"

    again = served.run("up", "--json")
    assert _outcomes(again.document)["standard"] == "started"


def test_status_and_up_without_a_stack_say_what_to_do(program: Program) -> None:
    status = program.run("status", "--json")
    assert status.code == 4
    assert status.document["error"]["type"] == "no-stack"

    started = program.run("up")
    assert started.code == 1
    assert "mlx-stack setup" in started.err
    assert not program.home.root.exists(), "nothing may be created"


@pytest.mark.story
def test_up_without_engines_names_the_command_that_installs_them(program: Program) -> None:
    define_stack(program.home, {"standard": {}})

    started = program.run("up", "--json")

    assert started.code == 5
    assert "doctor --fix" in started.document["error"]["hint"]


@pytest.mark.story
def test_a_damaged_stack_file_is_named_with_its_line(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    text = served.home.stack.read_text()
    served.home.stack.write_text(text.replace("quant: int4", "quant: int5"))

    for command in ("up", "status"):
        done = served.run(command, "--json")
        assert done.code == 2
        assert f"{served.home.stack}, line" in done.document["error"]["message"]
        assert "int5" in done.document["error"]["message"]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A stack of one tier, for tests that only look at what it left on the disk."""
    program = Program(Home(tmp_path_factory.mktemp("running") / "home"), {})
    install_fake_engines(program.home)
    define_stack(program.home, {"standard": {}})
    assert program.run("up").code == 0
    yield program
    program.stop_all()


@pytest.mark.story
def test_the_gateway_key_is_on_no_command_line_and_in_no_file_but_its_own(
    running: Program,
) -> None:
    key = json.loads(running.home.credentials.read_text())["gateway_key"]

    assert running.home.credentials.stat().st_mode & 0o777 == 0o600
    assert key not in " ".join(psutil.Process(_pid(running, "gateway")).cmdline())
    holders = [
        path
        for path in running.home.root.rglob("*")
        if path.is_file() and not path.is_symlink() and key.encode() in path.read_bytes()
    ]
    assert holders == [running.home.credentials]


@pytest.mark.story
def test_state_is_readable_by_its_owner_only(running: Program) -> None:
    assert running.home.root.stat().st_mode & 0o777 == 0o700
    assert running.home.config.stat().st_mode & 0o777 == 0o600


@pytest.mark.story
@pytest.mark.parametrize("name", ["standard", "gateway"])
def test_a_pid_file_holds_one_integer_and_a_newline(running: Program, name: str) -> None:
    text = (running.home.pids / f"{name}.pid").read_text()

    assert text == f"{int(text)}\n"


@pytest.mark.story
def test_tiers_and_gateway_start_side_by_side(program: Program) -> None:
    loading_s = 3.0
    install_fake_engines(program.home)
    define_stack(
        program.home,
        {"standard": {"ready-after": loading_s}, "fast": {"ready-after": loading_s}},
    )

    program.run("up")

    begun = [psutil.Process(_pid(program, name)).create_time() for name in _NAMES]
    assert max(begun) - min(begun) < loading_s, "one waited until another was ready"


@pytest.mark.story
def test_a_changed_stack_reaches_a_running_gateway_without_dropping_a_request(
    served: Program,
) -> None:
    stack = define_stack(served.home, {"standard": {"token-delay": 0.7}})
    served.run("up")
    pid = _pid(served, "gateway")
    asking = served.start("ask", "one two")  # 4 tokens: longer than the change takes
    engine_log = served.home.logs / "standard.log"
    assert eventually(lambda: "POST" in engine_log.read_text(), within_s=20)

    save_stack(served.home.stack, msgspec.structs.replace(stack, aliases={"gpt-4o": "standard"}))
    changed = served.run("up", "--json")

    assert _outcomes(changed.document)["gateway"] == "already-running"
    assert _pid(served, "gateway") == pid
    out, err = asking.communicate(timeout=30)
    assert out == "You said: one two\n", err
    assert _ask(served, "gpt-4o", "hello")["choices"][0]["message"]["content"] == "You said: hello"


@pytest.mark.story
def test_a_state_folder_on_a_disk_without_locks_is_refused_by_name_and_with_a_way_out(
    served: Program, tmp_path: Path
) -> None:
    define_stack(served.home, {"standard": {}})
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import errno, fcntl, os\n"
        "def flock(*_):\n"
        "    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))\n"
        "fcntl.flock = flock\n"
    )
    network_disk = served.with_variables(PYTHONPATH=str(site))

    done = network_disk.run("up", "--json")

    assert done.code == 1
    error = done.document["error"]
    assert f"{served.home.lock} can't be locked" in error["message"]
    assert "MLX_STACK_HOME" in error["hint"]
    assert list(served.home.root.glob("pids/*")) == []
