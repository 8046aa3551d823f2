"""`/v1/embeddings`: what engines leave out of it.

They answer with lists of numbers whatever `encoding_format` says, of which OpenAI's client for
Node.js makes zeros; they know no `dimensions`, and take thousands of texts in one piece, so that
others wait for minutes. Checked against mlx_vlm.server 0.7.10 and vllm-mlx 0.6.0 (decision 0097).
"""

import math
from array import array
from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Any, Literal, override

import msgspec

from mlx_gateway.errors import UpstreamFailedError
from mlx_gateway.fields import Fields, invalid, list_in
from mlx_gateway.protocols.api import Api, Call, decoded_answer
from mlx_gateway.protocols.checks import checked, positive
from mlx_gateway.protocols.events import Usage
from mlx_gateway.protocols.texts import AnsweredPiece, Texts, refuse_too_many
from mlx_gateway.settings import ModelSettings, Role


class Embeddings(Api):
    """OpenAI's API: vectors of texts."""

    roles: frozenset[Role] = frozenset({Role.EMBEDDING})

    @override
    def streams(self, fields: Fields) -> bool:
        return False

    @override
    def read(self, fields: Fields, *, sees_images: bool | None) -> Call:
        texts = _texts(fields)
        checked(fields, _Request)
        positive(fields, "dimensions")
        sent = fields.without("encoding_format", "dimensions")

        def asked(some: Sequence[str]) -> Fields:
            return sent.with_values(input=some)

        return Call(fields, asked=fields, texts=Texts(texts, asked, can_wait=len(texts) > 1))

    @override
    def require(self, fields: Fields, model: ModelSettings) -> None:
        """Return if the model's vectors may be as short as asked.

        Raises:
            ApiError: When they may not.
        """
        asked = positive(fields, "dimensions")
        if asked is None or asked == model.dimensions:
            return
        longest = "" if model.dimensions is None else f" of {model.dimensions} dimensions"
        if not model.shortens:
            raise invalid(
                f"`dimensions` is not for this model: its vectors{longest} can't be shortened.",
                param="dimensions",
            )
        if model.dimensions is not None and asked > model.dimensions:
            raise invalid(
                f"`dimensions` is more than this model's vectors have ({model.dimensions}).",
                param="dimensions",
            )

    @override
    def joined(self, answers: Sequence[AnsweredPiece], call: Call) -> tuple[bytes, Usage]:
        asked = call.asked or call.fields
        length: int | None = asked.get("dimensions")
        is_packed = asked.get("encoding_format") == "base64"
        vectors: list[Any] = []
        read = [_read(each) for each in answers]
        for vector in (row.embedding for answer in read for row in answer.in_order()):
            shortened = vector if length is None else unit_vector(vector[:length])
            vectors.append(packed(shortened) if is_packed else shortened)
        tokens = sum_of(answer.usage.prompt_tokens for answer in read)
        document = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector}
                for index, vector in enumerate(vectors)
            ],
            "model": read[0].model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return msgspec.json.encode(document), Usage(prompt_tokens=tokens)


def unit_vector(vector: Sequence[float]) -> list[float]:
    """The vector at length 1, as embedders give them; one without a direction stays as it is."""
    norm = math.hypot(*vector)
    return [each / norm for each in vector] if norm > 0 else list(vector)


def packed(vector: Sequence[float]) -> str:
    """The vector as OpenAI's `base64`: 32-bit floats, the lowest byte first."""
    return b64encode(array("f", vector).tobytes()).decode()


def sum_of(counts: Iterator[int | None]) -> int | None:
    """The sum; None where one is unknown."""
    known = list(counts)
    return None if None in known else sum(each for each in known if each is not None)


def _texts(fields: Fields) -> tuple[str, ...]:
    """The texts to embed.

    Raises:
        ApiError: When there are none, too many, an empty one, or something else than texts.
    """
    given: object = fields.get("input")
    texts: list[object] = list_in(given) or [given]
    numbers: list[object] = list_in(texts[0]) or texts
    if any(type(each) is int for each in numbers):
        raise invalid(
            "`input` must be text. Token IDs belong to the client's own tokenizer, and mean other "
            "words to this model (in LangChain: check_embedding_ctx_length=False).",
            param="input",
        )
    if not all(isinstance(each, str) for each in texts):
        raise invalid("`input` must be a string or a list of strings.", param="input")
    if not all(texts):
        raise invalid("`input` contains an empty string, which has no embedding.", param="input")
    refuse_too_many(texts, "input")
    return tuple(str(each) for each in texts)


def _read(answer: AnsweredPiece) -> "_Answer":
    """An engine's answer, with one vector for each text.

    Raises:
        UpstreamFailedError: When it is anything else.
    """
    found = decoded_answer(answer.body, _Answer, "one with embeddings")
    if len(found.data) != answer.texts:
        raise UpstreamFailedError(f"it gave {len(found.data)} vectors for {answer.texts} texts")
    return found


class _Request(msgspec.Struct):
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class _Row(msgspec.Struct):
    embedding: list[float]
    index: int


class _Tokens(msgspec.Struct):
    prompt_tokens: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Row]
    model: str = ""
    usage: _Tokens = msgspec.field(default_factory=_Tokens)

    def in_order(self) -> list[_Row]:
        return sorted(self.data, key=lambda row: row.index)
