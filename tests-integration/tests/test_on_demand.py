"""Tiers at rest: started by the first request, ended when idle, never against a command."""

import http.client
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from mlx_procsup.testing import eventually
from stack_testkit.home import define_stack
from stack_testkit.program import Program

pytestmark = pytest.mark.story

LAZY = {"rare": {"lazy": True}}


class Client:
    """Someone who asks the gateway."""

    def __init__(self, program: Program) -> None:
        self.key = json.loads(program.home.credentials.read_text())["gateway_key"]
        url = program.run("env", "--json").document["env"]["OPENAI_BASE_URL"]
        self.address = urlsplit(url).netloc

    def send(self, model: str, **more: object) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.address, timeout=60)
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], **more}
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        return connection

    def ask(self, model: str, **more: object) -> tuple[int, Any, dict[str, str]]:
        connection = self.send(model, **more)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, body.decode() if more.get("stream") else json.loads(body), headers


def row(program: Program, name: str) -> dict[str, Any]:
    services = program.run("status", "--json").document["services"]
    return next(service for service in services if service["name"] == name)


def pids(program: Program, name: str) -> list[int]:
    """Every engine that was started for a tier, in order."""
    log = program.home.logs / f"{name}.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [int(line.split()[2].rstrip(":")) for line in lines if line.startswith("fake engine ")]


def test_a_lazy_tier_has_no_process_until_its_first_request(served: Program) -> None:
    define_stack(served.home, {"standard": {}, "rare": {}}, fields=LAZY)

    started = served.run("up", "--json")

    outcomes = {each["name"]: each["outcome"] for each in started.document["services"]}
    assert started.code == 0
    assert outcomes == {"standard": "started", "rare": "not-running", "gateway": "started"}
    at_rest = row(served, "rare")
    assert (at_rest["state"], at_rest["loaded"], at_rest["pid"]) == ("stopped", False, None)
    assert served.run("status").code == 0, "a tier at rest is as it should be"
    assert "at rest" in served.run("status").out

    status, document, headers = Client(served).ask("rare")

    assert status == 200, document
    assert headers["x-mlx-stack-tier"] == "rare"
    assert (row(served, "rare")["state"], row(served, "rare")["loaded"]) == ("healthy", True)
    assert served.run("up", "--json").document["services"][1]["outcome"] == "already-running"


def test_one_start_serves_all_who_wait_and_a_client_that_leaves_takes_nothing_along(
    served: Program,
) -> None:
    define_stack(served.home, {"standard": {}, "rare": {"ready-after": 1.5}}, fields=LAZY)
    served.run("up")
    client = Client(served)

    client.send("rare").close()
    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(lambda _: client.ask("rare"), range(8))]

    assert [status for status, *_ in answers] == [200] * 8
    assert {headers["x-mlx-stack-tier"] for *_, headers in answers} == {"rare"}
    assert len(pids(served, "rare")) == 1


def test_a_stream_hears_signs_of_life_while_its_tier_starts(served: Program) -> None:
    define_stack(served.home, {"rare": {"ready-after": 6}}, fields=LAZY)
    served.run("up")

    status, text, _ = Client(served).ask("rare", stream=True)

    assert status == 200
    before, answer = text.split("x-mlx-stack-tier: rare", 1)
    assert "data: " in before
    assert "said:" in answer


def test_an_idle_tier_is_ended_and_the_next_request_starts_it_again(served: Program) -> None:
    fields = {"rare": {"lazy": True, "idle_unload_s": 1}}
    define_stack(served.home, {"standard": {}, "rare": {}}, fields=fields)
    served.run("up")
    client = Client(served)

    client.ask("rare")
    (first,) = pids(served, "rare")
    assert eventually(lambda: not psutil.pid_exists(first), 15)
    assert eventually(lambda: not (served.home.pids / "rare.pid").exists(), 5)
    assert served.run("status").code == 0

    assert client.ask("rare")[0] == 200
    assert len(pids(served, "rare")) == 2


def test_a_tier_that_works_is_not_idle(served: Program) -> None:
    fields = {"rare": {"lazy": True, "idle_unload_s": 1}}
    define_stack(served.home, {"rare": {"token-delay": 1.2}}, fields=fields)
    served.run("up")

    status, document, _ = Client(served).ask("rare")

    assert (status, document["choices"][0]["message"]["content"]) == (200, "You said: hello")
    assert len(pids(served, "rare")) == 1


def test_an_eager_tier_may_rest_too_once_it_was_idle(served: Program) -> None:
    define_stack(served.home, {"standard": {}}, fields={"standard": {"idle_unload_s": 1}})
    served.run("up")
    (first,) = pids(served, "standard")
    assert eventually(lambda: not psutil.pid_exists(first), 15)
    assert eventually(lambda: row(served, "standard")["state"] == "stopped", 5)
    assert served.run("status").code == 0

    assert Client(served).ask("standard")[0] == 200


def test_a_start_that_fails_answers_everyone_with_the_log_and_is_not_tried_for_each(
    served: Program,
) -> None:
    flags = {"ready-after": 30, "exit-after": 0.7}
    define_stack(served.home, {"rare": flags}, fields=LAZY)
    served.run("up")
    client = Client(served)

    with ThreadPoolExecutor(6) as pool:
        answers = [*pool.map(lambda _: client.ask("rare"), range(6))]
    again = client.ask("rare")

    for status, document, headers in (*answers, again):
        assert status == 503
        assert "fake engine: exiting with 3" in document["error"]["message"]
        assert int(headers["retry-after"]) >= 1
    assert len(pids(served, "rare")) == 1
    assert row(served, "rare")["state"] == "stopped", "the watchdog does not try it in vain, too"


def test_another_tier_answers_for_one_that_can_not_start(served: Program) -> None:
    flags = {"ready-after": 30, "exit-after": 0.2}
    define_stack(served.home, {"standard": {}, "rare": flags}, fields=LAZY)
    served.run("up")

    status, _, headers = Client(served).ask("rare")

    assert status == 200
    assert headers["x-mlx-stack-fallback-from"] == "rare"


def test_what_runs_stands_in_before_what_would_have_to_start(served: Program) -> None:
    define_stack(served.home, {"standard": {}, "rare": {}, "fast": {}}, fields=LAZY)
    served.run("up")
    os.killpg(pids(served, "standard")[0], signal.SIGKILL)

    _, _, headers = Client(served).ask("standard")

    assert headers["x-mlx-stack-tier"] == "fast"
    assert pids(served, "rare") == []


def test_what_down_stopped_is_not_started_by_a_request(served: Program) -> None:
    define_stack(served.home, {"standard": {}, "rare": {}}, fields=LAZY)
    served.run("up")
    client = Client(served)
    client.ask("rare")
    assert served.run("down", "--tier", "rare").code == 0

    status, _, headers = client.ask("rare")

    assert (status, headers["x-mlx-stack-tier"]) == (200, "standard")
    assert len(pids(served, "rare")) == 1
    assert served.run("status").code == 3
    assert served.run("up", "--tier", "rare").code == 0
    assert client.ask("rare")[2]["x-mlx-stack-tier"] == "rare"


def test_down_ends_what_is_just_starting(served: Program) -> None:
    define_stack(served.home, {"standard": {}, "rare": {"ready-after": 30}}, fields=LAZY)
    served.run("up")
    client = Client(served)
    waiting = client.send("rare")
    assert eventually(lambda: pids(served, "rare") != [], 10)

    assert served.run("down", "--tier", "rare").code == 0

    answer = waiting.getresponse()
    answer.read()
    waiting.close()
    assert answer.getheader("x-mlx-stack-tier") == "standard"
    (pid,) = pids(served, "rare")
    assert not psutil.pid_exists(pid)


def test_commands_and_requests_at_once_leave_one_process(served: Program) -> None:
    define_stack(served.home, {"rare": {"ready-after": 0.5}}, fields=LAZY)
    served.run("up")
    client = Client(served)
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(client.ask, "rare") for _ in range(3)]
        commands = [pool.submit(served.run, "up", "--tier", "rare") for _ in range(2)]

    assert [answer.result()[0] for answer in answers] == [200] * 3
    assert {command.result().code for command in commands} <= {0, 75}
    assert len(pids(served, "rare")) == 1


def test_the_watchdog_leaves_a_tier_at_rest_alone_and_restores_one_that_died_at_work(
    served: Program,
) -> None:
    fields = {"rare": {"lazy": True}}
    define_stack(served.home, {"rare": {}}, fields=fields)
    served.run("up")
    with served.start("watch", "--interval", "0.3", "--restart-delay", "0.1") as watchdog:
        try:
            Client(served).ask("rare")
            (first,) = pids(served, "rare")
            os.killpg(first, signal.SIGKILL)
            assert eventually(lambda: len(pids(served, "rare")) == 2, 15)
            served.run("restart")
            time.sleep(1.5)
            assert len(pids(served, "rare")) == 2
            assert row(served, "rare")["loaded"] is False
        finally:
            watchdog.terminate()
            watchdog.communicate(timeout=20)


def test_a_request_does_not_wait_for_a_start_that_would_come_late(served: Program) -> None:
    """The gateway restarts, and finds the engine that the one before had started."""
    define_stack(served.home, {"rare": {}}, fields=LAZY)
    served.run("up")
    Client(served).ask("rare")
    os.kill(int((served.home.pids / "gateway.pid").read_text()), signal.SIGKILL)
    assert served.run("up").code == 0

    assert Client(served).ask("rare")[0] == 200
    assert len(pids(served, "rare")) == 1


def test_a_model_that_is_not_there_any_more_is_said_to_be_gone(
    served: Program, tmp_path: Path
) -> None:
    define_stack(served.home, {"rare": {}}, fields=LAZY)
    served.run("up")
    (served.home.models / "rare-model").rename(tmp_path / "away")

    status, document, _ = Client(served).ask("rare")

    assert status == 503
    assert "not on this disk" in document["error"]["message"]
    (tmp_path / "away").rename(served.home.models / "rare-model")
    assert Client(served).ask("rare")[0] == 200
