"""An engine whose answers come a byte at a time: every API's client gets what it got at once."""

import json
import random
import re
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, override

import httpx
import pytest

from stack_testkit import fake_messages
from stack_testkit.gateway_program import running_gateway

pytestmark = pytest.mark.story

KEY = "a-key-of-the-test"
TEXT = "Grüße aus 日本 🎉"
HELLO = [{"role": "user", "content": TEXT}]
CALL = [{"role": "user", "content": f"Call weather {json.dumps({'city': TEXT})}"}]
FUNCTION = {"name": "weather", "parameters": {"type": "object"}}
MADE_UP = re.compile(
    rb'"(id|item_id|call_id)":"[^"]*"|"created(_at)?":("[^"]*"|\d+)|"[a-z_]*duration":\d+'
)
"""What an answer has of its own: names and times that are made when it is given."""
AS_IT_COMES, BYTE_BY_BYTE = "as it comes", "byte by byte"


def _chat(_asked: Any) -> Iterator[dict[str, Any]]:
    deltas: list[dict[str, Any]] = [{"role": "assistant"}, {"reasoning_content": "hm 🎉"}]
    deltas += [{"content": piece} for piece in (TEXT, "one t", "wo", " three")]
    function = {"name": "weather", "arguments": json.dumps({"city": TEXT}, ensure_ascii=False)}
    deltas.append({"tool_calls": [{"index": 0, "id": "call", "function": function}]})
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    for choice in choices:
        usage = {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}
        yield {"id": "c", "choices": [choice], **({"usage": usage} if choice["delta"] else {})}


def _completion(_asked: Any) -> Iterator[dict[str, Any]]:
    for text, reason in ((TEXT, None), ("one t", None), ("wo three", None), ("", "stop")):
        yield {"id": "c", "choices": [{"index": 0, "text": text, "finish_reason": reason}]}


def _message(asked: Any) -> Iterator[dict[str, Any]]:
    for kind, event in fake_messages.events(asked):
        yield {"type": kind, **event}


def _response(_asked: Any) -> Iterator[dict[str, Any]]:
    item = {"type": "function_call", "id": "f", "name": "weather", "arguments": TEXT}
    documents: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": "r"}},
        {"type": "response.in_progress", "response": {"id": "r"}},
        {"type": "response.output_text.delta", "delta": TEXT},
        {"type": "response.output_item.added", "item": item},
        {"type": "response.output_item.done", "item": item},
        {"type": "response.completed", "response": {"id": "r", "output": [item]}},
    ]
    for number, document in enumerate(documents):
        yield {"sequence_number": number, **document}


STREAMS: dict[str, Callable[[Any], Iterator[dict[str, Any]]]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/messages": _message,
    "/v1/responses": _response,
}


class Engine(socketserver.ThreadingTCPServer):
    """Answers in pieces of the sizes that `split` says: its head, and its body in HTTP's chunks."""

    daemon_threads = True
    split = AS_IT_COMES

    def pieces(self, data: bytes) -> list[bytes]:
        """The bytes, cut."""
        places = range(len(data) + 1)
        if self.split == AS_IT_COMES:
            return [data]
        if self.split != BYTE_BY_BYTE:
            chosen = random.Random(self.split).sample(places[1:-1], len(data) // 20)
            places = sorted({0, len(data), *chosen})
        return [data[a:b] for a, b in pairwise(places)]


class Answers(socketserver.StreamRequestHandler):
    """One connection to the engine."""

    server: Engine
    disable_nagle_algorithm = True

    @override
    def handle(self) -> None:
        while first := self.rfile.readline():
            path, length = first.split()[1].decode(), 0
            while line := self.rfile.readline().strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            body = self.rfile.read(length)
            self._answer(path, json.loads(body or b"{}"))

    def _answer(self, path: str, asked: Any) -> None:
        kind, bodies = "application/json", [b'{"input_tokens": 5, "data": []}']
        if path in STREAMS:
            kind = "text/event-stream"
            bodies = [_event(each) for each in STREAMS[path](asked)]
            bodies += [b"data: [DONE]\n\n"] if "completions" in path else []
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
        chunks = [b"%x\r\n%s\r\n" % (len(each), each) for each in bodies]
        for piece in self.server.pieces(b"".join([head.encode(), *chunks, b"0\r\n\r\n"])):
            self.wfile.write(piece)
            time.sleep(0.0002)  # so that the kernel does not join them


def _event(document: dict[str, Any]) -> bytes:
    name = f"event: {document['type']}\n" if "type" in document else ""
    return f"{name}data: {json.dumps(document, ensure_ascii=False)}\n\n".encode()


@contextmanager
def running_engine() -> Iterator[Engine]:
    with Engine(("127.0.0.1", 0), Answers) as engine:
        thread = threading.Thread(target=engine.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield engine
        finally:
            engine.shutdown()
            thread.join()


ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": HELLO}),
    "chat with usage": (
        "/v1/chat/completions",
        {"messages": HELLO, "stream_options": {"include_usage": True}},
    ),
    "chat with a stop sequence": ("/v1/chat/completions", {"messages": HELLO, "stop": "two"}),
    "completions": ("/v1/completions", {"prompt": "x"}),
    "messages": (
        "/v1/messages",
        {"messages": HELLO, "max_tokens": 50, "thinking": {"type": "enabled"}},
    ),
    "messages with a call": ("/v1/messages", {"messages": CALL, "max_tokens": 50}),
    "messages with a stop sequence": (
        "/v1/messages",
        {"messages": HELLO, "max_tokens": 50, "stop_sequences": ["日本"]},
    ),
    "responses": (
        "/v1/responses",
        {"input": "x", "tools": [{"type": "function", **FUNCTION}]},
    ),
    "responses with a form": (
        "/v1/responses",
        {"input": "x", "text": {"format": {"type": "json_object"}}},
    ),
    "ollama's chat": ("/api/chat", {"messages": HELLO}),
    "ollama's generate": ("/api/generate", {"prompt": "x"}),
    "ollama's raw text": ("/api/generate", {"prompt": "x", "raw": True}),
}


def test_a_client_gets_the_same_answer_however_the_engines_bytes_come(tmp_path: Path) -> None:
    with running_engine() as engine:
        upstream = {"url": f"http://127.0.0.1:{engine.server_address[1]}", "model": "m"}
        with (
            running_gateway(tmp_path, {"m": {"upstreams": [upstream]}}, key=KEY) as url,
            httpx.Client(base_url=url, headers={"authorization": f"Bearer {KEY}"}) as client,
        ):

            def answers(split: str) -> dict[str, bytes]:
                engine.split = split
                found: dict[str, bytes] = {}
                for name, (path, body) in ASKED.items():
                    answer = client.post(path, json={"model": "m", "stream": True, **body})
                    assert answer.status_code == 200, answer.text
                    found[name] = MADE_UP.sub(b"", answer.content)
                return found

            expected = answers(AS_IT_COMES)
            for said in expected.values():
                assert "Grüße".encode() in said or b"weather" in said
            for split in (BYTE_BY_BYTE, "one seed", "another seed"):
                assert answers(split) == expected
