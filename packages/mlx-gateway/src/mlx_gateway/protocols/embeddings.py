"""`/v1/embeddings`: what engines leave out of it.

They answer with lists of numbers whatever `encoding_format` says, of which OpenAI's client for
Node.js makes zeros; they know no `dimensions`, and take thousands of texts in one piece, so that
others wait for minutes. Checked against mlx_vlm.server 0.7.10 and vllm-mlx 0.6.0 (decision 0097).
"""

import math
from array import array
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal, NamedTuple, override

import msgspec

from mlx_gateway.errors import UpstreamFailedError
from mlx_gateway.fields import Fields, invalid, list_in
from mlx_gateway.protocols.api import Api, Call, decoded_answer
from mlx_gateway.protocols.checks import checked, positive
from mlx_gateway.protocols.events import Usage
from mlx_gateway.protocols.texts import Texts, refuse_too_many
from mlx_gateway.settings import ModelSettings, Role


class Vectors(NamedTuple):
    """The vectors of some texts, in their order.

    Attributes:
        rows: Each as the client gets it: JSON of a list of numbers, or of a text in base64.
        tokens: How many were read; None where that is unknown.
    """

    rows: list[msgspec.Raw]
    model: str
    tokens: int | None

    @staticmethod
    def of(parts: Sequence["Vectors"]) -> "Vectors":
        """The vectors of all texts."""
        rows = [row for part in parts for row in part.rows]
        return Vectors(rows, parts[0].model, sum_of(part.tokens for part in parts))


class Embeddings(Api):
    """OpenAI's API: vectors of texts."""

    roles: frozenset[Role] = frozenset({Role.EMBEDDING})

    @override
    def streams(self, fields: Fields) -> bool:
        return False

    @override
    def read(self, fields: Fields, *, sees_images: bool | None) -> Call:
        return Call(fields, texts=texts_to_embed(fields, _document))

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
                f"This model doesn't support `dimensions`: its vectors{longest} can't be "
                "shortened.",
                param="dimensions",
            )
        if model.dimensions is not None and asked > model.dimensions:
            raise invalid(
                f"`dimensions` is more than this model's vectors have ({model.dimensions}).",
                param="dimensions",
            )


def texts_to_embed(
    fields: Fields, joined: Callable[[Vectors], tuple[bytes, Usage]]
) -> Texts[Vectors]:
    """The texts of a request with OpenAI's fields.

    Args:
        joined: What the client gets for the vectors, and what they used.

    Raises:
        ApiError: When it breaks the API's rules.
    """
    texts = _texts(fields)
    packs = checked(fields, _Request).encoding_format == "base64"
    sent = fields.without("encoding_format", "dimensions")
    return Texts(
        texts,
        "input",
        asked=lambda some: sent.with_values(input=some),
        read=partial(_read, length=positive(fields, "dimensions"), packs=packs),
        joined=lambda parts: joined(Vectors.of(parts)),
        can_wait=len(texts) > 1,
    )


def unit_vector(vector: Sequence[float]) -> list[float]:
    """The vector at length 1, as embedders give them; one without a direction stays as it is."""
    norm = math.hypot(*vector)
    return [each / norm for each in vector] if norm > 0 else list(vector)


def packed(vector: Sequence[float]) -> str:
    """The vector as OpenAI's `base64`: 32-bit floats, the lowest byte first."""
    return b64encode(array("f", vector).tobytes()).decode()


def sum_of(counts: Iterable[int | None]) -> int | None:
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


def _read(body: bytes, texts: int, *, length: int | None, packs: bool) -> Vectors:
    """The vectors in an engine's answer for so many texts, made ready for the client.

    Those of thousands of texts take seconds, so that each answer's are made as it comes.

    Args:
        length: How long each must be; None for as long as the model makes them.
        packs: Whether the client wants them in base64.

    Raises:
        UpstreamFailedError: When it isn't one vector for each text.
    """
    found = decoded_answer(body, _Answer, "one with embeddings")
    if len(found.data) != texts:
        raise UpstreamFailedError(f"it gave {len(found.data)} vectors for {texts} texts")
    rows: list[msgspec.Raw] = []
    for row in sorted(found.data, key=lambda row: row.index):
        vector = row.embedding if length is None else unit_vector(row.embedding[:length])
        rows.append(msgspec.Raw(msgspec.json.encode(packed(vector) if packs else vector)))
    return Vectors(rows, found.model, found.usage.prompt_tokens)


def _document(vectors: Vectors) -> tuple[bytes, Usage]:
    document = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": row}
            for index, row in enumerate(vectors.rows)
        ],
        "model": vectors.model,
        "usage": {"prompt_tokens": vectors.tokens, "total_tokens": vectors.tokens},
    }
    return msgspec.json.encode(document), Usage(prompt_tokens=vectors.tokens)


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
