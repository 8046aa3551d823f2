"""A stand-in for vllm-mlx: a real process with a real port that answers like an engine.

It runs as the real one does: in its own environment, behind the guard, on uvicorn. It takes
the command line of `vllm-mlx serve` (flags that it doesn't know are ignored) and these of
its own, which say how it misbehaves:

    --ready-after S    listen only after S seconds, as an engine that loads a large model
    --exit-after S     exit by itself after S seconds
    --exit-code N      … with this code (3)
    --ignore-sigterm   only SIGKILL ends it
    --spawn-child      start a child, which a careless stop would leave behind
    --token-delay S    wait so long before each token
    --hang             accept connections and never answer
    --status N         answer everything with this HTTP status
    --chat-status N    answer requests for a completion with this HTTP status
    --wedge KIND       on SIGUSR1, go on answering and stop delivering, as a
                         dead-thread  nothing that it works on moves
                         deadlock     nothing is begun any more
                         livelock     it steps and steps, at full processor load
                         errors       every completion is HTTP 500
                         error-200    … or HTTP 200 with finish_reason "error"
                         silence      nothing is answered, at full processor load
    --capable FAULTS   answer as a model fit for agents, with these faults (`capable_model`)
    --planted LIST     what flags do that it doesn't know otherwise: `stream-interval=4:1.08` makes
                       it 8 % faster, `enable-mtp:words` changes what it says
    --paced SHARE      answer by the clock, however busy the machine is, at a speed that varies
                       by this share from request to request
    --prefill-tps N    read a prompt at this speed
    --ballast-mb N     hold so much memory for nothing
    stand_in.json      in the model's folder, a list of more of these: what its files make of it
    --status-as KIND   `/v1/status` is missing, hangs, is nonsense, or lies (a request in flight
                       that isn't there)
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, MutableMapping, Sequence
from itertools import count, islice, repeat
from pathlib import Path
from typing import Any

from stack_testkit import capable_model, fake_messages
from stack_testkit.asgi_program import serve

_LONG_S = 3600
WEDGES = ("dead-thread", "deadlock", "livelock", "errors", "error-200", "silence")
"""The ways in which it can stop delivering."""
_NOT_FOUND = {"error": {"message": "Not Found", "type": "not_found"}}
_JSON = "application/json"

type Message = MutableMapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until told to stop."""
    options = _parse(arguments)
    print(f"fake engine {os.getpid()}: loading {options.model}", flush=True)
    if options.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.spawn_child:
        child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({_LONG_S})"])
        print(f"child {child.pid}", flush=True)
    if options.exit_after is not None:
        threading.Thread(target=_exit_later, args=(options,), daemon=True).start()
    engine = _Engine(options)
    if options.wedge is not None:
        signal.signal(signal.SIGUSR1, engine.wedge)
    time.sleep(options.ready_after)
    print(f"listening on {options.host}:{options.port}", flush=True)
    ballast = bytearray(b"x") * (options.ballast_mb * 2**20)
    serve(engine, options.host, options.port)
    del ballast  # held until here


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fake-engine", allow_abbrev=False)
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--served-model-name", default="fake")
    parser.add_argument("--ready-after", type=float, default=0.0)
    parser.add_argument("--exit-after", type=float)
    parser.add_argument("--exit-code", type=int, default=3)
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--spawn-child", action="store_true")
    parser.add_argument("--token-delay", type=float, default=0.0)
    parser.add_argument("--read-for", type=float, default=0.0)
    parser.add_argument("--hang", action="store_true")
    parser.add_argument("--status", type=int, default=200)
    parser.add_argument("--chat-status", type=int, default=200)
    parser.add_argument("--wedge", choices=WEDGES)
    parser.add_argument("--capable", type=lambda text: text.split(","))
    parser.add_argument("--planted", type=lambda text: text.split(","), default=[])
    parser.add_argument("--paced", type=float)
    parser.add_argument("--prefill-tps", type=float)
    parser.add_argument("--ballast-mb", type=int, default=0)
    parser.add_argument("--status-as", choices=["missing", "hang", "nonsense", "lie"])
    words = list(sys.argv[1:] if arguments is None else arguments)
    own = Path(parser.parse_known_args(words)[0].model) / "stand_in.json"
    if own.is_file():
        words += json.loads(own.read_text(encoding="utf-8"))
    options, others = parser.parse_known_args(words)
    options.says = "said:"
    for effect in _effects(options.planted, others):
        if effect == "words":
            options.says = "answered:"
            if options.capable is not None:
                options.capable = [*options.capable, "other-words"]
        else:
            options.token_delay /= float(effect)
    return options


def _effects(planted: Sequence[str], flags: Sequence[str]) -> Iterator[str]:
    """What the flags that were given are said to do."""
    given = f" {' '.join(flags)} "
    for each in planted:
        flag, _, effect = each.partition(":")
        if f" --{flag.replace('=', ' ')} " in given:
            yield effect


def _exit_later(options: argparse.Namespace) -> None:
    time.sleep(options.exit_after)
    print(f"fake engine: exiting with {options.exit_code}", file=sys.stderr, flush=True)
    os._exit(options.exit_code)


class _Engine:
    """The application, which misbehaves as its options say."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._wedge = ""
        self._requests: dict[str, dict[str, Any]] = {}
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._steps = 0

    def wedge(self, *_signal: object) -> None:
        """Stop delivering."""
        self._wedge = self._options.wedge
        print(f"fake engine: {self._wedge}", flush=True)
        if self._wedge == "livelock":
            threading.Thread(target=self._step_for_ever, daemon=True).start()

    def _step_for_ever(self) -> None:
        while True:
            self._steps += 1

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """Answer one request."""
        options = self._options
        if options.hang:
            await asyncio.sleep(_LONG_S)
        while self._wedge == "silence":
            self._steps += 1
        if options.status != 200:
            error = {"error": {"message": "as told", "type": "fake"}}
            await _send(send, options.status, error)
            return
        name = options.served_model_name
        match scope["method"], scope["path"]:
            case "GET", "/health":
                await _send(send, 200, {"status": "healthy"})
            case "GET", "/v1/models":
                models = [{"id": name, "object": "model"}]
                await _send(send, 200, {"object": "list", "data": models})
            case "GET", "/v1/status":
                await self._status(send)
            case "POST", "/v1/chat/completions":
                await self._chat(json.loads(await _read(receive)), send)
            case "POST", "/v1/messages/count_tokens":
                words = len((await _read(receive)).split())
                await _send(send, 200, {"input_tokens": words})
            case "POST", "/v1/messages":
                await self._message(json.loads(await _read(receive)), send)
            case _:
                await _send(send, 404, _NOT_FOUND)

    async def _status(self, send: Any) -> None:
        """Say what is worked on, in the words of vllm-mlx."""
        requests = list(self._requests.values())
        running = [row for row in requests if row["status"] == "running"]
        match self._options.status_as:
            case "missing":
                await _send(send, 404, _NOT_FOUND)
                return
            case "hang":
                await asyncio.sleep(_LONG_S)
            case "nonsense":
                await _send(send, 200, {"status": "running", "num_running": "many"})
                return
            case "lie":
                running = requests = [_row("ghost", 5)]
            case _:
                pass
        document = {
            "status": "running",
            "model": self._options.served_model_name,
            "steps_executed": self._steps,
            "num_running": len(running),
            "num_waiting": len(requests) - len(running),
            "total_prompt_tokens": self._prompt_tokens,
            "total_completion_tokens": self._completion_tokens,
            "requests": requests,
        }
        await _send(send, 200, document)

    async def _work(self, prompt: Sequence[str], tokens: Sequence[str]) -> AsyncIterator[str]:
        """The tokens of an answer one after the other, told in the status."""
        name = f"chatcmpl-{self._prompt_tokens}-{time.monotonic_ns()}"
        row = self._requests[name] = _row(name, len(prompt))
        try:
            if self._wedge == "deadlock":
                row |= {"status": "waiting", "phase": "queued"}
            self._prompt_tokens += len(prompt)
            for step in range(20 if self._options.read_for else 0):
                await asyncio.sleep(self._options.read_for / 20)
                row["progress"] = step / 20
            row["progress"] = 0.0
            if self._options.prefill_tps is not None:
                await asyncio.sleep(len(prompt) / self._options.prefill_tps)
            pace = _pace(self._options)
            for token in tokens:
                await asyncio.sleep(next(pace))
                if self._wedge in ("dead-thread", "deadlock", "livelock"):
                    await asyncio.sleep(_LONG_S)
                row["completion_tokens"] += 1
                row["phase"] = "generation"
                self._steps += 1
                yield token
        finally:
            del self._requests[name]
            self._completion_tokens += row["completion_tokens"]

    async def _chat(self, request: Any, send: Any) -> None:
        """Repeat the last message."""
        options = self._options
        if options.chat_status != 200 or self._wedge == "errors":
            error = {"error": {"message": "as told", "type": "fake"}}
            await _send(send, 500 if self._wedge else options.chat_status, error)
            return
        if self._wedge == "error-200":
            message = {"role": "assistant", "content": ""}
            choice = {"index": 0, "message": message, "finish_reason": "error"}
            await _send(send, 200, self._completion("chat.completion", [choice], None))
            return
        if request.get("model") != options.served_model_name:
            message = f"The model `{request.get('model')}` does not exist."
            await _send(send, 404, {"error": {"message": message, "type": "not_found"}})
            return
        if options.capable is not None:
            await self._capable_chat(request, send)
            return
        last = request["messages"][-1]
        prompt = str(last["content"]).split()
        call = fake_messages.called_tool(str(last["content"]))
        if call is not None and request.get("stream"):
            await _send_events(send, self._call_events(*call))
            return
        said = ["Seen:"] if last["role"] == "tool" else ["You", options.says]
        tokens = [*said, *prompt][: request.get("max_tokens") or None]
        usage = {
            "prompt_tokens": len(prompt),
            "completion_tokens": len(tokens),
            "total_tokens": len(prompt) + len(tokens),
        }
        if request.get("stream"):
            await _send_events(send, self._events(prompt, tokens, usage))
        else:
            words = [token async for token in self._work(prompt, tokens)]
            message = {"role": "assistant", "content": " ".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            await _send(send, 200, self._completion("chat.completion", [choice], usage))

    async def _capable_chat(self, request: Any, send: Any) -> None:
        """Answer as a model fit for agents."""
        said = capable_model.answer(request, self._options.capable)
        prompt = _words(request["messages"])
        limit = request.get("max_tokens") or sys.maxsize
        tokens = capable_model.words_of(said)[:limit]
        usage = {
            "prompt_tokens": len(prompt),
            "completion_tokens": len(tokens),
            "total_tokens": len(prompt) + len(tokens),
        }
        ending = "tool_calls" if said.calls else "stop"
        if not request.get("stream"):
            async for _ in self._work(prompt, tokens):
                pass
            choice = {"index": 0, "message": capable_model.chat(said), "finish_reason": ending}
            await _send(send, 200, self._completion("chat.completion", [choice], usage))
            return

        async def events() -> AsyncIterator[str]:
            kind = "chat.completion.chunk"
            deltas = list(islice(capable_model.chat_deltas(said), limit))
            first = {"index": 0, "delta": {"role": "assistant"}}
            yield json.dumps(self._completion(kind, [first], None))
            at = 0
            async for _ in self._work(prompt, [words for words, _ in deltas]):
                choice = {"index": 0, "delta": deltas[at][1]}
                at += 1
                yield json.dumps(self._completion(kind, [choice], None))
            last: dict[str, object] = {"index": 0, "delta": {}, "finish_reason": ending}
            yield json.dumps(self._completion(kind, [last], usage))
            yield "[DONE]"

        await _send_events(send, events())

    async def _message(self, request: Any, send: Any) -> None:
        """Answer in Anthropic's API."""
        if self._options.capable is not None:
            await self._capable_message(request, send)
        else:
            await _send_events(send, _named(fake_messages.events(request)))

    async def _capable_message(self, request: Any, send: Any) -> None:
        """The same in Anthropic's API."""
        said = capable_model.answer(request, self._options.capable)
        prompt, tokens = _words(request["messages"]), capable_model.words_of(said)
        reason = "stop_sequence" if said.stopped_by else "end_turn"
        reason = "tool_use" if said.calls else reason
        ending = {"stop_reason": reason, "stop_sequence": said.stopped_by}
        message: dict[str, object] = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": request["model"],
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": len(prompt), "output_tokens": len(tokens)},
        }
        if not request.get("stream"):
            async for _ in self._work(prompt, tokens):
                pass
            await _send(send, 200, {**message, **ending, "content": capable_model.blocks(said)})
            return

        async def events() -> AsyncIterator[str]:
            yield _named_event("message_start", {"message": message})
            async for _ in self._work(prompt, tokens):
                pass
            for name, event in capable_model.block_events(said):
                yield _named_event(name, event)
            usage = {"output_tokens": len(tokens)}
            yield _named_event("message_delta", {"delta": ending, "usage": usage})
            yield _named_event("message_stop", {})

        await _send_events(send, events())

    def _completion(
        self, kind: str, choices: Sequence[Mapping[str, object]], usage: dict[str, int] | None
    ) -> dict[str, object]:
        return {
            "id": f"chatcmpl-{os.getpid()}",
            "object": kind,
            "created": int(time.time()),
            "model": self._options.served_model_name,
            "choices": choices,
            "usage": usage,
        }

    async def _call_events(self, name: str, arguments: object) -> AsyncIterator[str]:
        """A call of a tool, as an answer of its own."""
        function = {"name": name, "arguments": json.dumps(arguments)}
        call = {"index": 0, "id": "call_1", "type": "function", "function": function}
        first: dict[str, object] = {"index": 0, "delta": {"tool_calls": [call]}}
        last: dict[str, object] = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
        for choice in (first, last):
            yield json.dumps(self._completion("chat.completion.chunk", [choice], None))
        yield "[DONE]"

    async def _events(
        self, prompt: Sequence[str], tokens: Sequence[str], usage: dict[str, int]
    ) -> AsyncIterator[str]:
        kind, said = "chat.completion.chunk", ""
        opening = {"index": 0, "delta": {"role": "assistant"}}
        yield json.dumps(self._completion(kind, [opening], None))
        async for token in self._work(prompt, tokens):
            delta = {"content": f" {token}" if said else token}
            said = token
            yield json.dumps(self._completion(kind, [{"index": 0, "delta": delta}], None))
        last: dict[str, object] = {"index": 0, "delta": {}, "finish_reason": "stop"}
        yield json.dumps(self._completion(kind, [last], usage))
        yield "[DONE]"


def _pace(options: argparse.Namespace) -> Iterator[float]:
    """How long to wait before each token."""
    varies = options.paced
    if varies is None:
        yield from repeat(options.token_delay)
        return
    delay = options.token_delay * random.gauss(1, varies)
    began = time.monotonic()
    for at in count(1):
        yield max(0.0, began + at * delay - time.monotonic())


def _row(name: str, prompt_tokens: int) -> dict[str, Any]:
    return {
        "request_id": name,
        "status": "running",
        "phase": "prefill",
        "prompt_tokens": prompt_tokens,
        "completion_tokens": 0,
        "progress": 0.0,
    }


async def _read(receive: Any) -> bytes:
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return body


async def _start(send: Any, status: int, kind: str, length: int | None = None) -> None:
    headers = [(b"content-type", kind.encode())]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _send(send: Any, status: int, document: object) -> None:
    body = json.dumps(document).encode()
    await _start(send, status, _JSON, len(body))
    await send({"type": "http.response.body", "body": body})


async def _named(events: Iterable[tuple[str, Mapping[str, object]]]) -> AsyncIterator[str]:
    """Events that carry their name twice, as Anthropic's do."""
    for name, event in events:
        yield _named_event(name, event)


def _named_event(name: str, event: Mapping[str, object]) -> str:
    return f"event: {name}\ndata: {json.dumps({'type': name, **event})}"


def _words(messages: Any) -> list[str]:
    """What a conversation is counted as: a token a word."""
    return json.dumps(messages, ensure_ascii=False).split()


async def _send_events(send: Any, events: AsyncIterator[str]) -> None:
    await _start(send, 200, "text/event-stream")
    async for event in events:
        line = event if event.startswith("event:") else f"data: {event}"
        body = f"{line}\n\n".encode()
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
