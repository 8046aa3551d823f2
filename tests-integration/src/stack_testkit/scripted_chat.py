"""A stand-in for mlx-lm behind its guard: Chat Completions, a count of prompts, and no other API.

It follows the orders of `scripted_model` without a model. What reaches the server is cleaned by the
product's own `cleaned`. A token is three characters; a call is told once it is whole, and thoughts
apart from the text, as mlx-lm does.
"""

import json
import re
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from itertools import repeat
from typing import Any, override

from mlx_stack.engines.mlx_lm_start import UnservableError, cleaned
from stack_testkit.json_handler import JsonHandler

NAME = "scripted"
_LETTERS = 3
_VOCABULARY = 50_000
_HARMLESS = str.maketrans("<>{}", "\u2039\u203a()")
_ORDER = re.compile(
    r"^(?:Wait ([0-9.]+) s\. ?)?(Repeat: |Show the prompt\.|Talk forever\.)", re.MULTILINE
)
_TAGS = re.compile(
    r"<think>(?P<thought>.*?)</think>|<tool_call>\s*(?P<call>.*?)\s*</tool_call>", re.DOTALL
)
_OPEN = re.compile(r"<(think|tool_call)>(?!.*</\1>)|<[a-z/_]*$", re.DOTALL)
"""A tag that has no end yet, or may become one."""


@contextmanager
def scripted_chat() -> Generator[str]:
    """The stand-in, at the URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _Handler(JsonHandler):
    @override
    def get(self) -> None:
        self.send_json(200, {"object": "list", "data": [{"id": NAME, "object": "model"}]})

    @override
    def post(self, request: Any) -> None:
        try:
            asked = cleaned(json.dumps(request).encode(), NAME, _VOCABULARY)
            prompt = _prompt(asked)
        except UnservableError as refusal:
            error = {"message": str(refusal), "type": "invalid_request_error"}
            self.send_json(refusal.status, {"error": error})
            return
        read = len(prompt) // _LETTERS
        if self.path == "/v1/messages/count_tokens":
            self.send_json(200, {"input_tokens": read})
        elif self.path != "/v1/chat/completions":
            self.send_json(404, {"error": {"message": "no such API", "type": "not_found"}})
        elif asked.get("stream"):
            self._tell(asked, prompt, read)
        else:
            tokens, finish = _said(asked, prompt)
            message = _pieces("".join(tokens), is_whole=True)[0]
            finish = "tool_calls" if message.get("tool_calls") and finish == "stop" else finish
            choice = {"index": 0, "message": {"content": None, **message}, "finish_reason": finish}
            usage = _usage(read, len(tokens))
            self.send_json(200, {"id": "c", "model": NAME, "choices": [choice], "usage": usage})

    def _tell(self, asked: dict[str, Any], prompt: str, read: int) -> None:
        self.start_events()
        self.wfile.write(b": keepalive 1/2\n\n")
        tokens, finish = _said(asked, prompt)
        rest, made = "", 0
        for token in tokens:
            delta, rest = _pieces(rest + token, is_whole=False)
            for call in delta.get("tool_calls", ()):
                call["index"], made = made, made + 1
            if delta:
                self._chunk(delta)
        if rest:
            self._chunk({"content": rest})
        self._chunk({}, "tool_calls" if made and finish == "stop" else finish)
        if asked.get("stream_options"):
            self._event({"choices": [], "usage": _usage(read, len(tokens))})
        self.wfile.write(b"data: [DONE]\n\n")

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> None:
        delta = {"role": "assistant", **delta}
        self._event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    def _event(self, document: dict[str, Any]) -> None:
        said = json.dumps({"id": "c", "model": NAME, **document})
        self.wfile.write(f"data: {said}\n\n".encode())


def _prompt(asked: dict[str, Any]) -> str:
    """What the scripted model's chat template makes of a request; a text alone is itself."""
    if not asked.get("messages"):
        return str(asked.get("system") or "")
    turns: list[str] = []
    for message in asked["messages"]:
        thoughts = message.get("reasoning_content")
        content = message.get("content") or ""
        if not isinstance(content, str):
            content = "".join(part["text"] for part in content)
        said = f"<think>{thoughts}</think>{content}" if thoughts else content
        said += "".join(
            f"\n<tool_call>{json.dumps(call['function'])}</tool_call>"
            for call in message.get("tool_calls", ())
        )
        turns.append(f"<|im_start|>{message['role']}\n{said}<|im_end|>\n")
    if asked.get("tools"):
        turns.append("<|im_start|>tools\n" + "\n".join(map(json.dumps, asked["tools"])))
    return "".join(turns)


def _said(asked: dict[str, Any], prompt: str) -> tuple[list[str], str]:
    """The tokens of an answer, and why it ends."""
    last = next(each for each in reversed(asked["messages"]) if each["role"] in ("user", "tool"))
    text = last.get("content") or ""
    told = _ORDER.search(text)
    order = told[2] if told and last["role"] == "user" else ""
    if told and told[1]:
        time.sleep(float(told[1]))
    answer: str | None = "Fine."
    if last["role"] == "tool":
        answer = "Seen: " + text
    elif told and order == "Repeat: ":
        answer = text[told.end() :].partition("\nOver.")[0]
    elif order == "Show the prompt.":
        answer = prompt.translate(_HARMLESS)
    elif order == "Talk forever.":
        answer = None
    if answer is not None and "response_format" in asked:
        answer = _held_to(asked["response_format"], answer)
    tokens: list[str] = []
    for token in repeat(" word") if answer is None else _tokens(answer):
        if len(tokens) == asked.get("max_tokens", 500):
            return tokens, "length"
        tokens.append(token)
        if any(stop in "".join(tokens) for stop in asked.get("stop", ())):
            break
    return tokens, "stop"


def _held_to(response_format: dict[str, Any], answer: str) -> str:
    """The answer if it is JSON, else a short one with the schema's fields, as the engine does."""
    try:
        json.loads(answer)
    except ValueError:
        schema = response_format.get("json_schema", {}).get("schema", {})
        return json.dumps(dict.fromkeys(schema.get("required", ()), ""))
    return answer


def _tokens(text: str) -> list[str]:
    return [text[at : at + _LETTERS] for at in range(0, len(text), _LETTERS)]


def _pieces(text: str, *, is_whole: bool) -> tuple[dict[str, Any], str]:
    """What a text says apart: thoughts, text and calls; and what of it isn't certain yet."""
    held = None if is_whole else _OPEN.search(text)
    rest = text[held.start() :] if held else ""
    text = text.removesuffix(rest)
    delta: dict[str, Any] = {}
    for found in _TAGS.finditer(text):
        if found["thought"] is not None:
            delta["reasoning_content"] = found["thought"]
        else:
            function = json.loads(found["call"])
            function["arguments"] = json.dumps(function["arguments"])
            calls = delta.setdefault("tool_calls", [])
            calls.append({"id": f"call_{len(calls)}", "type": "function", "function": function})
    if content := _TAGS.sub("", text):
        delta["content"] = content
    return delta, rest


def _usage(read: int, written: int) -> dict[str, int]:
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
    }
