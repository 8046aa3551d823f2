"""Questions through the gateway, their streamed answers, and the conversation that they make."""

import base64
import json
import mimetypes
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import msgspec

from mlx_catalog.bounded_file import read_bounded
from mlx_gateway.protocols.media import LONGEST_IMAGE_BYTES, image_problem
from mlx_gateway.request_body import LONGEST_BODY_BYTES
from mlx_stack import atomic_file, json_file
from mlx_stack.errors import StackError, UsageError
from mlx_stack.gateway.endpoint import Endpoint, require_key
from mlx_stack.home import Home

_CONNECT_TIMEOUT_S = 5.0
_TIER_HEADER = "x-mlx-stack-tier"
_FALLBACK_HEADER = "x-mlx-stack-fallback-from"
_CUT_OFF = "length"
"""The reason to end that means: the answer would have gone on."""


class ChatMessage(msgspec.Struct, frozen=True):
    """What was said by `system`, `user` or `assistant`."""

    role: str
    content: str


class ChatHistory(msgspec.Struct, frozen=True, kw_only=True):
    """What a question continues, as `conversation.json` has it.

    Attributes:
        model: The model name that was asked last.
    """

    schema_version: int = 1
    model: str
    messages: tuple[ChatMessage, ...] = ()

    def with_answer(self, answer: "ModelAnswer") -> "ChatHistory":
        """The conversation after one more question and its answer."""
        said = (ChatMessage("user", answer.question), ChatMessage("assistant", answer.text))
        return msgspec.structs.replace(self, messages=(*self.messages, *said))


def load_conversation(home: Home) -> ChatHistory | None:
    """The last conversation; None where there is none.

    Raises:
        InvalidFileError: When its file is damaged or of a newer version.
    """
    hint = "Remove the file; the next `mlx-stack ask` starts a new conversation."
    return json_file.read(home.conversation, ChatHistory, hint=hint)


def save_conversation(home: Home, conversation: ChatHistory) -> None:
    """Keep a conversation for the next question, readable by its owner only."""
    home.create()
    json_file.write(home.conversation, conversation, mode=atomic_file.PRIVATE)


def read_text(path: Path) -> str:
    """The text of a file, to be part of a question.

    Raises:
        UsageError: It is not UTF-8 text.
        OSError: It can't be read, or the gateway would refuse so much.
    """
    try:
        return read_bounded(path, LONGEST_BODY_BYTES).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text.") from error


def image_address(picture: Path) -> str:
    """A picture as requests carry it; what a server would refuse isn't even sent.

    Raises:
        UsageError: It is no picture, or too large.
    """
    with picture.open("rb") as file:
        content = file.read(LONGEST_IMAGE_BYTES + 1)
        size_bytes = os.fstat(file.fileno()).st_size
    problem = image_problem(content, size_bytes)
    if problem:
        raise UsageError(f"{picture} {problem}.")
    kind = mimetypes.guess_type(picture.name)[0] or ""
    kind = kind if kind.startswith("image/") else "image/png"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """What came back.

    Attributes:
        text: The content, without reasoning.
        reasoning: What a thinking model thought, or "".
        tier: Who answered; None where the endpoint doesn't say.
        ttft_s: From sending the request to the first piece of the answer; None for an empty one.
        seconds: From sending the request to the end.
        completion_tokens: The server's own count, or None where it gave none.
        finish_reason: Why it ended, such as `stop` or `length`; None where the server didn't say.
        instead_of: Who should have answered and could not; None where nobody else should.
    """

    question: str
    model: str
    text: str
    reasoning: str
    tier: str | None
    ttft_s: float | None
    seconds: float
    completion_tokens: int | None
    finish_reason: str | None = None
    instead_of: str | None = None

    @property
    def generation_tps(self) -> float | None:
        """Tokens a second after the first; None where there are too few to say."""
        if self.completion_tokens is None or self.ttft_s is None:
            return None
        took_s = self.seconds - self.ttft_s
        return (
            (self.completion_tokens - 1) / took_s if self.completion_tokens > 1 and took_s else None
        )

    @property
    def is_cut_off(self) -> bool:
        """Whether it ended at the limit of tokens rather than where the model wanted."""
        return self.finish_reason == _CUT_OFF

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {
            "question": self.question,
            "answer": self.text,
            "reasoning": self.reasoning,
            "model": self.model,
            "answered_by": self.tier,
            "ttft_s": self.ttft_s,
            "seconds": self.seconds,
            "completion_tokens": self.completion_tokens,
            "generation_tps": self.generation_tps,
            "finish_reason": self.finish_reason,
        }


def ask(
    endpoint: Endpoint,
    question: str,
    *,
    model: str,
    earlier: Sequence[ChatMessage] = (),
    images: Sequence[str] = (),
    timeout_s: float = 600.0,
    max_tokens: int | None = None,
    temperature: float | None = None,
    on_text: Callable[[str], None] = lambda _: None,
    on_thought: Callable[[str], None] = lambda _: None,
) -> ModelAnswer:
    """Ask a model one question and stream its answer.

    Args:
        earlier: What was said before: a system prompt, questions, answers.
        images: Pictures that belong to the question, as `data:` addresses.
        timeout_s: How long the first byte may take, and each pause after it.
        max_tokens: The longest answer; None leaves it to the engine.
        temperature: 0 for the likeliest answer; None leaves it to the engine.
        on_text: Gets each piece of the answer.
        on_thought: Gets each piece of a thinking model's reasoning.

    Raises:
        StackError: The endpoint refused, or gave no answer.
    """
    pictures = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    content = [{"type": "text", "text": question}, *pictures] if pictures else question
    body: dict[str, object] = {
        "model": model,
        "messages": [
            *({"role": each.role, "content": each.content} for each in earlier),
            {"role": "user", "content": content},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    limits = {"max_tokens": max_tokens, "temperature": temperature}
    body |= {name: value for name, value in limits.items() if value is not None}
    headers = {"Authorization": f"Bearer {require_key(endpoint)}"}
    url = f"{endpoint.base_url}/chat/completions"
    started = time.monotonic()
    timeout = httpx.Timeout(timeout_s, connect=_CONNECT_TIMEOUT_S)
    try:
        with (
            httpx.Client(timeout=timeout, trust_env=False) as client,
            client.stream("POST", url, json=body, headers=headers) as response,
        ):
            if response.status_code != HTTPStatus.OK:
                response.read()
                raise _refusal(response)
            return _collect(response, question, model, started, on_text, on_thought)
    except httpx.ConnectError as error:
        raise StackError(
            f"Nothing answers at {endpoint.base_url}.", hint="`mlx-stack up` starts the stack."
        ) from error
    except httpx.HTTPError as error:
        raise StackError(
            f"The answer from {endpoint.base_url} was cut off: {error}",
            hint="`mlx-stack status` shows which service has a problem, `mlx-stack logs` why.",
        ) from error


def _collect(
    response: httpx.Response,
    question: str,
    model: str,
    started: float,
    on_text: Callable[[str], None],
    on_thought: Callable[[str], None],
) -> ModelAnswer:
    """The whole answer of a response that streams server-sent events."""
    text: list[str] = []
    reasoning: list[str] = []
    first: float | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    for event in _events(response):
        if "error" in event:
            raise StackError(f"The model failed: {event['error'].get('message', event)}")
        if event.get("usage"):
            completion_tokens = event["usage"].get("completion_tokens")
        for choice in event.get("choices", ()):
            finish_reason = choice.get("finish_reason") or finish_reason
            delta: dict[str, str | None] = choice.get("delta") or {}
            piece, thought = delta.get("content"), delta.get("reasoning_content")
            if (piece or thought) and first is None:
                first = time.monotonic()
            if thought:
                reasoning.append(thought)
                on_thought(thought)
            if piece:
                text.append(piece)
                on_text(piece)
    return ModelAnswer(
        question=question,
        model=model,
        text="".join(text),
        reasoning="".join(reasoning),
        tier=response.headers.get(_TIER_HEADER),
        ttft_s=None if first is None else first - started,
        seconds=time.monotonic() - started,
        completion_tokens=completion_tokens,
        finish_reason=finish_reason,
        instead_of=response.headers.get(_FALLBACK_HEADER),
    )


def _events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The JSON documents of a stream of server-sent events, up to `[DONE]`."""
    for line in response.iter_lines():
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        if line.startswith("data:") and data:
            try:
                yield json.loads(data)
            except json.JSONDecodeError as error:
                raise StackError(f"The answer is not JSON: {data[:80]!r}") from error


def _refusal(response: httpx.Response) -> StackError:
    """What an error response says, in its own words where it has any."""
    try:
        message = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        said = response.text.strip()[:300]
        message = f"{response.url} answered with HTTP {response.status_code}: {said}"
    is_ours = response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
    hint = "`mlx-stack doctor` shows what is wrong." if is_ours else None
    return StackError(message, hint=hint)
