"""`/v1/rerank`, which Jina and Cohere made, and `/v2/rerank`, which Cohere's clients ask today.

Both are answered at once: what only one of them has stands next to what both have. So it is with
errors: Cohere's clients look at `message`, Jina's at `detail`.
"""

import secrets
from collections.abc import Sequence
from typing import Any, override

import msgspec

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.fields import Fields, invalid, list_in, object_in
from mlx_gateway.protocols.api import Api, Call, decoded_answer
from mlx_gateway.protocols.checks import checked, positive
from mlx_gateway.protocols.embeddings import sum_of
from mlx_gateway.protocols.events import Usage
from mlx_gateway.protocols.texts import Texts, refuse_too_many
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
        returned = documents if checked(fields, _Request).return_documents else ()
        most = positive(fields, "top_n") or len(documents)
        if fields.get("rank_fields"):
            raise invalid("`rank_fields` is not supported: send documents as text.",
                          param="rank_fields")  # fmt: skip

        def asked(some: Sequence[str]) -> Fields:
            return Fields({}, 0).with_values(model="", query=query, documents=some)

        texts = Texts(
            documents,
            "documents",
            asked,
            read=_read,
            joined=lambda parts: _ranked(parts, most, returned),
            query=query,
            can_wait=len(documents) > _MOST_OF_A_SEARCH,
        )
        return Call(fields, path=PATH, texts=texts)

    @override
    def error(self, problem: ApiError) -> bytes:
        document = msgspec.json.decode(super().error(problem), type=dict[str, Any])
        said = {"message": problem.message, "detail": problem.message}
        return msgspec.json.encode({**document, **said})


def _read(body: bytes, documents: int) -> "_Answer":
    """The scores in an engine's answer for so many documents.

    Raises:
        UpstreamFailedError: When it isn't one for each.
    """
    found = decoded_answer(body, _Answer, "an order of documents")
    if sorted(each.index for each in found.results) != list(range(documents)):
        raise UpstreamFailedError(f"it didn't give a score for each of {documents} documents")
    return found


def _ranked(parts: Sequence["_Answer"], most: int, returned: Sequence[str]) -> tuple[bytes, Usage]:
    """The best of all documents.

    Args:
        most: How many the client wants.
        returned: The documents, where it wants them back; else none.
    """
    results: list[dict[str, Any]] = []
    before = 0
    for part in parts:
        results += (
            {"index": each.index + before, "relevance_score": each.score} for each in part.results
        )
        before += len(part.results)
    results.sort(key=lambda each: (-each["relevance_score"], each["index"]))
    del results[most:]
    if returned:
        for each in results:
            each["document"] = {"text": returned[each["index"]]}
    tokens = sum_of(part.usage.total_tokens for part in parts)
    document = {
        "id": secrets.token_hex(16),
        "object": "list",
        "model": parts[0].model,
        "results": results,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "meta": {"tokens": {"input_tokens": tokens}},
    }
    return msgspec.json.encode(document), Usage(prompt_tokens=tokens)


def _query(fields: Fields) -> str:
    query = fields.text("query")
    if not query:
        raise invalid("`query` must be a non-empty string.", param="query")
    return query


def _documents(fields: Fields) -> tuple[str, ...]:
    """The documents' texts, which some clients put into objects.

    Raises:
        ApiError: When there are none or too many, or one has no text.
    """
    given = list_in(fields.get("documents"))
    texts = [each if isinstance(each, str) else object_in(each).get("text") for each in given]
    if not texts or not all(isinstance(each, str) and each for each in texts):
        raise invalid("`documents` must be a list of non-empty strings.", param="documents")
    refuse_too_many(texts, "documents")
    return tuple(str(each) for each in texts)


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
