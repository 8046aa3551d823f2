"""The client against a real server whose schedule is known.

How exact the figures are is measured by `mlx-bench calibrate` on a quiet machine; what is asserted
here holds on a busy one too: causes come before effects, and nothing is lost or made up.
"""

from collections.abc import Callable

import pytest

from mlx_bench._json_values import as_list, as_object
from mlx_bench.calibration.check import Case, check_case, served_ttfts_s
from mlx_bench.calibration.schedule import Schedule
from mlx_bench.client import Endpoint, Patience, StreamingClient
from mlx_bench.completion import CountedBy
from mlx_bench.errors import EndpointError
from mlx_bench.metrics import Point, Run, measure_run
from mlx_bench.request import ChatRequest
from mlx_bench.wave import send_timed

type OpenClient = Callable[[str], StreamingClient]


def measure(client: StreamingClient, tokens: int = 12) -> Run:
    exchange = client.stream(ChatRequest("one two three", tokens))
    point = Point(1, 10)
    return measure_run(exchange, exchange.understand(), point=point, requested_tokens=tokens)


def test_every_token_is_stamped_after_the_server_sent_it(open_client: OpenClient) -> None:
    client = open_client("ttft_ms=30,tps=400")
    exchange = client.stream(ChatRequest("one two three", 40))
    completion = exchange.understand()
    account = client.get_json(client.endpoint.base_url[:-3] + "/calibration/requests") or {}
    mine = next(
        entry
        for entry in map(as_object, as_list(account["requests"]))
        if entry["response_id"] == completion.response_id
    )
    sent_ns = as_list(mine["sent_ns"])
    assert len(sent_ns) == len(completion.token_times_ns) == 40
    assert exchange.sent_ns is not None
    received_ns = mine["received_ns"]
    assert isinstance(received_ns, int)
    assert exchange.started_ns < exchange.sent_ns <= received_ns
    for server, client_stamp in zip(sent_ns, completion.token_times_ns, strict=True):
        assert isinstance(server, int)
        assert server <= client_stamp


def test_ttft_and_rate_are_near_the_schedule(open_client: OpenClient) -> None:
    run = measure(open_client("ttft_ms=150,tps=50"), 15)
    assert run.error is None
    assert run.ttft_s == pytest.approx(0.15, abs=0.1)
    assert run.generation_tps == pytest.approx(50, rel=0.2)
    assert run.completion_tokens == 15
    assert run.finish_reason == "length"


def test_streams_at_once_are_each_measured(open_client: OpenClient) -> None:
    client = open_client("ttft_ms=50,tps=100")
    wave = send_timed(client, [ChatRequest(f"stream {n}", 10 + n) for n in range(6)])
    counts = [exchange.understand().completion_tokens for exchange in wave.exchanges]
    assert counts == [10, 11, 12, 13, 14, 15]
    served = served_ttfts_s(client)
    assert all(exchange.understand().response_id in served for exchange in wave.exchanges)


@pytest.mark.parametrize("form", ["crlf=1", "split=1", "comments=1", "reasoning=5", "role=0"])
def test_the_stream_may_be_written_in_other_ways(open_client: OpenClient, form: str) -> None:
    run = measure(open_client(f"ttft_ms=5,tps=500,{form}"))
    assert run.error is None
    assert len(run.event_offsets_s) == run.completion_tokens == 12


def test_several_tokens_an_event_are_counted_by_usage(open_client: OpenClient) -> None:
    run = measure(open_client("ttft_ms=5,tps=500,grouped=4"))
    assert (len(run.event_offsets_s), run.completion_tokens) == (3, 12)
    assert run.counted_by is CountedBy.USAGE


def test_a_burst_is_every_token_of_it(open_client: OpenClient) -> None:
    run = measure(open_client("ttft_ms=5,tps=500,burst=4"))
    assert len(run.event_offsets_s) == 12


def test_without_usage_events_are_counted(open_client: OpenClient) -> None:
    run = measure(open_client("ttft_ms=5,tps=500,usage=0"))
    assert run.completion_tokens == 12
    assert run.counted_by is CountedBy.EVENTS


def test_an_early_stop_is_seen(open_client: OpenClient) -> None:
    run = measure(open_client("ttft_ms=5,tps=500,stop_after=4"))
    assert run.error is None
    assert (run.completion_tokens, run.finish_reason) == (4, "stop")


def test_an_error_in_mid_stream_fails_the_run(open_client: OpenClient) -> None:
    run = measure(open_client("ttft_ms=5,tps=500,fail_after=3"))
    assert run.error is not None
    assert "The engine died" in run.error


def test_a_lost_connection_fails_the_run(open_client: OpenClient) -> None:
    run = measure(open_client("ttft_ms=5,tps=500,fail_after=3,failure=disconnect"))
    assert run.error is not None
    assert "broke off" in run.error
    assert len(run.event_offsets_s) == 3


@pytest.mark.parametrize("field", ["stream_options", "ignore_eos", "seed", "temperature"])
def test_a_field_that_the_server_refuses_is_left_out(open_client: OpenClient, field: str) -> None:
    client = open_client(f"ttft_ms=1,refuse={field}")
    exchange = client.negotiate(ChatRequest("hi", 2))
    assert exchange.understand().is_done
    assert measure(client, 3).error is None


def test_an_answer_that_never_ends_is_not_read_to_its_end(open_client: OpenClient) -> None:
    client = open_client("ttft_ms=1,tps=50,tokens=100000")
    exchange = client.stream(ChatRequest("hi", 1), patience=Patience(reads=5, seconds=0.1))
    assert exchange.failure is None
    assert 5 < len(exchange.reads) < 1000


def test_a_refusal_is_told_with_status_and_words(open_client: OpenClient) -> None:
    with pytest.raises(EndpointError, match="as the schedule says") as caught:
        open_client("status=503").negotiate(ChatRequest("hi", 2))
    assert caught.value.status == 503


def test_an_address_where_nobody_listens_is_told() -> None:
    with (
        StreamingClient(Endpoint("http://127.0.0.1:9/v1", "m")) as client,
        pytest.raises(EndpointError, match="Nothing answers") as caught,
    ):
        client.negotiate(ChatRequest("hi", 2))
    assert caught.value.status is None
    assert caught.value.hint


def test_models_are_listed(open_client: OpenClient) -> None:
    assert open_client("").list_models() == ("calibration",)


def test_the_key_is_never_shown() -> None:
    assert "s3cret" not in repr(Endpoint("http://127.0.0.1:9/v1", "m", api_key="s3cret"))


def test_the_instrument_can_be_checked(server_url: str) -> None:
    case = Case(Schedule(ttft_ms=50, tps=200), 30, streams=3, rate_limit=None)
    finding = check_case(server_url, case)
    assert finding.within_limits
    assert abs(finding.rate_error) < 0.5
    assert 0 < finding.client_cpu_share < 1
