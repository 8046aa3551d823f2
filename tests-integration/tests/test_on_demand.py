"""Tiers at rest: started by the first request, ended when idle, never against a command."""

import http.client
import json
import os
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from msgspec import structs

from mlx_procsup import identify
from mlx_procsup.testing import eventually
from mlx_stack.stack import load_stack, save_stack
from stack_testkit.home import define_stack, make_model_folder
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

    def unload(self, model: str) -> int:
        connection = http.client.HTTPConnection(self.address, timeout=60)
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        body = json.dumps({"model": model, "keep_alive": 0})
        connection.request("POST", "/api/generate", body, headers)
        status = connection.getresponse().status
        connection.close()
        return status

    def models(self) -> dict[str, dict[str, Any]]:
        connection = http.client.HTTPConnection(self.address, timeout=60)
        connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {self.key}"})
        document = json.load(connection.getresponse())
        connection.close()
        return {each["id"]: each for each in document["data"]}


def row(program: Program, name: str) -> dict[str, Any]:
    services = program.run("status", "--json").document["services"]
    return next(service for service in services if service["name"] == name)


def pids(program: Program, name: str) -> list[int]:
    """Every engine that was started for a tier, in order."""
    log = program.home.logs / f"{name}.log"
    text = log.read_text() if log.exists() else ""
    return [int(pid) for pid in re.findall(r"\bfake engine (\d+):", text)]


def test_a_lazy_tier_has_no_process_until_its_first_request(served: Program) -> None:
    define_stack(served.home, {"standard": {}, "rare": {}}, fields=LAZY)

    started = served.run("up", "--json")

    outcomes = {each["name"]: each["outcome"] for each in started.document["services"]}
    assert started.code == 0
    assert outcomes == {"standard": "started", "rare": "not-running", "gateway": "started"}
    at_rest = row(served, "rare")
    assert (at_rest["state"], at_rest["loaded"], at_rest["pid"]) == ("stopped", False, None)
    assert served.run("status").code == 0, "a tier at rest is as it should be"
    assert "unloaded" in served.run("status").out

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
    define_stack(served.home, {"rare": {"ready-after": 14}}, fields=LAZY)
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
    assert eventually(lambda: identify(first) is None)
    assert eventually(lambda: not (served.home.pids / "rare.pid").exists())
    assert served.run("status").code == 0

    assert client.ask("rare")[0] == 200
    assert len(pids(served, "rare")) == 2


def test_a_client_of_ollamas_says_how_long_a_tier_stays_and_unloads_it(served: Program) -> None:
    fields = {"rare": {"lazy": True, "idle_unload_s": 3600}, "kept": {"lazy": True, "pinned": True}}
    define_stack(served.home, {"standard": {}, "rare": {}, "kept": {}}, fields=fields)
    served.run("up")
    client = Client(served)

    def ollama(method: str, path: str, **body: object) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(client.address, timeout=60)
        headers = {"Authorization": f"Bearer {client.key}", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        return response.status, answer

    def ends_in_s(name: str) -> float:
        rows = {each["name"]: each for each in ollama("GET", "/api/ps")[1]["models"]}
        ends_at = datetime.fromisoformat(rows[name]["expires_at"])
        return (ends_at - datetime.now(UTC)).total_seconds()

    assert ollama("POST", "/api/generate", model="rare", keep_alive="10m")[1]["done"]
    assert 500 < ends_in_s("rare") <= 600
    assert ends_in_s("standard") > 1e9, "nothing ends it"
    client.ask("rare")
    assert 3000 < ends_in_s("rare") <= 3600, "the next client meant the usual time"

    (first,) = pids(served, "rare")
    status, said = ollama("POST", "/api/generate", model="rare", keep_alive=0)
    assert (status, said["done_reason"]) == (200, "unload")
    assert identify(first) is None
    assert row(served, "rare")["loaded"] is False
    assert client.ask("rare")[0] == 200
    assert len(pids(served, "rare")) == 2

    status, said = ollama("POST", "/api/generate", model="kept", keep_alive=0)
    assert (status, said["error"]) == (400, "kept is pinned.")


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
    assert eventually(lambda: identify(first) is None)
    assert eventually(lambda: row(served, "standard")["state"] == "stopped")
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
    assert eventually(lambda: pids(served, "rare") != [])

    assert served.run("down", "--tier", "rare").code == 0

    answer = waiting.getresponse()
    answer.read()
    waiting.close()
    assert answer.getheader("x-mlx-stack-tier") == "standard"
    (pid,) = pids(served, "rare")
    assert identify(pid) is None


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
            assert eventually(lambda: len(pids(served, "rare")) == 2)
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


def test_a_disk_that_is_lost_in_the_middle_of_a_load_is_named_and_comes_back(
    served: Program, tmp_path: Path
) -> None:
    define_stack(served.home, {"rare": {"ready-after": 600, "exit-after": 4}}, fields=LAZY)
    served.run("up")
    client = Client(served)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.ask, "rare")
        assert eventually(lambda: pids(served, "rare") != [])
        (served.home.models / "rare-model").rename(tmp_path / "away")
        status, document, headers = asked.result()

    assert (status, headers.get("retry-after")) == (503, None)
    assert "is not on this disk" in document["error"]["message"]
    (tmp_path / "away").rename(served.home.models / "rare-model")
    stack = load_stack(served.home.stack)
    healthy = (structs.replace(stack.tiers[0], vllm_flags={}),)
    save_stack(served.home.stack, structs.replace(stack, tiers=healthy))
    assert client.ask("rare")[0] == 200, "no pause: it was not the engine that failed"


def test_any_model_on_disk_is_a_name_and_its_engine_comes_and_goes(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    make_model_folder(served.home.models / "Guest-4bit")
    stack = load_stack(served.home.stack)
    save_stack(served.home.stack, structs.replace(stack, aliases={"visitor": "Guest-4bit"}))
    served.run("up")
    client = Client(served)

    listed = client.models()
    assert client.ask("visitor")[2]["x-mlx-stack-tier"] == "Guest-4bit"
    served.run("down", "--tier", "model.Guest-4bit")
    served.run("up")
    assert (listed["standard"]["loaded"], listed["standard-model"]["loaded"]) == (True, True)
    assert listed["Guest-4bit"]["loaded"] is False
    assert listed["Guest-4bit"]["context_length"] > 0

    status, document, headers = client.ask("Guest-4bit")

    assert (status, document["model"]) == (200, "Guest-4bit")
    assert headers["x-mlx-stack-tier"] == "Guest-4bit"
    assert client.models()["Guest-4bit"]["loaded"] is True
    guest = row(served, "model.Guest-4bit")
    assert (guest["state"], guest["model"], guest["loaded"]) == ("healthy", "Guest-4bit", True)
    assert served.run("up").code == 0
    assert row(served, "model.Guest-4bit")["pid"] == guest["pid"]

    stopped = served.run("down", "--json").document["services"]
    assert {each["name"] for each in stopped} == {"standard", "gateway", "model.Guest-4bit"}
    assert identify(guest["pid"]) is None
    served.run("up")
    assert Client(served).ask("Guest-4bit")[0] == 200


def test_a_model_whose_port_another_program_took_meanwhile_is_served_on_another(
    served: Program,
) -> None:
    define_stack(served.home, {"standard": {}})
    make_model_folder(served.home.models / "Guest-4bit")
    served.run("up")
    client = Client(served)
    assert client.ask("Guest-4bit")[0] == 200
    port = row(served, "model.Guest-4bit")["port"]
    assert client.unload("Guest-4bit") == 200

    with socket.create_server(("127.0.0.1", port)):
        status, said, _ = client.ask("Guest-4bit")

    assert status == 200, said
    assert row(served, "model.Guest-4bit")["port"] != port


def test_a_model_that_arrives_while_the_gateway_runs_can_be_asked_for_at_once(
    served: Program,
) -> None:
    define_stack(served.home, {"standard": {}})
    served.run("up")
    client = Client(served)
    status, document, _ = client.ask("New-4bit")
    assert (status, document["error"]["code"]) == (404, "model_not_found")

    make_model_folder(served.home.models / "New-4bit")

    assert client.ask("New-4bit")[0] == 200
    status, document, _ = client.ask("New-4bti")
    assert status == 404
    assert "New-4bit" in document["error"]["message"]


def test_the_models_list_says_what_is_loaded_whoever_has_started_or_stopped_it(
    served: Program,
) -> None:
    define_stack(served.home, {"standard": {}, "rare": {}}, fields=LAZY)
    served.run("up")
    client = Client(served)

    def loaded() -> tuple[bool, bool]:
        listed = client.models()
        return listed["standard"]["loaded"], listed["rare"]["loaded"]

    assert loaded() == (True, False)
    served.run("up", "--tier", "rare")
    assert loaded() == (True, True)
    served.run("down", "--tier", "standard")
    assert loaded() == (False, True)


def test_the_engine_of_a_model_that_was_removed_is_ended_and_comes_back_with_it(
    served: Program, tmp_path: Path
) -> None:
    define_stack(served.home, {"standard": {}})
    guest = make_model_folder(served.home.models / "Guest")
    served.run("up")
    client = Client(served)
    assert client.ask("Guest")[0] == 200
    (first,) = pids(served, "model.Guest")

    guest.rename(tmp_path / "away")

    assert "Guest" not in client.models()
    assert eventually(lambda: identify(first) is None, 20)
    assert client.ask("Guest")[0] == 404
    (tmp_path / "away").rename(guest)
    assert client.ask("Guest")[0] == 200
    assert len(pids(served, "model.Guest")) == 2


def test_the_watchdog_restores_a_model_without_a_tier_and_leaves_it_when_it_rests(
    served: Program,
) -> None:
    define_stack(served.home, {"standard": {}})
    make_model_folder(served.home.models / "Guest")
    served.run("up")
    with served.start("watch", "--interval", "0.3", "--restart-delay", "0.1") as watchdog:
        try:
            Client(served).ask("Guest")
            os.killpg(row(served, "model.Guest")["pid"], signal.SIGKILL)
            assert eventually(lambda: row(served, "model.Guest")["restarts"] == 1)
            assert eventually(lambda: row(served, "model.Guest")["state"] == "healthy")
        finally:
            watchdog.terminate()
            watchdog.communicate(timeout=20)


def give_size(program: Program, name: str, share: float) -> None:
    """Let a model claim this share of the memory budget, which is a tenth of the machine's."""
    folder = make_model_folder(program.home.models / name)
    size = int(psutil.virtual_memory().total / 10 * share) - 200_000_000
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with (folder / "model.safetensors").open("wb") as weights:
        weights.write(len(header).to_bytes(8, "little") + header)
        weights.truncate(8 + len(header) + size)  # as a hole, which takes no room on the disk


TENTH = {"memory-budget-pct": 10}


def test_the_idle_one_makes_room_and_the_pinned_one_does_not(served: Program) -> None:
    fields = {"kept": {"pinned": True}}
    define_stack(served.home, {"kept": {}}, config=TENTH, fields=fields)
    give_size(served, "kept-model", 0.3)
    for name in ("A", "B"):
        give_size(served, name, 0.5)
    served.run("up")
    client = Client(served)

    assert client.ask("A")[0] == 200
    began = time.monotonic()
    status, document, _ = client.ask("B")

    assert status == 200, document
    assert time.monotonic() - began > 5, "A stays for a while"
    assert pids(served, "model.A") != []
    assert identify(pids(served, "model.A")[0]) is None
    assert identify(pids(served, "kept")[0]) is not None
    assert client.models()["A"]["loaded"] is False


def test_what_can_never_fit_is_refused_at_once_and_the_sentence_says_by_how_much(
    served: Program,
) -> None:
    define_stack(served.home, {"standard": {}}, config=TENTH)
    give_size(served, "Huge", 1.5)
    served.run("up")
    client = Client(served)
    client.models()

    began = time.monotonic()
    status, document, headers = client.ask("Huge")

    assert status == 503
    assert time.monotonic() - began < 2
    assert "retry-after" not in headers
    assert "too much" in document["error"]["message"]
    assert "memory-budget-pct" in document["error"]["message"]
    assert pids(served, "model.Huge") == []

    served.run("config", "set", "memory-budget-pct", "40")
    assert client.ask("Huge")[0] == 200, "the larger budget counts from the next request on"


def test_ask_says_who_answered_for_a_tier_that_down_stopped(served: Program) -> None:
    define_stack(served.home, {"standard": {}, "other": {}})
    served.run("up")
    assert "instead of" not in served.run("ask", "-m", "other", "Hello").err
    served.run("down", "--tier", "other")

    said = served.run("ask", "-m", "other", "Hello")

    assert "note: standard answered instead of other" in said.err


def test_two_that_exclude_each_other_are_both_answered(served: Program) -> None:
    define_stack(served.home, {"standard": {}}, config=TENTH)
    for name in ("A", "B"):
        give_size(served, name, 0.7)
    served.run("up")
    client = Client(served)

    with ThreadPoolExecutor(4) as pool:
        answers = [*pool.map(client.ask, ("A", "B", "A", "B"))]

    assert [status for status, *_ in answers] == [200] * 4
    assert (len(pids(served, "model.A")), len(pids(served, "model.B"))) == (1, 1)


def test_a_damaged_model_is_refused_with_what_is_damaged_and_what_cures_it(
    served: Program,
) -> None:
    define_stack(served.home, {"standard": {}})
    whole = make_model_folder(served.home.models / "Whole")
    broken = make_model_folder(served.home.models / "Broken") / "model.safetensors"
    broken.write_bytes(b"x")
    served.run("up")
    client = Client(served)

    refused = [client.ask("Broken")]
    assert client.ask("Whole")[0] == 200
    served.run("down", "--tier", "model.Whole")
    served.run("up")
    (whole / "model.safetensors").write_bytes(b"x")
    refused.append(client.ask("Whole"))

    for (status, document, headers), name in zip(refused, ("Broken", "Whole"), strict=True):
        assert (status, headers.get("retry-after")) == (503, None)
        assert "model.safetensors is damaged" in document["error"]["message"]
        assert f"`mlx-stack models rm {name}`" in document["error"]["message"]
    found = served.run("doctor", "--json").document["findings"]
    assert any("Broken is damaged" in each["message"] for each in found)
    served.run("models", "rm", "Broken")
    assert client.ask("Broken")[0] == 404


def test_a_restart_brings_models_without_a_tier_back_when_they_are_asked_for(
    served: Program,
) -> None:
    define_stack(served.home, {"standard": {}})
    make_model_folder(served.home.models / "Guest")
    served.run("up")
    assert Client(served).ask("Guest")[0] == 200
    first = row(served, "model.Guest")["pid"]

    restarted = served.run("restart")

    assert "model.Guest unloaded: its next request starts it" in restarted.out
    assert identify(first) is None
    assert Client(served).ask("Guest")[0] == 200
    assert row(served, "model.Guest")["pid"] != first
    served.run("down", "--tier", "model.Guest")
    status, document, _ = Client(served).ask("Guest")
    assert status == 503
    assert "`mlx-stack up --tier model.Guest`" in document["error"]["message"]
    assert served.run("up", "--tier", "model.Guest").code == 0
    assert Client(served).ask("Guest")[0] == 200
    assert served.run("restart", "--tier", "model.Guest").code == 0


def test_up_ends_a_model_without_a_tier_that_would_be_served_otherwise_by_now(
    served: Program,
) -> None:
    define_stack(served.home, {"standard": {}})
    folder = make_model_folder(served.home.models / "Guest")
    served.run("up")
    Client(served).ask("Guest")
    guest = row(served, "model.Guest")["pid"]
    assert served.run("up").code == 0
    assert row(served, "model.Guest")["pid"] == guest
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "qwen3", "max_position_embeddings": 4096, **SMALL_SHAPE}
    (folder / "config.json").write_text(json.dumps(config))
    assert served.run("status", "--json").document["changed"] == ["model.Guest"]

    assert served.run("up").code == 0

    assert identify(guest) is None
    assert served.run("status", "--json").document["changed"] == []
    assert Client(served).ask("Guest")[0] == 200


SMALL_SHAPE = {
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_size": 128,
    "vocab_size": 1000,
}


def test_status_says_how_far_a_load_is_and_when_it_will_be_done(served: Program) -> None:
    flags = {"standard": {}, "rare": {"ready-after": 14}}
    define_stack(served.home, flags, fields=LAZY)
    served.run("up")
    client = Client(served)
    client.ask("rare")
    served.run("restart")

    client = Client(served)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.ask, "rare")
        seen: list[dict[str, Any]] = []
        assert eventually(lambda: _is_loading(served, "rare", seen), 60)
        shown = served.run("status")
        assert asked.result()[0] == 200
    loading = seen[-1]

    assert loading["state"] == "down"
    assert 0 < loading["loading_progress"] < 1
    assert 0 < loading["loading_left_s"] < 30
    assert shown.code == 0, "what a request has just begun is as it should be"
    assert "left" in shown.out
    assert row(served, "rare")["loading_s"] is None


def _is_loading(program: Program, name: str, seen: list[dict[str, Any]]) -> bool:
    seen.append(row(program, name))
    return seen[-1]["loading_s"] is not None


def test_status_says_what_waits_for_room_and_what_was_refused_it(served: Program) -> None:
    define_stack(served.home, {"standard": {"token-delay": 14}}, config=TENTH)
    give_size(served, "standard-model", 0.6)
    give_size(served, "Next", 0.6)
    give_size(served, "Huge", 1.5)
    served.run("up")
    client = Client(served)
    assert client.ask("Huge")[0] == 503
    with ThreadPoolExecutor(2) as pool:
        working = pool.submit(client.ask, "standard")
        assert eventually(lambda: row(served, "standard")["requests_running"] == 1, 60)
        asked = pool.submit(client.ask, "Next")
        assert eventually(lambda: "makes room in memory" in served.run("status").out, 60)
        assert row(served, "model.Next")["waits_for"] == ["standard"]
        assert "too much" in row(served, "model.Huge")["reason"]
        assert [working.result()[0], asked.result()[0]] == [200, 200]


def test_status_says_what_runs_waits_is_idle_and_will_go(served: Program) -> None:
    fields = {"rare": {"lazy": True, "idle_unload_s": 600}}
    flags = {
        "standard": {"token-delay": 8},
        "rare": {},
        "bad": {"ready-after": 30, "exit-after": 0.1},
    }
    define_stack(served.home, flags, fields={**fields, "bad": {"lazy": True}})
    served.run("up")
    client = Client(served)
    client.ask("rare")
    client.ask("bad")
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(client.ask, "standard") for _ in range(2)]
        assert eventually(lambda: row(served, "standard")["requests_running"] == 1, 60)
        assert row(served, "standard")["requests_waiting"] == 1
        assert [each.result()[0] for each in asked] == [200, 200]

    rare, text = row(served, "rare"), served.run("status").out
    assert (rare["requests_running"], rare["requests_waiting"]) == (0, 0)
    assert rare["idle_s"] >= 0
    assert 500 < rare["rests_in_s"] < 600
    assert "without a request" in text
    assert "could not be started" in row(served, "bad")["reason"]
    assert "not started at its last request" in text
