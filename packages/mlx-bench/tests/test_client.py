"""The client against a real server whose schedule is known.

How exact the figures are is measured by `mlx-bench calibrate` on a quiet machine; what is asserted
here holds on a busy one too: causes come before effects, and nothing is lost or made up.
"""

import gzip
from collections.abc import Callable

import pytest

from mlx_bench.calibration.check import CalibrationCase, check_case, served_ttfts_s
from mlx_bench.calibration.schedule import Schedule
from mlx_bench.calibration.server import ServedRequests
from mlx_bench.client import Exchange, ModelEndpoint, ReadLimit, StreamingClient, parse_base_url
from mlx_bench.completion import CountedBy
from mlx_bench.errors import EndpointError, ParametersError
from mlx_bench.metrics import MeasuredRun, Point, measure_run
from mlx_bench.request import ChatRequest
from mlx_bench.wave import send_timed

type OpenClient = Callable[[str], StreamingClient]
type ServeBytes = Callable[[bytes], str]


def measure(client: StreamingClient, tokens: int = 12) -> MeasuredRun:
    exchange = client.stream(ChatRequest("one two three", tokens))
    point = Point(1, 10)
    return measure_run(exchange, exchange.parse(), point=point, requested_tokens=tokens)


def test_every_token_is_stamped_after_the_server_sent_it(open_client: OpenClient) -> None:
    client = open_client("ttft_ms=30,tps=400")
    exchange = client.stream(ChatRequest("one two three", 40))
    completion = exchange.parse()
    page = client.endpoint.base_url[:-3] + "/calibration/requests"
    served = client.get(page, ServedRequests) or ServedRequests([])
    mine = next(each for each in served.requests if each.response_id == completion.response_id)
    assert len(mine.sent_ns) == len(completion.token_times_ns) == 40
    assert exchange.sent_ns is not None
    assert exchange.started_ns < exchange.sent_ns <= mine.received_ns
    for server, client_stamp in zip(mine.sent_ns, completion.token_times_ns, strict=True):
        assert server <= client_stamp


def test_ttft_and_rate_are_near_the_schedule(open_client: OpenClient) -> None:
    run = measure(open_client("ttft_ms=500,tps=15"), 15)
    assert run.error is None
    assert run.ttft_s == pytest.approx(0.5, abs=0.4)
    assert run.generation_tps == pytest.approx(15, rel=0.2)
    assert run.completion_tokens == 15
    assert run.finish_reason == "length"


def test_streams_at_once_are_each_measured(open_client: OpenClient) -> None:
    client = open_client("ttft_ms=50,tps=100")
    wave = send_timed(client.stream, [ChatRequest(f"stream {n}", 10 + n) for n in range(6)])
    counts = [exchange.parse().completion_tokens for exchange in wave.exchanges]
    assert counts == [10, 11, 12, 13, 14, 15]
    served = served_ttfts_s(client)
    assert all(exchange.parse().response_id in served for exchange in wave.exchanges)


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
    assert "cut off" in run.error
    assert len(run.event_offsets_s) == 3


@pytest.mark.parametrize("field", ["stream_options", "ignore_eos", "seed", "temperature"])
def test_a_field_that_the_server_refuses_is_left_out(open_client: OpenClient, field: str) -> None:
    client = open_client(f"ttft_ms=1,refuse={field}")
    exchange = client.negotiate(ChatRequest("hi", 2))
    assert exchange.parse().is_done
    assert measure(client, 3).error is None


def test_an_answer_that_never_ends_is_not_read_to_its_end(open_client: OpenClient) -> None:
    client = open_client("ttft_ms=1,tps=50,tokens=100000")
    exchange = client.stream(ChatRequest("hi", 1), limit=ReadLimit(reads=5, seconds=0.1))
    assert exchange.failure is None
    assert 5 < len(exchange.reads) < 1000


def test_a_refusal_is_told_with_status_and_words(open_client: OpenClient) -> None:
    with pytest.raises(EndpointError, match="as the schedule says") as caught:
        open_client("status=503").negotiate(ChatRequest("hi", 2))
    assert caught.value.status == 503


def test_an_address_where_nobody_listens_is_told() -> None:
    with (
        StreamingClient(ModelEndpoint("http://127.0.0.1:9/v1", "m")) as client,
        pytest.raises(EndpointError, match="Nothing answers") as caught,
    ):
        client.negotiate(ChatRequest("hi", 2))
    assert caught.value.status is None
    assert caught.value.hint


def test_the_answer_ends_with_done_though_the_connection_stays_open(
    serve_bytes: ServeBytes,
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    url = serve_bytes(head + b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n')
    with StreamingClient(ModelEndpoint(url, "m"), timeout_s=20) as client:
        run = measure(client, 5)
    assert run.error is None
    assert run.completion_tokens == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b'HTTP/1.1 500 X\r\nContent-Length: 29\r\n\r\n{"error":{"message":"no luck"}}', "no luck"),
        (b"HTTP/1.1 307 X\r\nContent-Length: 0\r\nLocation: /v2\r\n\r\n", "HTTP 307"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"choices": []}', "no event stream"),
    ],
)
def test_an_answer_that_is_no_stream_says_what_it_is(
    serve_bytes: ServeBytes, answer: bytes, words: str
) -> None:
    with StreamingClient(ModelEndpoint(serve_bytes(answer), "m"), timeout_s=20) as client:
        run = measure(client)
    assert words in (run.error or "")


def test_a_redirect_is_told_and_not_followed(serve_bytes: ServeBytes) -> None:
    answer = b"HTTP/1.1 307 X\r\nContent-Length: 0\r\nLocation: /v2\r\n\r\n"
    with (
        StreamingClient(ModelEndpoint(serve_bytes(answer), "m"), timeout_s=20) as client,
        pytest.raises(EndpointError, match="307") as caught,
    ):
        client.negotiate(ChatRequest("hi", 2))
    assert "not followed" in caught.value.hint


def test_a_compressed_stream_is_read(serve_bytes: ServeBytes) -> None:
    packed = gzip.compress(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n')
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    with StreamingClient(ModelEndpoint(serve_bytes(head.encode() + packed), "m")) as client:
        assert measure(client).completion_tokens == 1


def test_a_stream_without_any_end_is_whole_at_the_limit_only() -> None:
    # An end of the connection is all that this server has: after a loss it looks the same.
    chunk = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    reads = tuple((at_ns, chunk) for at_ns in (1, 2, 3))
    exchange = Exchange(0, 0, 0, 200, reads, None)
    ended = [
        measure_run(
            exchange, exchange.parse(), point=Point(1, 10), requested_tokens=requested
        ).error
        for requested in (3, 4)
    ]
    assert ended[0] is None
    assert "without [DONE]" in (ended[1] or "")


@pytest.mark.parametrize(
    ("text", "base_url"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1"),
        ("https://h/api/v1/chat/completions", "https://h/api/v1"),
        ("http://[::1]:8000/openai", "http://[::1]:8000/openai"),
    ],
)
def test_a_base_url_may_be_written_in_several_ways(text: str, base_url: str) -> None:
    assert parse_base_url(text) == base_url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h",
        "http://",
        "http://:80/v1",
        "ftp://h/v1",
        "http://h:99999/v1",
        "http://h:x/v1",
        "http://[::1/v1",
        "http://a b/v1",
        "http://h/v1?key=1",
        "http://h/v1#x",
    ],
)
def test_what_is_no_url_of_a_server_is_refused(text: str) -> None:
    with pytest.raises(ParametersError, match="not a URL"):
        parse_base_url(text)


@pytest.mark.parametrize("key", ["s3cret\n", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ParametersError) as caught:
        ModelEndpoint("http://127.0.0.1:9/v1", "m", key)
    assert key.strip() not in str(caught.value)


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (b"<html/>", "unexpected answer: JSON is malformed"),
        (b'{"data": [{"id": "\xff"}]}', "unexpected answer: .*(utf|UTF)-8"),
        (b'{"data": [], "more": ' + b"[" * 100_000, "unexpected answer: "),
        (b" " * 20_000_000, "an answer larger than 16 MB"),
    ],
    ids=["no JSON", "no UTF-8", "nested without end", "without end"],
)
def test_a_page_of_models_that_is_none_is_told(
    serve_bytes: ServeBytes, page: bytes, said: str
) -> None:
    url = serve_bytes(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page) + page)
    with (
        StreamingClient(ModelEndpoint(url, "m")) as client,
        pytest.raises(EndpointError, match=said),
    ):
        client.list_models()


def test_models_are_listed(open_client: OpenClient) -> None:
    assert [model.id for model in open_client("").list_models()] == ["calibration"]


def test_the_key_is_never_shown() -> None:
    assert "s3cret" not in repr(ModelEndpoint("http://127.0.0.1:9/v1", "m", api_key="s3cret"))


def test_the_instrument_can_be_checked(server_url: str) -> None:
    case = CalibrationCase(Schedule(ttft_ms=50, tps=200), 30, streams=3, rate_limit=None)
    finding = check_case(server_url, case)
    assert finding.within_limits
    assert abs(finding.rate_error) < 0.5
    assert 0 < finding.client_cpu_share < 1
