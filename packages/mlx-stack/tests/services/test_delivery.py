"""What an engine says of its work, understood; and how long a prompt may take."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_catalog import ModelRole, Quant, load_catalog
from mlx_hwprobe import parse_hardware_spec
from mlx_procsup import AnswerKind, RequestInFlight, Unreadable, Work
from mlx_recommend import shape_of_entry
from mlx_stack.services.delivery import (
    SLACK,
    UNKNOWN_TPS,
    WHOLE_ANSWER_S,
    predictor,
    read_answer,
    read_work,
)
from mlx_stack.services.proof import proof_of

RUNNING = {
    "request_id": "a",
    "status": "running",
    "phase": "prefill",
    "prompt_tokens": 2000,
    "completion_tokens": 0,
    "progress": 0.25,
}
WAITING = RUNNING | {"request_id": "b", "status": "waiting", "phase": "queued", "progress": 0.0}
STATUS = {
    "status": "running",
    "steps_executed": 99,
    "num_running": 1,
    "num_waiting": 1,
    "total_completion_tokens": 40,
    "requests": [RUNNING, WAITING],
}


def work(counted: str | None = "3 1", *, batches: bool = True, **changes: object) -> object:
    return read_work(json.dumps(STATUS | changes).encode(), counted, batches=batches)


def test_with_batching_the_engine_tells_of_each_request() -> None:
    assert work() == Work(
        running=(RequestInFlight("a", 2000, 0.25),),
        waiting=(RequestInFlight("b", 2000),),
        written=43,
        failures=1,
    )


def test_what_mlx_holds_of_the_gpus_memory_is_told_where_the_engine_says_it() -> None:
    for metal, held_bytes in (
        ({"active_memory_gb": 4.5, "peak_memory_gb": 9.0, "cache_memory_gb": 0.5}, 5_000_000_000),
        ({"active_memory_gb": 4.5, "peak_memory_gb": None, "cache_memory_gb": None}, 4_500_000_000),
        ({"active_memory_gb": None, "cache_memory_gb": 0.5}, None),
        (None, None),
    ):
        said = work(metal=metal)
        assert isinstance(said, Work)
        assert said.held_bytes == held_bytes


def test_progress_of_an_answer_is_none_of_its_prompt() -> None:
    """vllm-mlx gives a share of the longest answer under the same name."""
    row = RUNNING | {"phase": "generation", "completion_tokens": 7, "progress": 0.01}
    said = work(requests=[row], num_waiting=0)
    assert isinstance(said, Work)
    assert said.running == (RequestInFlight("a", 2000, 0.0, 7),)


def test_requests_that_are_counted_and_not_shown_are_of_unknown_length() -> None:
    said = work(requests=[], num_running=3, num_waiting=0)
    assert isinstance(said, Work)
    assert said.running == (RequestInFlight("unknown 0"),)


def test_without_batching_the_door_tells_of_them() -> None:
    """Half its bytes are more tokens than a prompt has; of a whole answer nothing is seen."""
    said = work("3 0 7:4096:s:31:5.2 8:220:w:0:0.1", batches=False)
    assert isinstance(said, Work)
    assert said.running == (RequestInFlight("7 streamed", 2048, written=31), RequestInFlight("8"))
    assert said.oldest_s == 5.2


def test_an_engine_whose_model_is_not_loaded_rests() -> None:
    assert read_work(b'{"status": "not_loaded"}', None, batches=True) == Work(rests=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_running": "many"},
        {"num_running": -1},
        {"total_completion_tokens": None},
        {"requests": {}},
        {"requests": [{"request_id": "a"}]},
        {"requests": [RUNNING | {"progress": 7}]},
    ],
)
def test_a_status_that_makes_no_sense_is_called_nonsense(changes: dict[str, object]) -> None:
    said = work(**changes)
    assert isinstance(said, Unreadable)
    assert "invalid" in said.reason


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'{"status": "running"}'])
def test_another_engines_answer_is_no_status(body: bytes) -> None:
    assert isinstance(read_work(body, "0 0", batches=True), Unreadable)


@pytest.mark.parametrize(
    "counted", ["", "x", "1", "1 2 3", "1 2 3:4:s", "1 2 3:x:s:4:1", "1 2 3:4:s:5:x"]
)
def test_a_damaged_count_of_what_passes_is_not_believed(counted: str) -> None:
    assert isinstance(work(counted), Unreadable)


def test_an_engine_without_the_count_is_believed_as_far_as_it_tells() -> None:
    assert isinstance(work(None), Work)
    assert isinstance(work(None, batches=False), Unreadable)


@given(st.binary(), st.none() | st.text(), st.booleans())
def test_whatever_comes_is_understood_or_said_not_to_be(
    body: bytes, counted: str | None, batches: bool
) -> None:
    assert isinstance(read_work(body, counted, batches=batches), Work | Unreadable)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b'{"choices": [{"finish_reason": "length"}]}', AnswerKind.TOKEN),
        (200, b'{"choices": [{"finish_reason": "error"}]}', AnswerKind.ERROR),
        (200, b'{"choices": []}', AnswerKind.ERROR),
        (200, b"null", AnswerKind.ERROR),
        (500, b"", AnswerKind.ERROR),
        (503, b"", AnswerKind.ERROR),
        (404, b"", AnswerKind.REFUSED),
        (401, b"", AnswerKind.REFUSED),
    ],
)
def test_an_answer_to_the_question_for_a_token_is_one_or_is_not(
    status: int, body: bytes, kind: AnswerKind
) -> None:
    assert read_answer(status, body, proof_of(ModelRole.CHAT)).kind is kind


def test_a_long_prompt_on_an_m1_may_take_as_long_as_it_does_there_and_more() -> None:
    shape = shape_of_entry(load_catalog().get("qwen3-8b"), Quant.INT4)
    predict_s = predictor(shape, parse_hardware_spec("m1:8:16"), 131_072)
    assert 3000 < predict_s(100_000) < 5 * 3600
    assert predict_s(1000) < 120
    assert predict_s(None) >= predict_s(131_072)


def test_where_nothing_is_known_a_generous_constant_holds() -> None:
    predict_s = predictor(None, None, None)
    assert predict_s(100_000) == 100_000 / UNKNOWN_TPS
    assert predict_s(None) >= WHOLE_ANSWER_S
    assert SLACK > 1
