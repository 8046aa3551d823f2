"""A model that vllm-mlx can't load, and one whose tier says so: both on mlx-lm, by `up`."""

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import pytest

from mlx_bench.conformance.server import Server
from mlx_bench.conformance.table import cases_of, try_cases
from mlx_catalog import ServingEngine
from mlx_catalog.engine import NEWER_TYPES
from mlx_procsup import read_pid
from mlx_procsup.testing import eventually
from mlx_stack.config import save_values
from mlx_stack.engines.environment import EngineName, Environment, current_environment
from mlx_stack.home import Home
from mlx_stack.services.ports import free_ports
from mlx_stack.stack import load_stack, save_stack
from stack_testkit.gateway_program import client_of
from stack_testkit.home import allow_code
from stack_testkit.newer_model import make_newer_model
from stack_testkit.program import Program

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # noqa: E501 - one picture
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'


@pytest.fixture(scope="module")
def home(vllm_mlx_environment: Environment, tmp_path_factory) -> Home:
    """A state folder with vllm-mlx, and no mlx-lm yet."""
    home = Home(tmp_path_factory.mktemp("mlx-lm") / "home")
    home.create()
    home.engines.mkdir(exist_ok=True)
    (home.engines / "vllm-mlx").symlink_to(vllm_mlx_environment.path.parent)
    return home


@pytest.fixture(scope="module")
def newer_model(embedded_model: Path, mlx_lm_environment: Environment, tmp_path_factory) -> Path:
    return make_newer_model(
        tmp_path_factory.mktemp("models") / "newer",
        tokenizer_of=embedded_model,
        engine_python=mlx_lm_environment.python,
    )


@pytest.fixture(scope="module")
def program(home: Home, newer_model: Path, scripted_model: Path) -> Iterator[Program]:
    """A stack of both models, defined as a user does it, up."""
    (gateway_port,) = free_ports(1)
    save_values(home, {"litellm-port": gateway_port, "litellm": "never"})
    allow_code(scripted_model)
    program = Program(home, {})
    usual = [word for name in ("standard", "fast", "longctx") for word in ("--remove", name)]
    models = ("--add", str(newer_model), "--add", str(scripted_model))
    made = program.run("init", *usual, *models, "--context", "4096", "--json")
    assert made.code == 0, made.out + made.err
    stack = load_stack(home.stack)
    newer, scripted = stack.tiers
    assert (newer.engine, scripted.engine) == (ServingEngine.MLX_LM, None)
    scripted = msgspec.structs.replace(scripted, engine=ServingEngine.MLX_LM, concurrency=2)
    save_stack(home.stack, msgspec.structs.replace(stack, tiers=(newer, scripted)))
    assert current_environment(home.engines, EngineName.MLX_LM) is None

    started = program.run("up", "--timeout", "300", "--json", timeout_s=500)
    assert started.code == 0, started.out + started.err
    yield program
    assert program.run("down", timeout_s=90).code == 0
    assert left_behind(home) == []


def left_behind(home: Home) -> list[str]:
    """The command lines of processes that a state folder has started."""
    lines = [" ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(home.root) in line]


@pytest.fixture
def client(program: Program) -> Iterator[httpx.Client]:
    with client_of(program) as client:
        yield client


def pid_of(program: Program, name: str) -> int:
    pid = read_pid(program.home.state_dirs, name)
    assert pid is not None
    return pid


def chat(client: httpx.Client, words: str, model: str = "scripted", **more: object) -> Any:
    messages = [{"role": "user", "content": words}]
    body = {"model": model, "messages": messages, "temperature": 0, **more}
    answer = client.post("/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"] if not more.get("stream") else answer.text


def deltas(stream: str) -> list[Mapping[str, Any]]:
    events = [line.removeprefix("data: ") for line in stream.splitlines() if line[:6] == "data: "]
    assert events[-1] == "[DONE]"
    chunks = map(json.loads, events[:-1])
    return [choice["delta"] for chunk in chunks for choice in chunk["choices"]]


def test_a_model_that_vllm_mlx_cannot_load_answers_the_same_whole_and_streamed(client) -> None:
    whole = chat(client, "Hello", "newer", max_tokens=12)
    streamed = deltas(chat(client, "Hello", "newer", max_tokens=12, stream=True))
    assert whole["content"]
    assert "".join(delta.get("content") or "" for delta in streamed) == whole["content"]


def test_the_types_that_are_known_to_be_newer_are_those_that_are(
    mlx_lm_environment: Environment, vllm_mlx_environment: Environment
) -> None:
    newer, usual = (
        {path.stem for path in environment.path.glob("lib/*/site-packages/mlx_lm/models/*.py")}
        for environment in (mlx_lm_environment, vllm_mlx_environment)
    )
    assert newer - usual == NEWER_TYPES


def test_a_tool_is_called_whole_and_streamed(client) -> None:
    whole = chat(client, f"Repeat: {CALL}", tools=[TOOL])
    assert [call["function"]["name"] for call in whole["tool_calls"]] == ["weather"]
    streamed = deltas(chat(client, f"Repeat: I look. {CALL}", tools=[TOOL], stream=True))
    (call,) = [call for delta in streamed for call in delta.get("tool_calls", ())]
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    assert "".join(delta.get("content") or "" for delta in streamed).strip() == "I look."


def test_clients_of_responses_are_answered(client) -> None:
    asked = {"model": "scripted", "input": "Repeat: mine", "stream": False}
    said = client.post("/responses", json=asked).json()
    assert said["output"][0]["content"][0]["text"] == "mine"


def wrong_cases(client: httpx.Client, *names: str, leaving_out: str = "") -> list[str]:
    key = client.headers["authorization"].removeprefix("Bearer ")
    server = Server(str(client.base_url).rstrip("/").removesuffix("/v1"), "scripted", key)
    try:
        table = try_cases(server, [each for each in cases_of(names) if each.id != leaving_out])
    finally:
        server.close()
    sys.stdout.write(table.render())
    return [each.case.id for each in table.outcomes if not each.is_right]


def test_clients_of_messages_are_answered_in_every_case_of_the_table(client) -> None:
    # 200 tools are longer than the tier's context
    assert wrong_cases(client, "messages", "K16", leaving_out="A32") == []


def test_json_is_answered_where_chats_and_responses_ask_for_it(client) -> None:
    assert wrong_cases(client, "C13", "C14", "C14s", "R09o", "R09s") == []


def test_what_two_turns_begin_with_is_read_once_and_counted(client) -> None:
    head = "The quick brown fox jumps over the lazy dog. " * 30
    messages = [{"role": "system", "content": head}]
    cached: list[int] = []
    for words in ("Repeat: one", "Repeat: two"):
        messages.append({"role": "user", "content": words})
        body = {"model": "scripted", "messages": messages}
        answer = client.post("/chat/completions", json=body).json()
        messages.append(answer["choices"][0]["message"])
        cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert cached[0] < 50 < 250 < cached[1]


def test_what_the_engine_cannot_do_is_refused_in_words(client) -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    messages = [{"role": "user", "content": [picture]}]
    seen = client.post("/chat/completions", json={"model": "scripted", "messages": messages})
    assert (seen.status_code, "can't read images" in seen.text) == (400, True), seen.text
    asked = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}
    nowhere = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#/none"}}}
    for more in (
        {"response_format": nowhere},
        {"response_format": {"type": "json_object"}, "tools": [TOOL]},
    ):
        form = client.post("/chat/completions", json={**asked, **more})
        assert (form.status_code, "response_format" in form.text) == (400, True), form.text


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_held_to_a_schema_while_others_are_free(client, *, stream: bool) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"enum": ["hot", "cold"]}, "sure": {"type": "boolean"}},
        "required": ["answer", "sure"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with ThreadPoolExecutor() as pool:
        free = pool.submit(chat, client, "Repeat: yours")
        asked = {"response_format": form, "max_tokens": 200, "stream": stream}
        answer = chat(client, "Repeat: mine", **asked)
        assert free.result()["content"] == "yours"
    parts = deltas(answer) if stream else [answer]
    said = "".join(each.get("content") or "" for each in parts)
    found = json.loads(said)
    assert {*found} == {"answer", "sure"}
    assert found["answer"] in ("hot", "cold")
    assert found["sure"] in (True, False)


def test_no_value_of_a_request_ends_the_engine_for_everybody(program: Program, client) -> None:
    before = pid_of(program, "scripted")
    answers: list[int] = []
    for value in (
        {"logit_bias": {"2000000000": 1}},
        {"logit_bias": {"1" + "0" * 30: 1}},
        {"xtc_probability": 0.5, "xtc_threshold": 0.9, "temperature": 0.7},
        {"repetition_penalty": 1.1, "repetition_context_size": 10**30},
        {"top_k": 1_000_000, "temperature": 0.7},
        {"top_k": -1, "temperature": 0.7, "logit_bias": {"1": -1}},
    ):
        messages = [{"role": "user", "content": "Repeat: mine"}]
        body = {"model": "scripted", "messages": messages, "max_tokens": 4, **value}
        answers.append(client.post("/chat/completions", json=body).status_code)
    empty = client.post("/completions", json={"model": "scripted", "prompt": "", "max_tokens": 4})
    assert [*answers, empty.status_code] == [400, 400, 400, 400, 200, 200, 400]
    assert chat(client, "Repeat: mine")["content"] == "mine"
    assert pid_of(program, "scripted") == before


def test_clients_that_leave_before_a_whole_answer_keep_nobody_waiting(client) -> None:
    def ask_and_leave(_: int) -> None:
        with suppress(httpx.TimeoutException):
            talking = [{"role": "user", "content": "Wait 1 s. Talk forever."}]
            asked = {"model": "scripted", "messages": talking, "max_tokens": 4000}
            client.post("/chat/completions", json=asked, timeout=3)

    with ThreadPoolExecutor() as pool:
        list(pool.map(ask_and_leave, range(2)))  # as many as the tier answers at once
    assert chat(client, "Repeat: mine")["content"] == "mine"


def test_both_engines_are_known_to_every_command(program: Program) -> None:
    listed = {row["name"]: row for row in program.run("engines", "--json").document["engines"]}
    assert {name: row["state"] for name, row in listed.items()} == {
        "vllm-mlx": "ready",
        "litellm": "missing",
        "mlx-lm": "ready",
    }
    verified = program.run("engines", "verify", "mlx-lm", "--json", timeout_s=120)
    assert verified.document["engines"][0]["ok"], verified.out
    found = program.run("doctor", "--json", timeout_s=120).document["findings"]
    assert any("mlx-lm 0.32" in finding["message"] for finding in found)


def test_an_engine_that_is_killed_comes_back(program: Program, client) -> None:
    before = pid_of(program, "newer")
    watchdog = program.start("watch", "--interval", "1")
    try:
        os.kill(before, signal.SIGKILL)
        pids = program.home.state_dirs
        assert eventually(lambda: read_pid(pids, "newer") not in (None, before), 120)
        assert eventually(lambda: is_healthy(program, "newer"), 120)
    finally:
        watchdog.terminate()
        watchdog.communicate(timeout=60)
    assert chat(client, "Hello", "newer", max_tokens=4)["content"]


def is_healthy(program: Program, name: str) -> bool:
    rows = program.run("status", "--json").document["services"]
    return any(row["name"] == name and row["state"] == "healthy" for row in rows)
