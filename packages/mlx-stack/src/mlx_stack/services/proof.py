"""One small request that shows whether a model does its work, whatever its work is."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from mlx_bench.roles.pictures import Colour, data_url, png
from mlx_bench.roles.sounds import wav
from mlx_catalog import ModelRole
from mlx_gateway.form import encode_form

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
        sound: What goes with it, in a form; empty where nothing does.
        check: What is wrong with the body of an answer of 200; "" where nothing is.
    """

    what: str
    path: str
    body: Mapping[str, object]
    check: Callable[[bytes], str]
    sound: bytes = b""

    def request(self, model: str) -> tuple[str, bytes]:
        """The content type and the body of the request to `model`."""
        fields = {"model": model, **self.body}
        if self.sound:
            values = {name: str(value) for name, value in fields.items()}
            return encode_form(values, memoryview(self.sound))
        return "application/json", msgspec.json.encode(fields)


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
    if role is ModelRole.SPEECH_TO_TEXT:
        return Proof(
            "the words of a sound",
            "/v1/audio/transcriptions",
            MappingProxyType({"language": "en", "temperature": 0}),
            _wrong_words,
            _tone(),
        )
    if role is ModelRole.TEXT_TO_SPEECH:
        return Proof(
            "the sound of a word",
            "/v1/audio/speech",
            MappingProxyType({"input": "Hi.", "response_format": "pcm", "max_tokens": 100}),
            _wrong_sound,
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


class _Words(msgspec.Struct):
    text: str


def _tone() -> bytes:
    """A WAV file with half a second of a tone."""
    period = [round(8000 * math.sin(math.tau * each / 40)) for each in range(40)]
    return wav(b"".join(each.to_bytes(2, "little", signed=True) for each in period) * 200)


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


def _wrong_words(answer: bytes) -> str:
    # a tone has no words, so that none are right
    return "" if _decoded(answer, _Words) is not None else "what it answers isn't a transcription"


def _wrong_sound(answer: bytes) -> str:
    if not answer or len(answer) % 2:
        return "what it answers isn't a sound"
    return "" if any(answer) else "what it says is silent"
