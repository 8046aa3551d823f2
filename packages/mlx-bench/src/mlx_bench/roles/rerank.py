"""Rerankers: pairs of a query and a document a second."""

import msgspec

from mlx_bench.request import PlainRequest
from mlx_bench.roles.workload import (
    RoleAnswer,
    RoleLoad,
    RoleWorkload,
    decoded,
    json_request,
)

_QUERY = "Which of these words are about time?"


class _Usage(msgspec.Struct):
    total_tokens: int | None = None


class _Row(msgspec.Struct):
    index: int
    relevance_score: float


class _Answer(msgspec.Struct):
    results: list[_Row]
    usage: _Usage | None = None


def _request(model: str, documents: list[str]) -> PlainRequest:
    return json_request("/rerank", {"model": model, "query": _QUERY, "documents": documents})


def _read(body: bytes, load: RoleLoad) -> RoleAnswer:
    answer = decoded(body, _Answer)
    if sorted(row.index for row in answer.results) != list(range(load.items)):
        raise ValueError(f"the answer doesn't order the {load.items} documents")
    return RoleAnswer(load.items, answer.usage.total_tokens if answer.usage else None)


RERANK = RoleWorkload(
    role="rerank",
    unit="pairs/s",
    item=("document", "documents"),
    size_unit="tokens",
    items=(1, 20),
    sizes=(64, 256),
    make=lambda model, load, material: _request(model, material.texts(load)),
    read=_read,
    # a pair's tokens are those of the query as well
    probe=lambda model, text: _request(model, [text]),
)
"""Documents in the order of how well they answer a query, at `/rerank`."""
