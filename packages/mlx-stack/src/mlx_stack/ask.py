"""One question, one streamed answer, through the gateway."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx

from mlx_stack.errors import StackError
from mlx_stack.gateway.endpoint import Endpoint, require_key

_CONNECT_TIMEOUT_S = 5.0
_TIER_HEADER = "x-mlx-stack-tier"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        text: The content, without reasoning.
        reasoning: What a thinking model thought, or "".
        tier: Who answered; None where the endpoint doesn't say.
        ttft_s: From sending the request to the first piece of the answer; None for an empty one.
        seconds: From sending the request to the end.
        completion_tokens: The server's own count, or None where it gave none.
    """

    question: str
    model: str
    text: str
    reasoning: str
    tier: str | None
    ttft_s: float | None
    seconds: float
    completion_tokens: int | None

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
        }


def ask(
    endpoint: Endpoint,
    question: str,
    *,
    model: str,
    timeout_s: float = 600.0,
    max_tokens: int | None = None,
    temperature: float | None = None,
    on_text: Callable[[str], None] = lambda _: None,
) -> Answer:
    """Ask a model one question and stream its answer.

    Args:
        timeout_s: How long the first byte may take, and each pause after it.
        max_tokens: The longest answer; None leaves it to the engine.
        temperature: 0 for the likeliest answer; None leaves it to the engine.

    Raises:
        StackError: The endpoint refused, or gave no answer.
    """
    body: dict[str, object] = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
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
                raise StackError(f"{url} refused the question: {_complaint(response)}")
            return _collect(response, question, model, started, on_text)
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
) -> Answer:
    """The whole answer of a response that streams server-sent events."""
    text: list[str] = []
    reasoning: list[str] = []
    first: float | None = None
    completion_tokens: int | None = None
    for event in _events(response):
        if "error" in event:
            raise StackError(f"The model failed: {event['error'].get('message', event)}")
        if event.get("usage"):
            completion_tokens = event["usage"].get("completion_tokens")
        for choice in event.get("choices", ()):
            delta: dict[str, str | None] = choice.get("delta") or {}
            piece, thought = delta.get("content"), delta.get("reasoning_content")
            if (piece or thought) and first is None:
                first = time.monotonic()
            if thought:
                reasoning.append(thought)
            if piece:
                text.append(piece)
                on_text(piece)
    return Answer(
        question=question,
        model=model,
        text="".join(text),
        reasoning="".join(reasoning),
        tier=response.headers.get(_TIER_HEADER),
        ttft_s=None if first is None else first - started,
        seconds=time.monotonic() - started,
        completion_tokens=completion_tokens,
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


def _complaint(response: httpx.Response) -> str:
    """What an error response says, in its own words where it has any."""
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = response.text.strip()[:300]
    return f"HTTP {response.status_code}: {message}"
