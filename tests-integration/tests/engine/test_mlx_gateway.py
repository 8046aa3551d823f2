"""mlx-gateway in front of the real vllm-mlx: each repair, and whether it is still needed.

Every repair is asked for twice. Directly at the engine its symptom must still be there: where it is
not, a newer engine no longer needs the repair. Through the gateway the answer must be right.
"""

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import uv

from mlx_stack.engines.vllm_mlx import Serving
from stack_testkit.gateway_program import running_gateway

type Serve = Callable[..., str]

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

KEY = "a-key-of-the-test"
PATIENCE_S = 60
ANSWERS_WITHIN_S = 30
TRAITS = Serving(tool_call_parser="hermes", reuses_prefixes=True)
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
LONG = "mcp__" + "x" * 90
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "weather", "description": "tells the weather", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}
CALL = 'Repeat: I look. <tool_call>\n{"name": "%s", "arguments": {"city": "Paris"}}\n</tool_call>'
TWO_CALLS = f"{CALL % 'weather'} {(CALL % 'weather').partition('I look. ')[2]}"
PARIS, JSON = 'Repeat: {"city": "Paris"}', {"format": {"type": "json_object"}}
FORM = {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkAAIAAAoAAv/lxKUAAAAASUVORK5CYII="  # noqa: E501 - one URL
BLOCKS = [{"type": "text", "text": "sunny"}, {"type": "text", "text": "windy"}]


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    text: str

    @property
    def document(self) -> Any:
        return json.loads(self.text)

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = [line[5:].strip() for line in self.text.splitlines() if line.startswith("data:")]
        return [json.loads(line) for line in lines if line.startswith("{")]

    @property
    def said(self) -> str:
        """The text of an answer of any API, whole or streamed."""
        if not self.text.lstrip().startswith(("event:", "data:", ":")):
            document = self.document
            parts = document.get("content") or [
                part for item in document.get("output", ()) for part in item.get("content") or ()
            ]
            choice = document.get("choices", [{}])[0]
            return "".join(
                [part.get("text") or "" for part in parts]
                + [choice.get("message", choice).get("content") or choice.get("text") or ""]
            )
        deltas = [each.get("delta") for each in self.events]
        deltas += [
            choice.get("delta") for each in self.events for choice in each.get("choices", ())
        ]
        return "".join(
            delta if isinstance(delta, str) else delta.get("text") or delta.get("content") or ""
            for delta in deltas
            if delta
        )

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.events if each.get("type") == kind]


def ask(url: str, path: str, body: dict[str, Any] | bytes) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    response = httpx.post(url + path, content=content, headers=headers, timeout=PATIENCE_S)
    return Answer(response.status_code, response.text)


def chat(text: str = "Repeat: one two three", **fields: object) -> dict[str, Any]:
    return {"model": "scripted", "messages": [{"role": "user", "content": text}], **fields}


def message(text: str = "Repeat: one two three", **fields: object) -> dict[str, Any]:
    return {"max_tokens": 60, **chat(text, **fields)}


def response(given: object = "Repeat: one two three", **fields: object) -> dict[str, Any]:
    return {"model": "scripted", "input": given, **fields}


def served(url: str, **fields: object) -> dict[str, Any]:
    upstream = {"url": url, "model": "scripted"}
    return {"upstreams": [upstream], "max_concurrent": 1, "sees_images": False, **fields}


@pytest.fixture(scope="module")
def engine(serve_all: Serve, scripted_model: Path) -> str:
    """The engine as it is, which shows each symptom."""
    return serve_all(scripted_model, traits=TRAITS)


@pytest.fixture(scope="module")
def engine_of_a_stack(serve_all: Serve, scripted_model: Path) -> str:
    return serve_all(scripted_model, name="complete", traits=TRAITS, has_additions=True)


@pytest.fixture(scope="module")
def lost() -> dict[str, str]:
    """How a shared engine was lost, by its fixture's name."""
    return {}


@pytest.fixture(autouse=True)
def still_answer(request: pytest.FixtureRequest, lost: dict[str, str]) -> None:
    """Fails a test at once, and not after minutes, when an earlier one hung an engine of all."""
    for name in ("engine", "engine_of_a_stack"):
        if name not in request.fixturenames:
            continue
        if name not in lost:
            url = request.getfixturevalue(name) + CHAT
            try:
                answer = httpx.post(url, json=chat(max_tokens=1), timeout=ANSWERS_WITHIN_S)
                answer.raise_for_status()
            except httpx.HTTPError as error:
                lost[name] = repr(error)
        if name in lost:
            pytest.fail(f"an earlier test broke the shared {name}: {lost[name]}", pytrace=False)


@pytest.fixture(scope="module")
def gateway(engine_of_a_stack: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = {"scripted": served(engine_of_a_stack, context_tokens=2048)}
    with running_gateway(tmp_path_factory.mktemp("gateway"), models, key=KEY) as url:
        yield url


@dataclass(frozen=True)
class Repair:
    """What the engine gets wrong, and how the gateway's answer is right."""

    symptom: str
    path: str
    body: Any
    is_wrong: Callable[[Answer], bool]
    is_right: Callable[[Answer], bool]


def is_refused(answer: Answer) -> bool:
    error = answer.document.get("error", {}) if answer.status == 400 else {}
    return bool(error.get("message"))


def usages(answer: Answer) -> int:
    return sum(bool(each.get("usage")) for each in answer.events)


TOOL_RESULT = [
    {"role": "user", "content": "x"},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "c1", "content": BLOCKS},
]  # fmt: skip
TOOL_USE = {"type": "tool_use", "id": "c1", "name": "weather", "input": {}}
RESULT_AND_TEXT = [
    {"role": "user", "content": "x"},
    {"role": "assistant", "content": [TOOL_USE]},
    {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "c1", "content": "sunny"},
        {"type": "text", "text": "Repeat: and now?"}]},
]  # fmt: skip
OUTPUT = [
    {"role": "user", "content": "x"},
    {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": [
        {"type": "input_text", "text": "sunny"}, {"type": "input_text", "text": "windy"}]},
]  # fmt: skip
THOUGHT = {"type": "reasoning", "summary": [], "content": None, "encrypted_content": None}
ASKING = {"role": "user", "content": "Repeat: ok"}
SPACE = {"type": "namespace", "name": "mcp__srv", "tools": [{**FUNCTION, "type": "function"}]}
DOCUMENT = {"type": "document", "source": {"type": "text", "data": "Repeat: the document"}}

REPAIRS = [
    Repair("stop as a text is refused", CHAT, chat(stop=" three"),
           lambda it: it.status == 422, lambda it: it.said == "one two"),
    Repair("stop is not looked at", CHAT, chat(stop=[" three"]),
           lambda it: "three" in it.said, lambda it: it.said == "one two"),
    Repair("stop is not looked at in a stream", CHAT, chat(stop=["ee"], stream=True),
           lambda it: "three" in it.said,
           lambda it: it.said == "one two thr" and it.text.endswith("data: [DONE]\n\n")),
    Repair("stop_sequences are not looked at", MESSAGES, message(stop_sequences=["two"]),
           lambda it: "three" in it.said,
           lambda it: it.said == "one " and it.document["stop_sequence"] == "two"),
    Repair("stop_sequences are not looked at in a stream", MESSAGES,
           message(stop_sequences=["two"], stream=True),
           lambda it: "three" in it.said,
           lambda it: (it.said == "one "
                       and it.of("message_delta")[0]["usage"]["output_tokens"] > 0)),
    Repair("max_completion_tokens is ignored", CHAT, chat(max_completion_tokens=2),
           lambda it: it.document["usage"]["completion_tokens"] > 2,
           lambda it: it.document["usage"]["completion_tokens"] == 2),
    Repair("usage comes in a stream though nobody asked", CHAT, chat(stream=True),
           lambda it: usages(it) == 1, lambda it: usages(it) == 0),
    Repair("usage comes twice in a stream", CHAT,
           chat(stream=True, stream_options={"include_usage": True}),
           lambda it: usages(it) == 2, lambda it: usages(it) == 1),
    Repair("null is no value", CHAT, chat(stream=None, stream_options=None),
           lambda it: it.status == 422, lambda it: it.said == "one two three"),
    Repair("a tool result of several parts is Python's repr or nothing", CHAT,
           chat() | {"messages": TOOL_RESULT},
           lambda it: "sunny\nwindy" not in it.said, lambda it: it.said == "Seen: sunny\nwindy"),
    Repair("a tool's result is read without its call", CHAT,
           chat() | {"messages": [TOOL_RESULT[0], TOOL_RESULT[2]]},
           lambda it: it.status == 200, is_refused),
    Repair("an image is dropped without a word", CHAT,
           chat() | {"messages": [{"role": "user", "content": [
               {"type": "image_url", "image_url": {"url": PIXEL}}]}]},
           lambda it: it.status == 200, is_refused),
    Repair("n is ignored", CHAT, chat(n=2),
           lambda it: len(it.document["choices"]) == 1, is_refused),
    Repair("logprobs are ignored", CHAT, chat(logprobs=True),
           lambda it: it.status == 200, is_refused),
    Repair("functions are ignored", CHAT, chat(functions=[FUNCTION]),
           lambda it: it.status == 200, is_refused),
    Repair("no messages are an error of the server", CHAT, {"model": "scripted", "messages": []},
           lambda it: it.status == 500, is_refused),
    Repair("a tool that is not there is an error of the server", CHAT,
           chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "x"}}),
           lambda it: it.status == 500, is_refused),
    Repair("half a character is an error of the server", CHAT,
           b'{"model":"scripted","messages":[{"role":"user","content":"\\ud800"}]}',
           lambda it: it.status == 500, is_refused),
    Repair("an error has FastAPI's shape and status", CHAT, chat(temperature="hot"),
           lambda it: it.status == 422 and "detail" in it.document, is_refused),
    Repair("an empty prompt is an error of the server", "/v1/completions",
           {"model": "scripted", "prompt": ""}, lambda it: it.status == 500, is_refused),
    Repair("a streamed message says nothing of the prompt", MESSAGES,
           message("Repeat: one two three four five six", stream=True),
           lambda it: it.of("message_start")[0]["message"]["usage"]["input_tokens"] == 0,
           lambda it: it.of("message_start")[0]["message"]["usage"]["input_tokens"] > 5),
    Repair("a streamed message that was cut ended its turn", MESSAGES,
           message("Talk for ever.", max_tokens=3, stream=True),
           lambda it: it.of("message_delta")[0]["delta"]["stop_reason"] == "end_turn",
           lambda it: it.of("message_delta")[0]["delta"]["stop_reason"] == "max_tokens"),
    Repair("the text of a message comes before the tool result in it", MESSAGES,
           message() | {"messages": RESULT_AND_TEXT},
           lambda it: it.said == "Seen: sunny", lambda it: it.said == "and now?"),
    Repair("a tool name of 95 letters is refused", MESSAGES,
           message(tools=[{"name": LONG, "input_schema": SCHEMA}]),
           lambda it: it.status == 400, lambda it: it.said == "one two three"),
    Repair("a document is dropped without a word", MESSAGES,
           message() | {"messages": [{"role": "user", "content": [DOCUMENT]}]},
           lambda it: it.said == "Fine.", lambda it: it.said == "the document"),
    Repair("the form of a message is ignored", MESSAGES,
           message(PARIS, output_config={"format": {"type": "json_schema", "schema": SCHEMA}}),
           lambda it: it.status == 200,
           lambda it: (json.loads(it.said) == {"city": "Paris"} if sys.platform == "darwin"
                       else is_refused(it))),
    Repair("a mistake in a message is an error of the server", MESSAGES,
           message() | {"messages": [{"role": "user", "content": None}]},
           lambda it: it.status == 500, is_refused),
    Repair("a whole message lacks a field", MESSAGES, message(),
           lambda it: "stop_sequence" not in it.document,
           lambda it: it.document["stop_sequence"] is None),
    Repair("arguments of a call come twice, and are never done", RESPONSES,
           response(CALL % "weather", stream=True, tools=[{**FUNCTION, "type": "function"}]),
           lambda it: (it.of("response.output_item.added")[-1]["item"]["arguments"] != ""
                       and not it.of("response.function_call_arguments.done")),
           lambda it: (it.of("response.output_item.added")[-1]["item"]["arguments"] == ""
                       and len(it.of("response.function_call_arguments.done")) == 1)),
    Repair("the tools of a namespace are dropped", RESPONSES,
           response("Show the prompt.", tools=[SPACE]),
           lambda it: "tells the weather" not in it.said,
           lambda it: "mcp__srv__weather" in it.said),
    Repair("a custom tool is dropped", RESPONSES,
           response("Show the prompt.", tools=[{"type": "custom", "name": "apply_patch"}]),
           lambda it: '"apply_patch"' not in it.said, lambda it: '"apply_patch"' in it.said),
    Repair("a tool's output of several parts is Python's repr or nothing", RESPONSES,
           response(OUTPUT),
           lambda it: "sunny\nwindy" not in it.said, lambda it: it.said == "Seen: sunny\nwindy"),
    Repair("replayed reasoning without content is an error of the server", RESPONSES,
           response([THOUGHT, ASKING]),
           lambda it: it.status == 500, lambda it: it.said == "ok"),
    Repair("the effort `max` is refused", RESPONSES, response(reasoning={"effort": "max"}),
           lambda it: it.status == 422, lambda it: it.said == "one two three"),
    Repair("a response that was cut is completed", RESPONSES,
           response("Talk for ever.", max_output_tokens=3, stream=True),
           lambda it: bool(it.of("response.completed")),
           lambda it: bool(it.of("response.incomplete"))),
    Repair("a second call comes where the client takes one", CHAT,
           chat(TWO_CALLS, tools=[TOOL], parallel_tool_calls=False),
           lambda it: len(it.document["choices"][0]["message"]["tool_calls"]) == 2,
           lambda it: len(it.document["choices"][0]["message"]["tool_calls"]) == 1),
    Repair("a second call comes in a stream where the client takes one", CHAT,
           chat(TWO_CALLS, tools=[TOOL], parallel_tool_calls=False, stream=True),
           lambda it: it.text.count('"name":"weather"') == 2,
           lambda it: it.text.count('"name":"weather"') == 1),
    Repair("a second call comes in a message where the client takes one", MESSAGES,
           message(TWO_CALLS, tools=[{"name": "weather", "input_schema": SCHEMA}], stream=True,
                   tool_choice={"type": "auto", "disable_parallel_tool_use": True}),
           lambda it: it.text.count('"tool_use", "id"') == 2,
           lambda it: it.text.count('"tool_use","id"') == 1),
    Repair("a second call comes in a response where the client takes one", RESPONSES,
           response(TWO_CALLS, tools=[{**FUNCTION, "type": "function"}], stream=True,
                    parallel_tool_calls=False),
           lambda it: len(it.of("response.output_item.done")) == 2 + bool(it.said),
           lambda it: len(it.of("response.output_item.done")) == 1 + bool(it.said)),
    Repair("JSON is refused", RESPONSES, response(PARIS, text=JSON),
           lambda it: it.status == 400, lambda it: json.loads(it.said) == {"city": "Paris"}),
    Repair("JSON is refused in a stream", RESPONSES, response(PARIS, text=JSON, stream=True),
           lambda it: it.status == 400,
           lambda it: (json.loads(it.said) == {"city": "Paris"}
                       and it.of("response.completed")[0]["response"]["usage"]["output_tokens"])),
    Repair("JSON of a schema is no format of a response", RESPONSES,
           response(PARIS, text={"format": FORM}), lambda it: it.status == 422,
           lambda it: (json.loads(it.said) == {"city": "Paris"} if sys.platform == "darwin"
                       else is_refused(it) and it.document["error"]["param"] == "text.format")),
]  # fmt: skip


@pytest.mark.parametrize("repair", REPAIRS, ids=[repair.symptom for repair in REPAIRS])
def test_a_repair_is_still_needed_and_is_right(engine: str, gateway: str, repair: Repair) -> None:
    directly = ask(engine, repair.path, repair.body)
    assert repair.is_wrong(directly), f"the engine no longer needs it: {directly}"

    through = ask(gateway, repair.path, repair.body)
    assert repair.is_right(through), through


def test_a_thinking_block_has_a_signature(
    serve: Serve, scripted_model: Path, tmp_path: Path
) -> None:
    traits = Serving(tool_call_parser="hermes", reasoning_parser="qwen3", reuses_prefixes=True)
    url = serve(scripted_model, traits=traits)
    thinking = message("Repeat: <think>I ponder.</think>Yes.")

    assert "signature" not in ask(url, MESSAGES, thinking).document["content"][0]
    with running_gateway(tmp_path, {"scripted": served(url)}, key=KEY) as through:
        for streams in (False, True):
            answer = ask(through, MESSAGES, thinking | {"stream": streams})
            blocks = [each["content_block"] for each in answer.of("content_block_start")]
            blocks = blocks or answer.document["content"]
            assert (blocks[0]["type"], blocks[0]["signature"]) == ("thinking", "")
            assert answer.said.endswith("Yes.")


def test_a_value_out_of_range_would_end_all_work_and_never_reaches_the_engine(
    serve: Serve, scripted_model: Path, tmp_path: Path
) -> None:
    url = serve(scripted_model, traits=TRAITS)

    with running_gateway(tmp_path, {"scripted": served(url)}, key=KEY) as through:
        assert is_refused(ask(through, CHAT, chat(min_p=-1)))
        assert ask(through, CHAT, chat()).said == "one two three"

    assert ask(url, CHAT, chat(min_p=-1)).status == 500
    assert ask(url, CHAT, chat()).status == 500, "the engine no longer needs it"


def test_what_is_right_already_stays_so(gateway: str) -> None:
    assert ask(gateway, CHAT, chat("Repeat: äöü 🎉")).said == "äöü 🎉"
    assert ask(gateway, CHAT, chat("Repeat: äöü 🎉", stream=True)).said == "äöü 🎉"
    assert ask(gateway, MESSAGES, message("Repeat: äöü 🎉", stream=True)).said == "äöü 🎉"
    assert ask(gateway, RESPONSES, response("Repeat: äöü 🎉", stream=True)).said == "äöü 🎉"
    called = ask(gateway, CHAT, chat(CALL % "weather", tools=[TOOL])).document["choices"][0]
    assert called["finish_reason"] == "tool_calls"
    assert called["message"]["tool_calls"][0]["function"]["name"] == "weather"
    completed = ask(
        gateway, "/v1/completions", {"model": "scripted", "prompt": "x", "stream": True}
    )
    assert completed.text.endswith("data: [DONE]\n\n")


def test_a_long_tool_name_comes_back_as_it_was(gateway: str) -> None:
    tools = [{"name": LONG, "input_schema": SCHEMA}]
    shown = ask(gateway, MESSAGES, message("Show the prompt.", tools=tools, max_tokens=400)).said
    short = next(word for word in shown.replace('"', " ").split() if word.startswith("mcp__x"))
    assert len(short) == 64

    for streams in (False, True):
        answer = ask(gateway, MESSAGES, message(CALL % short, tools=tools, stream=streams))
        assert f'"name":"{LONG}"' in answer.text.replace(": ", ":")
        assert short not in answer.text


def test_a_tool_of_a_namespace_is_called_with_it(gateway: str) -> None:
    for streams in (False, True):
        asked = response(CALL % "mcp__srv__weather", tools=[SPACE], stream=streams)
        answer = ask(gateway, RESPONSES, asked)
        done = answer.of("response.completed")[0]["response"] if streams else answer.document
        call = done["output"][-1]
        assert (call["namespace"], call["name"]) == ("mcp__srv", "weather")


def test_tokens_are_counted_as_the_engine_counts_them(engine: str, gateway: str) -> None:
    tools = [{"name": f"tool_{number}", "description": "tells the weather of a city",
              "input_schema": SCHEMA} for number in range(8)]  # fmt: skip
    asked = message("word " * 60, tools=tools)
    billed = ask(engine, MESSAGES, asked).document["usage"]["input_tokens"]

    count = {name: asked[name] for name in ("model", "messages", "tools")}
    directly = ask(engine, "/v1/messages/count_tokens", count).document["input_tokens"]
    through = ask(gateway, "/v1/messages/count_tokens", count).document["input_tokens"]
    streamed = ask(gateway, MESSAGES, asked | {"stream": True}).of("message_start")[0]

    assert directly < billed * 0.9, "the engine no longer needs its backport"
    assert through == billed
    assert streamed["message"]["usage"]["input_tokens"] == through


def test_a_model_without_embeddings_says_why_at_once(gateway: str) -> None:
    answer = ask(gateway, "/v1/embeddings", {"model": "scripted", "input": "x"})

    assert is_refused(answer)
    assert "mbedding" in answer.document["error"]["message"]


def test_a_prompt_that_is_too_long_is_refused_as_agents_expect(gateway: str) -> None:
    for path, body in ((CHAT, chat("word " * 3000)), (MESSAGES, message("word " * 3000)),
                       (RESPONSES, response("word " * 3000, stream=True))):  # fmt: skip
        answer = ask(gateway, path, body)
        assert answer.status == 400
        assert "prompt is too long: 30" in answer.document["error"]["message"]


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac's engine can do it")
def test_a_form_that_this_machine_can_not_give_is_refused_once(gateway: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}

    answer = ask(gateway, CHAT, chat(response_format=form))

    assert is_refused(answer)
    assert ask(gateway, CHAT, chat()).said == "one two three"


def leave(url: str, path: str, body: dict[str, Any], *, after_s: float) -> None:
    """Ask, and leave without waiting for the end."""
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(timeout=PATIENCE_S, headers=headers) as client:
        request = client.build_request("POST", url + path, json=body, timeout=after_s)
        try:
            answer = client.send(request, stream=True)
        except httpx.ReadTimeout:
            return
        next(answer.iter_bytes())
        answer.close()


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    ("path", "make"), [(CHAT, chat), (MESSAGES, message), (RESPONSES, response)]
)
def test_a_client_that_leaves_ends_its_work(
    gateway: str, path: str, make: Callable[..., dict[str, Any]], streams: bool
) -> None:
    leave(gateway, path, make("Wait 0.05 s. Talk for ever.", stream=streams), after_s=1.5)

    left = time.monotonic()
    assert ask(gateway, CHAT, chat()).said == "one two three"
    assert time.monotonic() - left < 5, "the next request waits for nobody"


def test_whoever_left_while_waiting_costs_nothing(gateway: str) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    slow = chat("Wait 0.1 s. Repeat: a b c d e f g h i j k l m n o p q r s t", stream=True)
    with (
        httpx.Client(timeout=PATIENCE_S, headers=headers) as client,
        client.stream("POST", gateway + CHAT, json=slow) as active,
    ):
        received = active.iter_bytes()
        said = next(received)
        for _ in range(4):
            leave(gateway, CHAT, chat("Wait 0.1 s. Talk for ever.", stream=True), after_s=0.2)
        said += b"".join(received)
    assert said.count(b'"content"') >= 19, "the one that was being answered is, to its end"
    began = time.monotonic()
    assert ask(gateway, CHAT, chat()).said == "one two three"
    assert time.monotonic() - began < 10, "one of them alone would take longer"


def kill(url: str) -> None:
    """Kill whatever listens there."""
    port = httpx.URL(url).port
    for process in psutil.process_iter(["cmdline"]):
        if str(port) in (process.info["cmdline"] or ()):
            process.kill()


@pytest.mark.parametrize(
    ("path", "make"), [(CHAT, chat), (MESSAGES, message), (RESPONSES, response)]
)
def test_an_engine_that_dies_while_it_reads_is_replaced(
    serve: Serve, scripted_model: Path, engine_of_a_stack: str, tmp_path: Path, path: str,
    make: Callable[..., dict[str, Any]],
) -> None:  # fmt: skip
    dying = serve(scripted_model, name="dying", traits=TRAITS)
    models = {"scripted": served(dying, fallbacks=["other"]), "other": served(engine_of_a_stack)}
    headers = {"authorization": f"Bearer {KEY}"}
    asked = make("Wait 3 s. Repeat: ok", stream=True)
    with (
        running_gateway(tmp_path, models, key=KEY) as url,
        httpx.Client(timeout=PATIENCE_S, headers=headers) as client,
        client.stream("POST", url + path, json=asked) as answer,
    ):
        kill(dying)
        answer.read()
    assert Answer(answer.status_code, answer.text).said == "ok"
    assert ": x-mlx-stack-fallback-from: scripted" in answer.text
    assert answer.text.count('"response.created"') == (path == RESPONSES)


_SDKS = """
import json, sys, anthropic, openai, pydantic
o = openai.OpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=0)
a = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0)
say = lambda text: [{"role": "user", "content": text}]
words, call = "Repeat: one two three", CALL
tool = {"name": "weather", "description": "d", "parameters": SCHEMA}
strict = {"type": "function", "function": {**tool, "strict": True}}
ant = {"name": "weather", "description": "d", "input_schema": SCHEMA}
seen = {}
def error(ask):
    try:
        ask()
    except (openai.APIStatusError, anthropic.APIStatusError) as problem:
        return [type(problem).__name__, problem.status_code]

seen["models"] = [m.id for m in o.models.list()] + [m.id for m in a.models.list()]
seen["model"] = o.models.retrieve("scripted").id
whole = o.chat.completions.create(model="scripted", messages=say(words), stop=" three")
seen["chat"] = whole.choices[0].message.content
chunks = list(o.chat.completions.create(model="scripted", messages=say(words), stream=True,
              stop=["ree"], stream_options={"include_usage": True}))
seen["chat streamed"] = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
seen["chat usage"] = chunks[-1].usage.completion_tokens > 0
with o.chat.completions.stream(model="scripted", messages=say(call), tools=[strict]) as stream:
    for event in stream: pass
    called = stream.get_final_completion().choices[0].message.tool_calls[0]
seen["chat tool"] = [called.function.name, called.function.parsed_arguments]
seen["completion"] = o.completions.create(model="scripted", prompt="x", max_tokens=3).object
seen["response"] = o.responses.create(model="scripted", input=words).output_text
with o.responses.stream(model="scripted", input=call, tools=[{"type": "function", **tool,
                        "strict": False}]) as stream:
    kinds = [event.type for event in stream]
    called = stream.get_final_response().output[-1]
seen["response tool"] = [called.name, json.loads(called.arguments)]
seen["arguments done"] = kinds.count("response.function_call_arguments.done")
form = {"model": "scripted", "text": {"format": {"type": "json_object"}}}
seen["json"] = json.loads(o.responses.create(**form, input=PARIS).output_text)
with o.responses.stream(**form, input="Wait 1 s. " + PARIS) as stream:
    kinds = [event.type.removeprefix("response.") for event in stream]
    seen["json streamed"] = json.loads(stream.get_final_response().output_text)
seen["json events"] = sorted(set(kinds), key=kinds.index)
class City(pydantic.BaseModel):
    city: str
parse = dict(model="scripted", input=PARIS, text_format=City)
seen["json parsed"] = (error(lambda: o.responses.parse(**parse)) if sys.platform == "linux"
                       else o.responses.parse(**parse).output_parsed.city)
whole = a.messages.create(model="scripted", max_tokens=50, messages=say(words))
seen["message"] = whole.content[0].text
def final(**more):
    asked = {"model": "scripted", "max_tokens": 50, "messages": say(words), **more}
    with a.messages.stream(**asked) as stream:
        for event in stream: pass
        return stream.get_final_message()
seen["message streamed"] = final().content[0].text
stopped = final(stop_sequences=["two"])
seen["message stopped"] = [stopped.content[0].text, stopped.stop_reason, stopped.stop_sequence]
seen["message cut"] = final(messages=say("Talk for ever."), max_tokens=3).stop_reason
called = final(messages=say(call), tools=[ant]).content[-1]
seen["message tool"] = [called.name, called.input]
longer = say("Repeat: one two three four five six")
seen["input tokens"] = final(messages=longer).usage.input_tokens > 5
seen["count"] = a.messages.count_tokens(model="scripted", messages=longer).input_tokens > 5
# the first token after a sign of life
slow = "Wait 5.5 s. Repeat: ok"
seen["slow chat"] = "".join(c.choices[0].delta.content or "" for c in
    o.chat.completions.create(model="scripted", messages=say(slow), stream=True))
with o.responses.stream(model="scripted", input=slow) as stream:
    for event in stream: pass
    seen["slow response"] = stream.get_final_response().output_text
seen["slow message"] = final(messages=say(slow)).content[0].text
wrong = dict(model="scripted", messages=say("x"))
seen["errors"] = [
    error(lambda: o.with_options(api_key="wrong").chat.completions.create(**wrong)),
    error(lambda: a.with_options(api_key="wrong").messages.create(**wrong, max_tokens=1)),
    error(lambda: o.chat.completions.create(**{**wrong, "model": "nobody"})),
    error(lambda: a.messages.create(**{**wrong, "model": "nobody"}, max_tokens=1)),
    error(lambda: o.chat.completions.create(**wrong, temperature="hot")),
    error(lambda: a.messages.create(**wrong, max_tokens=0)),
]
print(json.dumps(seen))
"""


def test_the_clients_of_openai_and_anthropic_get_along(gateway: str) -> None:
    constants = f"URL, KEY, CALL, SCHEMA = {gateway!r}, {KEY!r}, {CALL % 'weather'!r}, {SCHEMA!r}\n"
    constants += f"PARIS = {PARIS!r}\n"
    command = [uv.find_uv_bin(), "run", "--no-project", "--isolated", "--quiet"]
    command += ["--with", "openai>=2", "--with", "anthropic>=0.60"]
    done = subprocess.run(
        [*command, "python", "-c", constants + textwrap.dedent(_SDKS)],
        capture_output=True, text=True, check=False, timeout=250,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    weather = ["weather", {"city": "Paris"}]
    assert json.loads(done.stdout) == {
        "models": ["scripted", "scripted"], "model": "scripted", "chat": "one two",
        "chat streamed": "one two th", "chat usage": True, "chat tool": weather,
        "completion": "text_completion", "response": "one two three", "response tool": weather,
        "arguments done": 1, "json": {"city": "Paris"}, "json streamed": {"city": "Paris"},
        "json events": [
            "created", "in_progress", "output_item.added", "content_part.added",
            "output_text.delta", "output_text.done", "content_part.done", "output_item.done",
            "completed",
        ],
        "json parsed": "Paris" if sys.platform == "darwin" else ["BadRequestError", 400],
        "message": "one two three", "message streamed": "one two three",
        "message stopped": ["one ", "stop_sequence", "two"], "message cut": "max_tokens",
        "message tool": weather, "input tokens": True, "count": True, "slow chat": "ok",
        "slow response": "ok", "slow message": "ok",
        "errors": [["AuthenticationError", 401]] * 2 + [["NotFoundError", 404]] * 2
        + [["BadRequestError", 400]] * 2,
    }  # fmt: skip
