"""Embeddings as OpenAI's clients expect them, of engines that know the half of it."""

import json
import math
import struct
from base64 import b64decode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.fields import Fields, read_fields
from mlx_gateway.protocols.embeddings import Embeddings, packed, unit_vector
from mlx_gateway.protocols.events import Usage
from mlx_gateway.settings import ModelSettings, Role, Upstream

API = Embeddings()
vectors = st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=9)


def asked(**fields: object) -> Fields:
    return read_fields(json.dumps({"model": "m", **fields}).encode())


def embedder(**more: Any) -> ModelSettings:
    upstream = Upstream("http://127.0.0.1:1", "m")
    return ModelSettings((upstream,), role=Role.EMBEDDING, **more)


def answer(*rows: list[float], tokens: int | None = 3) -> bytes:
    data = [{"index": index, "embedding": row} for index, row in enumerate(rows)]
    return json.dumps({"data": data, "model": "m", "usage": {"prompt_tokens": tokens}}).encode()


def joined(fields: Fields, *answers: tuple[int, bytes]) -> tuple[dict[str, Any], Usage]:
    """What the client gets for an engine's answers, each for so many of its texts."""
    texts = API.read(fields, sees_images=None).texts
    assert texts is not None
    body, usage = texts.joined([texts.read(answered, count) for count, answered in answers])
    return json.loads(body), usage


def test_an_engine_gets_what_it_knows_and_its_numbers_come_back_as_they_are() -> None:
    fields = asked(input=["a", "b"], encoding_format="float", user="u")
    call = API.read(fields, sees_images=None)

    assert call.texts is not None
    sent = json.loads(call.texts.asked(["b"]).encode())
    assert sent == {"model": "m", "input": ["b"], "user": "u"}
    row = [0.1, 1e-7, -0.30000001192092896]
    (found,) = joined(fields, (1, answer(row)))[0]["data"]
    assert found == {"object": "embedding", "index": 0, "embedding": row}


@given(st.lists(vectors, min_size=1, max_size=3))
def test_base64_holds_the_same_numbers_as_the_list(rows: list[list[float]]) -> None:
    fields = asked(input="a", encoding_format="base64")
    document, usage = joined(fields, (len(rows), answer(*rows)))

    for given_row, row in zip(document["data"], rows, strict=True):
        data = b64decode(given_row["embedding"])
        assert list(struct.unpack(f"<{len(row)}f", data)) == row
    assert usage.prompt_tokens == 3
    assert packed([0.5]) == "AAAAPw=="


@given(vectors, st.integers(1, 9))
def test_a_shortened_vector_is_the_beginning_at_length_one(row: list[float], length: int) -> None:
    (found,) = joined(asked(input="a", dimensions=length), (1, answer(row)))[0]["data"]
    begin = row[:length]

    if norm := math.hypot(*begin):
        assert found["embedding"] == pytest.approx([each / norm for each in begin])
        assert math.hypot(*found["embedding"]) == pytest.approx(1)
    else:
        assert found["embedding"] == begin == unit_vector(begin)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=8))
def test_texts_that_went_in_pieces_come_back_in_their_order(sizes: list[int]) -> None:
    count = sum(sizes)
    numbers = iter(range(count))
    answers = [
        (size, answer(*([float(next(numbers))] for _ in range(size)), tokens=size))
        for size in sizes
    ]
    document, usage = joined(asked(input=[f"text {each}" for each in range(count)]), *answers)

    rows = document["data"]
    assert [row["embedding"] for row in rows] == [[float(number)] for number in range(count)]
    assert [row["index"] for row in rows] == list(range(count))
    assert usage.prompt_tokens == count


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "must be a string or a list"),
        ({"input": []}, "must be a string or a list"),
        ({"input": {"image": "x"}}, "must be a string or a list"),
        ({"input": ["a", 1]}, "must be text"),
        ({"input": ["a", {"text": "b"}]}, "must be a string or a list"),
        ({"input": ""}, "empty string"),
        ({"input": ["a", ""]}, "empty string"),
        ({"input": [1, 2]}, "check_embedding_ctx_length=False"),
        ({"input": [[1, 2], [3]]}, "check_embedding_ctx_length=False"),
        ({"input": ["a"] * 2049}, "2,049 texts; a request may have at most 2,048"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": "many"}, "dimensions"),
    ],
)
def test_a_request_that_has_no_answer_is_refused_in_words(
    fields: dict[str, object], problem: str
) -> None:
    with pytest.raises(ApiError, match=problem) as caught:
        API.read(asked(**fields), sees_images=None)

    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("dimensions", "model", "problem"),
    [
        (None, embedder(), None),
        (384, embedder(dimensions=384), None),
        (128, embedder(dimensions=384, shortens=True), None),
        (128, embedder(shortens=True), None),
        (128, embedder(), "can't be shortened"),
        (128, embedder(dimensions=384), "of 384 dimensions can't be shortened"),
        (512, embedder(dimensions=384, shortens=True), r"more than .* have \(384\)"),
    ],
)
def test_vectors_are_shortened_only_where_the_model_is_made_for_it(
    dimensions: int | None, model: ModelSettings, problem: str | None
) -> None:
    fields = asked(input="a", dimensions=dimensions)
    if problem is None:
        API.require(fields, model)
        return
    with pytest.raises(ApiError, match=problem):
        API.require(fields, model)


@pytest.mark.parametrize(
    "body", [b"no JSON", b'{"data": 1}', b'{"data": [{"embedding": "x"}]}', answer([1.0], [2.0])]
)
def test_an_answer_without_vectors_is_the_engines_failure(body: bytes) -> None:
    with pytest.raises(UpstreamFailedError):
        joined(asked(input="a", encoding_format="base64"), (1, body))
