"""What is sent: requests, and which optional fields of a chat a server takes; pure decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

JSON_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """A request that isn't of chat, as it goes out.

    Attributes:
        path: Behind the base URL, as `/embeddings`.
    """

    path: str
    content: bytes
    content_type: str = JSON_TYPE


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request of the workload.

    Attributes:
        prompt: What the user says, where no conversation is given.
        max_tokens: Where generation stops at the latest.
        seed: Sent for sampling; with temperature 0 most servers ignore it.
        extra: Further fields of the body, as `{"chat_template_kwargs": {…}}`.
        messages: A whole conversation, in the place of the prompt.
    """

    prompt: str
    max_tokens: int
    seed: int = 0
    extra: Mapping[str, object] = field(default_factory=dict[str, object])
    messages: Sequence[Mapping[str, object]] = ()


@dataclass(frozen=True, slots=True)
class Dialect:
    """The optional fields that a request carries.

    Attributes:
        ignore_eos: Ask the server to generate up to the limit (vLLM's field).
        temperature: Send temperature 0; some reasoning models refuse it.
    """

    stream_options: bool = True
    ignore_eos: bool = True
    seed: bool = True
    temperature: bool = True
    limit_field: str = "max_tokens"


PLAIN = Dialect(stream_options=False, ignore_eos=False, seed=False, temperature=False)
"""The dialect that any server understands."""


def build_body(dialect: Dialect, model: str, request: ChatRequest) -> dict[str, object]:
    """The JSON body of one streaming chat request."""
    body: dict[str, object] = {
        "model": model,
        "messages": request.messages or [{"role": "user", "content": request.prompt}],
        "stream": True,
        dialect.limit_field: request.max_tokens,
    }
    if dialect.stream_options:
        body["stream_options"] = {"include_usage": True}
    if dialect.ignore_eos:
        body["ignore_eos"] = True
    if dialect.seed:
        body["seed"] = request.seed
    if dialect.temperature:
        body["temperature"] = 0
    return {**body, **request.extra}


def next_dialect(dialect: Dialect, status: int | None, body: str) -> Dialect | None:
    """The dialect to try after a refusal, or None where there is nothing left to try.

    Only 400 and 422 speak of fields. A field that the answer names is dropped (the limit is
    renamed); where it names none, everything optional goes at once.
    """
    if status not in {400, 422}:
        return None
    if "max_completion_tokens" in body and dialect.limit_field == "max_tokens":
        return replace(dialect, limit_field="max_completion_tokens")
    for name in ("stream_options", "ignore_eos", "seed", "temperature"):
        if name in body and getattr(dialect, name):
            return replace(dialect, **{name: False})
    plain = replace(PLAIN, limit_field=dialect.limit_field)
    return plain if dialect != plain else None
