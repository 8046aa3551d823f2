"""The figures of one request, by their definitions."""

import json

import pytest

from mlx_bench.client import Exchange
from mlx_bench.metrics import MeasuredRun, Point, generation_tps, measure_run

MS = 1_000_000


def event(text: str) -> bytes:
    return f"data: {text}\n\n".encode()


def token(text: str = "x") -> bytes:
    return event(json.dumps({"id": "c", "choices": [{"delta": {"content": text}}]}))


def exchange(
    *reads: tuple[int, bytes],
    status: int | None = 200,
    failure: str | None = None,
    has_marked_end: bool = False,
) -> Exchange:
    return Exchange(
        started_ns=0,
        connect_ns=2 * MS,
        sent_ns=5 * MS,
        status=status,
        reads=tuple((at * MS, block) for at, block in reads),
        failure=failure,
        has_marked_end=has_marked_end,
    )


def measured(sent: Exchange) -> MeasuredRun:
    return measure_run(sent, sent.parse(), point=Point(1, 1000), requested_tokens=3)


USAGE = event(json.dumps({"choices": [], "usage": {"prompt_tokens": 990, "completion_tokens": 3}}))


def test_ttft_runs_from_the_last_byte_sent_to_the_first_content() -> None:
    run = measured(
        exchange((105, token()), (115, token()), (125, token()), (126, USAGE + event("[DONE]")))
    )
    assert run.error is None
    assert run.ttft_s == pytest.approx(0.100)
    assert run.generation_tps == pytest.approx(100.0)
    assert run.prompt_tps == pytest.approx(9900.0)
    assert run.end_to_end_s == pytest.approx(0.121)
    assert run.connect_s == pytest.approx(0.002)
    assert run.gaps_s == pytest.approx((0.010, 0.010))


def test_without_usage_the_prompt_length_is_what_was_asked_for() -> None:
    run = measured(exchange((105, token()), (115, token() + event("[DONE]"))))
    assert run.prompt_tps == pytest.approx(10_000)
    assert run.prompt_tokens is None


def test_a_whole_body_without_a_last_word_counts() -> None:
    run = measured(exchange((105, token()), (115, token()), has_marked_end=True))
    assert run.error is None


def test_one_token_has_no_decode_rate() -> None:
    run = measured(exchange((105, token()), (106, event("[DONE]"))))
    assert run.error is None
    assert run.generation_tps is None


def test_tokens_that_all_came_in_one_read_have_no_decode_rate() -> None:
    assert generation_tps(5, (0.1, 0.1, 0.1)) is None


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (exchange(status=None, failure="ConnectError: refused"), "refused"),
        (exchange((9, b'{"error":{"message":"busy"}}'), status=503), "HTTP 503"),
        (exchange((9, token()), failure="ReadTimeout: "), "cut off"),
        (exchange((9, token())), "without"),
        (exchange((9, event("[DONE]"))), "no content"),
        (exchange((9, token() + event('{"error": {"message": "died"}}'))), "died"),
    ],
)
def test_a_run_that_does_not_count_says_why(sent: Exchange, reason: str) -> None:
    assert reason in (measured(sent).error or "")
