"""The order of documents, as Jina's and Cohere's clients read it."""

import json
from itertools import batched
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.fields import Fields, read_fields
from mlx_gateway.protocols.rerank import Rerank

API = Rerank()


def asked(**fields: object) -> Fields:
    return read_fields(json.dumps({"model": "m", "query": "q", **fields}).encode())


def scored(scores: list[float]) -> bytes:
    """An engine's answer: the best first."""
    results = [{"index": index, "relevance_score": score} for index, score in enumerate(scores)]
    results.sort(key=lambda each: -each["relevance_score"])
    return json.dumps({"results": results, "usage": {"total_tokens": len(scores)}}).encode()


def ranked(fields: Fields, score: Any) -> dict[str, Any]:
    texts = API.read(fields, sees_images=None).texts
    assert texts is not None
    parts: list[Any] = []
    for some in batched(texts.all, 64, strict=False):
        sent = json.loads(texts.asked(some).encode())
        assert (sent["query"], sent["documents"]) == ("q", list(some))
        parts.append(texts.read(scored([score(text) for text in some]), len(some)))
    return json.loads(texts.joined(parts)[0])


@given(st.lists(st.integers(0, 50), min_size=1, max_size=200), st.none() | st.integers(1, 250))
def test_the_order_is_the_same_however_many_documents_there_are(
    scores: list[int], top: int | None
) -> None:
    documents = [f"{score} {number}" for number, score in enumerate(scores)]
    found = ranked(asked(documents=documents, top_n=top), lambda text: float(text.split()[0]))
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))

    assert [each["index"] for each in found["results"]] == order[:top]
    assert found["usage"]["total_tokens"] == len(scores)
    assert "document" not in found["results"][0]


def test_documents_come_back_where_they_are_asked_for() -> None:
    fields = asked(documents=["a", {"text": "bb"}], return_documents=True)
    found = ranked(fields, len)["results"]

    assert [each["document"] for each in found] == [{"text": "bb"}, {"text": "a"}]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"query": "", "documents": ["a"]}, "query"),
        ({"query": 1, "documents": ["a"]}, "query"),
        ({}, "documents"),
        ({"documents": []}, "documents"),
        ({"documents": ["a", ""]}, "non-empty strings"),
        ({"documents": [{"title": "a"}]}, "documents"),
        ({"documents": ["a"] * 2049}, "2,049"),
        ({"documents": ["a"], "top_n": 0}, "top_n"),
        ({"documents": ["a"], "rank_fields": ["title"]}, "rank_fields"),
    ],
)
def test_a_request_that_has_no_answer_is_refused_in_words(
    fields: dict[str, object], problem: str
) -> None:
    with pytest.raises(ApiError, match=problem) as caught:
        API.read(asked(**fields), sees_images=None)

    assert caught.value.status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"no JSON",
        b'{"results": [{"index": 0}]}',
        b"{}",
        b'{"results": []}',
        b'{"results": [{"index": 1, "relevance_score": 1}]}',
        scored([1.0, 2.0]),
    ],
)
def test_an_answer_without_an_order_is_the_engines_failure(body: bytes) -> None:
    texts = API.read(asked(documents=["a"]), sees_images=None).texts
    assert texts is not None
    with pytest.raises(UpstreamFailedError):
        texts.read(body, 1)
