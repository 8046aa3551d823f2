"""Requests of every kind: nothing that a client sends makes the gateway fail."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mlx_gateway.access import Hosts
from mlx_gateway.app import Gateway
from mlx_gateway.keys import KeyRing
from mlx_gateway.options import GatewayOptions
from mlx_gateway.settings import parse_settings

PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses",
         "/v1/messages/count_tokens", "/v1/embeddings", "/v1/audio/speech"]  # fmt: skip
MODELS = ["m", "chats"]
"""Of an engine with every API, and of one that only chats."""
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def _one_of(words: str) -> st.SearchStrategy[str]:
    return st.sampled_from(words.split())


_words = _one_of(
    "text input_text image_url image document tool_use tool_result thinking function namespace "
    "custom reasoning message function_call function_call_output custom_tool_call user assistant "
    "system tool f json_schema"
)
_keys = _one_of(
    "type role content text name function tools input output arguments call_id id namespace "
    "tool_calls tool_use_id source data properties parameters input_schema description format "
    "effort include_usage summary image_url"
)
_leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _text | _words
_values = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=8,
)
_fields = st.dictionaries(
    _one_of(
        "messages prompt input system instructions tools tool_choice stop stop_sequences stream "
        "max_tokens max_completion_tokens max_output_tokens temperature top_p n logprobs text "
        "reasoning metadata response_format stream_options functions voice thinking "
        "chat_template_kwargs"
    ),
    _values,
    max_size=5,
)
_blocks = st.lists(
    st.fixed_dictionaries(
        {"type": _words},
        optional={"text": _text, "id": _words, "name": _words, "tool_use_id": _words,
                  "thinking": _leaves, "input": _values, "source": _values, "content": _values},
    ),
    max_size=3,
)  # fmt: skip
_blocks_of = st.fixed_dictionaries({"role": _one_of("user assistant system"), "content": _blocks})
_conversations = st.builds(
    lambda messages: {"messages": messages, "max_tokens": 9}, st.lists(_blocks_of, max_size=3)
) | st.sampled_from(
    [
        {"messages": [{"role": "user", "content": "x"}], "max_tokens": 9},
        {"input": "x"},
        {"input": [{"role": "user", "content": "x"}]},
        {"input": "x", "text": {"format": {"type": "json_object"}}},
        {"prompt": "x"},
        {},
    ]
)


class Answer:
    """What an ASGI server was told to send."""

    def __init__(self, body: bytes) -> None:
        self.incoming = [{"type": "http.request", "body": body, "more_body": False}]
        self.messages: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if self.incoming:
            return self.incoming.pop()
        return await asyncio.get_running_loop().create_future()

    async def send(self, message: dict[str, Any]) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        return self.messages[0]["status"]


async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers 418 to everything: it has been asked, and nothing went wrong before."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
            json.loads(await reader.readexactly(length))
            writer.write(b"HTTP/1.1 418 X\r\ncontent-length: 2\r\n\r\n{}")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


@pytest.fixture(scope="module")
def ask() -> Any:
    """Asks a gateway in this process, whose engine is on a real socket."""
    runner = asyncio.Runner()
    server = runner.run(_listen())
    port = server.sockets[0].getsockname()[1]
    upstreams = f'upstreams: [{{url: "http://127.0.0.1:{port}", model: m}}]'
    models = f"m: {{{upstreams}}}, chats: {{{upstreams}, chat_only: true}}"
    options = GatewayOptions(keys=KeyRing("key"), hosts=Hosts())
    gateway = Gateway(parse_settings(f"schema_version: 1\nmodels: {{{models}}}"), options)

    def ask(path: str, body: bytes, headers: list[tuple[bytes, bytes]]) -> Answer:
        answer = Answer(body)
        scope = {"type": "http", "method": "POST", "path": path,
                 "headers": [(b"x-api-key", b"key"), *headers]}  # fmt: skip
        runner.run(gateway(scope, answer.receive, answer.send))
        return answer

    yield ask
    server.close()
    gateway._models.engines.close()
    runner.close()


async def _listen() -> asyncio.Server:
    return await asyncio.start_server(engine, "127.0.0.1", 0)


def check(answer: Answer) -> None:
    assert 400 <= answer.status < 500, answer.messages
    document = json.loads(b"".join(each.get("body", b"") for each in answer.messages))
    assert document["error"]["message"]


def usual(max_examples: int) -> Callable[..., Any]:
    return settings(
        max_examples=max_examples, deadline=None, database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )  # fmt: skip


def mistakes(max_examples: int) -> Callable[..., Any]:
    """Two kinds of requests: JSON with anything in it, and anything at all."""

    def wrap(test: Callable[..., None]) -> Any:
        asked = st.tuples(st.sampled_from(MODELS), st.sampled_from(PATHS), _conversations, _fields)
        return usual(max_examples)(given(asked=asked, junk=st.binary(max_size=40))(test))

    return wrap


def story(
    ask: Any, asked: tuple[str, str, dict[str, object], dict[str, object]], junk: bytes
) -> None:
    model, path, conversation, fields = asked
    check(ask(path, json.dumps({"model": model, **conversation, **fields}).encode(), []))
    check(ask(path, b'{"model":"m",' + junk, [(b"content-type", junk)]))


@mistakes(150)
def test_no_request_makes_the_gateway_fail(ask: Any, asked: Any, junk: bytes) -> None:
    story(ask, asked, junk)


@pytest.mark.story
@pytest.mark.timeout(600)
@mistakes(5000)
def test_no_request_of_thousands_makes_the_gateway_fail(ask: Any, asked: Any, junk: bytes) -> None:
    story(ask, asked, junk)
