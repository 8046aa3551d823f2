"""One small request that shows whether a model does its work, whatever its work is."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from mlx_bench.roles.pictures import Colour, data_url, png
from mlx_catalog import ModelRole

_PIXELS = 224
"""As few a side as any model takes."""
_COLOURS: tuple[Colour, ...] = ((255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 255))
_DOCUMENTS = ("The capital of France is Paris.", "Bananas are yellow.")


@dataclass(frozen=True, slots=True)
class Proof:
    """What to ask, and what is right about the answer.

    Attributes:
        what: What is asked for, in words.
        path: Where.
        body: The request, but for the model's name.
        check: What is wrong with the body of an answer of 200; "" where nothing is.
    """

    what: str
    path: str
    body: Mapping[str, object]
    check: Callable[[bytes], str]

    def request_body(self, model: str) -> bytes:
        """The body of the request to `model`."""
        return msgspec.json.encode({"model": model, **self.body})


def proof_of(role: ModelRole, dimensions: int | None = None) -> Proof:
    """The proof for a model of that role.

    Args:
        dimensions: How long its vectors must be, where that is known.
    """
    if role is ModelRole.EMBEDDING:
        return Proof(
            "a vector",
            "/v1/embeddings",
            MappingProxyType({"input": [_DOCUMENTS[0]]}),
            lambda answer: _wrong_vector(answer, dimensions),
        )
    if role is ModelRole.RERANK:
        return Proof(
            "an order of two documents",
            "/v1/rerank",
            MappingProxyType({"query": "Where is Paris?", "documents": _DOCUMENTS}),
            _wrong_order,
        )
    content: object = "Hi"
    if role is ModelRole.VISION:
        picture = data_url(png(_PIXELS, _COLOURS))
        content = [
            {"type": "image_url", "image_url": {"url": picture}},
            {"type": "text", "text": "Describe this."},
        ]
    messages = [{"role": "user", "content": content}]
    return Proof(
        "one token about an image" if role is ModelRole.VISION else "one token",
        "/v1/chat/completions",
        MappingProxyType({"messages": messages, "max_tokens": 1}),
        _wrong_chat,
    )


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Chat(msgspec.Struct):
    choices: list[_Choice]


class _Vector(msgspec.Struct):
    embedding: list[float]


class _Vectors(msgspec.Struct):
    data: list[_Vector]


class _Place(msgspec.Struct):
    index: int
    relevance_score: float


class _Order(msgspec.Struct):
    results: list[_Place]


def _decoded[T](answer: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _wrong_chat(answer: bytes) -> str:
    said = _decoded(answer, _Chat)
    if said is None:
        return "what it answers isn't a chat completion"
    reasons = [choice.finish_reason for choice in said.choices]
    return "" if reasons and "error" not in reasons else 'finish_reason "error"'


def _wrong_vector(answer: bytes, dimensions: int | None) -> str:
    said = _decoded(answer, _Vectors)
    if said is None or len(said.data) != 1:
        return "what it answers isn't a vector"
    vector = said.data[0].embedding
    if dimensions is not None and len(vector) != dimensions:
        return f"its vector has {len(vector)} numbers instead of {dimensions}"
    length = math.hypot(*vector)
    return "" if math.isfinite(length) and length > 0 else "its vector has no direction"


def _wrong_order(answer: bytes) -> str:
    said = _decoded(answer, _Order)
    if said is None or sorted(each.index for each in said.results) != [0, 1]:
        return "what it answers isn't an order of the documents"
    scores = [each.relevance_score for each in said.results]
    is_order = all(map(math.isfinite, scores)) and scores == sorted(scores, reverse=True)
    return "" if is_order else "its scores aren't in order"
