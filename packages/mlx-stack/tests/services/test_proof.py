"""What shows that a model does its work, and what doesn't."""

import io
import json
import wave

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_catalog import ModelRole
from mlx_gateway.form import read_form
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


SOUNDS = [ModelRole.SPEECH_TO_TEXT, ModelRole.TEXT_TO_SPEECH]


@pytest.mark.parametrize(
    ("role", "answer", "said"),
    [
        (SOUNDS[0], b'{"text": ""}', ""),
        (SOUNDS[0], b'{"words": ""}', "isn't a transcription"),
        (SOUNDS[1], b"\0\1", ""),
        (SOUNDS[1], b"\0\0", "silent"),
        (SOUNDS[1], b"", "isn't a sound"),
    ],
)
def test_a_model_of_sounds_is_proven_by_words_or_by_a_sound(
    role: ModelRole, answer: bytes, said: str
) -> None:
    problem = proof_of(role).check(answer)
    assert said in problem
    assert bool(said) == bool(problem)


def test_what_hears_is_proven_with_a_form_that_holds_a_sound() -> None:
    kind, body = proof_of(ModelRole.SPEECH_TO_TEXT).request("whisper")
    form = read_form(body, kind)
    assert form.fields.text("model") == "whisper"
    with wave.open(io.BytesIO(bytes(form.file))) as sound:
        assert sound.getnframes() == sound.getframerate() / 2


@given(st.binary(), st.sampled_from([*READING, *SOUNDS]))
def test_whatever_comes_is_an_answer_or_is_said_not_to_be(body: bytes, role: ModelRole) -> None:
    assert isinstance(proof_of(role).check(body), str)


@pytest.mark.parametrize("role", READING)
def test_the_request_names_the_model(role: ModelRole) -> None:
    kind, body = proof_of(role).request("bge-m3")
    assert kind == "application/json"
    assert json.loads(body)["model"] == "bge-m3"
