"""What shows that a model does its work, and what doesn't."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_catalog import ModelRole
from mlx_stack.services.proof import proof_of

READING = [ModelRole.EMBEDDING, ModelRole.RERANK]


def vector(*numbers: float) -> bytes:
    return json.dumps({"data": [{"index": 0, "embedding": numbers}]}).encode()


def order(*places: tuple[int, float]) -> bytes:
    rows = [{"index": index, "relevance_score": score} for index, score in places]
    return json.dumps({"results": rows}).encode()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (vector(0.6, 0.8), ""),
        (vector(0.6, 0.8, 0.0), "has 3 numbers instead of 2"),
        (vector(0.0, 0.0), "no direction"),
        (b'{"data": [{"embedding": [1e999, 1]}]}', "isn't a vector"),
        (b'{"data": []}', "isn't a vector"),
        (b"[" * 100_000, "isn't a vector"),
    ],
)
def test_an_embedder_is_proven_by_a_vector_of_the_right_length(answer: bytes, said: str) -> None:
    problem = proof_of(ModelRole.EMBEDDING, 2).check(answer)
    assert said in problem
    assert bool(said) == bool(problem)


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        (order((1, 0.9), (0, 0.1)), True),
        (order((0, 0.5), (1, 0.5)), True),
        (order((0, 0.1), (1, 0.9)), False),
        (order((0, 0.1)), False),
        (order((0, 0.9), (0, 0.1)), False),
        (b"{}", False),
    ],
)
def test_a_reranker_is_proven_by_an_order_of_two_documents(answer: bytes, is_right: bool) -> None:
    assert bool(proof_of(ModelRole.RERANK).check(answer)) is not is_right


@given(st.binary(), st.sampled_from(READING))
def test_whatever_comes_is_an_answer_or_is_said_not_to_be(body: bytes, role: ModelRole) -> None:
    assert isinstance(proof_of(role).check(body), str)


@pytest.mark.parametrize("role", READING)
def test_the_request_names_the_model(role: ModelRole) -> None:
    assert json.loads(proof_of(role).request_body("bge-m3"))["model"] == "bge-m3"
