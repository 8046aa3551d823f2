"""`/v1/rerank`, which Jina and Cohere made, and `/v2/rerank`, which Cohere's clients ask today.

Both are answered at once: what only one of them has stands next to what both have.
"""

import secrets
from collections.abc import Sequence
from typing import Any, override

import msgspec

from mlx_gateway.errors import UpstreamFailedError
from mlx_gateway.fields import Fields, invalid, list_in, object_in
from mlx_gateway.protocols.api import Api, Call, decoded_answer
from mlx_gateway.protocols.checks import checked, positive
from mlx_gateway.protocols.embeddings import sum_of
from mlx_gateway.protocols.events import Usage
from mlx_gateway.protocols.texts import AnsweredPiece, Texts, refuse_too_many
from mlx_gateway.settings import Role

PATH = "/v1/rerank"
_MOST_OF_A_SEARCH = 64
"""Documents of a search, whose order is needed for the next prompt; more are ranked for later."""


class Rerank(Api):
    """The order of documents by how well they answer a query."""

    roles: frozenset[Role] = frozenset({Role.RERANK})

    @override
    def streams(self, fields: Fields) -> bool:
        return False

    @override
    def read(self, fields: Fields, *, sees_images: bool | None) -> Call:
        query, documents = _query(fields), _documents(fields)
        checked(fields, _Request)
        positive(fields, "top_n")
        if fields.get("rank_fields"):
            raise invalid("`rank_fields` is not supported: send documents as text.",
                          param="rank_fields")  # fmt: skip

        def asked(some: Sequence[str]) -> Fields:
            return Fields({}, 0).with_values(model="", query=query, documents=some)

        can_wait = len(documents) > _MOST_OF_A_SEARCH
        texts = Texts(tuple(documents), asked, read_with_each=len(query), can_wait=can_wait)
        return Call(fields, path=PATH, asked=fields, texts=texts)

    @override
    def joined(self, answers: Sequence[AnsweredPiece], call: Call) -> tuple[bytes, Usage]:
        asked = call.asked or call.fields
        documents = _documents(asked)
        read = [_read(each) for each in answers]
        results: list[dict[str, Any]] = []
        before = 0
        for piece, answer in zip(answers, read, strict=True):
            results += (
                {"index": each.index + before, "relevance_score": each.score}
                for each in answer.results
            )
            before += piece.texts
        results.sort(key=lambda each: (-each["relevance_score"], each["index"]))
        del results[asked.get("top_n") or len(results) :]
        if asked.flag("return_documents"):
            for each in results:
                each["document"] = {"text": documents[each["index"]]}
        tokens = sum_of(answer.usage.total_tokens for answer in read)
        document = {
            "id": secrets.token_hex(16),
            "object": "list",
            "model": read[0].model,
            "results": results,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "meta": {"tokens": {"input_tokens": tokens}},
        }
        return msgspec.json.encode(document), Usage(prompt_tokens=tokens)


def _read(answer: AnsweredPiece) -> "_Answer":
    """An engine's answer, with a score for each document.

    Raises:
        UpstreamFailedError: When it is anything else.
    """
    found = decoded_answer(answer.body, _Answer, "an order of documents")
    if sorted(each.index for each in found.results) != list(range(answer.texts)):
        raise UpstreamFailedError(f"it didn't give a score for each of {answer.texts} documents")
    return found


def _query(fields: Fields) -> str:
    query = fields.text("query")
    if not query:
        raise invalid("`query` must be a text that is not empty.", param="query")
    return query


def _documents(fields: Fields) -> list[str]:
    """The documents' texts, which some clients put into objects.

    Raises:
        ApiError: When there are none or too many, or one has no text.
    """
    given = list_in(fields.get("documents"))
    texts = [each if isinstance(each, str) else object_in(each).get("text") for each in given]
    if not texts or not all(isinstance(each, str) and each for each in texts):
        raise invalid("`documents` must be a list of texts, none of them empty.", param="documents")
    refuse_too_many(texts, "documents")
    return [str(each) for each in texts]


class _Request(msgspec.Struct):
    top_n: int | None = None
    return_documents: bool = False


class _Result(msgspec.Struct):
    index: int
    score: float = msgspec.field(name="relevance_score")


class _Tokens(msgspec.Struct):
    total_tokens: int | None = None


class _Answer(msgspec.Struct):
    results: list[_Result]
    model: str = ""
    usage: _Tokens = msgspec.field(default_factory=_Tokens)
