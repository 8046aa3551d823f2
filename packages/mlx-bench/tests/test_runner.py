"""Whole benchmarks against the calibration server."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from mlx_bench.cautions import CautionCode
from mlx_bench.client import StreamingClient
from mlx_bench.errors import EndpointError
from mlx_bench.metrics import Phase, Point
from mlx_bench.runner import Conditions, run_benchmark
from mlx_bench.workload import Cache, Exactness, Parameters

if TYPE_CHECKING:
    from mlx_bench.report import Report

type OpenClient = Callable[[str], StreamingClient]

CONDITIONS = Conditions(target="here", machine={"chip": None})
SHORT = Parameters(iterations=2, prompt_tokens=(80,), generation_tokens=25)


def test_a_benchmark_reports_exact_prompts_and_every_run(open_client: OpenClient) -> None:
    client = open_client("ttft_ms=10,tps=500")
    report = run_benchmark(client, SHORT, CONDITIONS)
    assert report.finished
    assert report.prompt_exactness is Exactness.EXACT
    assert [run.prompt_tokens for run in report.runs] == [80, 80]
    assert [run.phase for run in report.other_runs] == [Phase.WARM_UP]
    assert report.engine.name == "mlx-bench-calibration"
    assert len(report.waves) == 2


def test_no_prompt_is_sent_twice_in_a_fresh_run(open_client: OpenClient) -> None:
    client = open_client("ttft_ms=1,tps=500,cache=1,seed=9001")
    report = run_benchmark(
        client, Parameters(iterations=3, prompt_tokens=(90,), generation_tokens=20), CONDITIONS
    )
    cached = [run.cached_tokens or 0 for run in report.runs]
    # The template and the two words that open every prompt are all that can be the same.
    assert max(cached) <= 10
    again = run_benchmark(client, SHORT, CONDITIONS)
    assert max(run.cached_tokens or 0 for run in again.runs) <= 10


def test_a_primed_cache_is_measured_on_purpose(open_client: OpenClient) -> None:
    client = open_client("ttft_ms=1,tps=500,cache=1,prefill_tps=1000,overhead=9")
    parameters = Parameters(
        iterations=2, warm_up=0, prompt_tokens=(300,), generation_tokens=20, cache=Cache.PRIMED
    )
    report = run_benchmark(client, parameters, CONDITIONS)
    cold = [run for run in report.other_runs if run.phase is Phase.PRIME]
    assert [run.cached_tokens for run in report.runs] == [299, 299]
    assert min(run.ttft_s or 0 for run in cold) > 2 * max(run.ttft_s or 9 for run in report.runs)
    assert CautionCode.CACHE_HIT not in {caution.code for caution in report.cautions}


def test_every_concurrency_and_length_is_a_point(open_client: OpenClient) -> None:
    parameters = Parameters(
        iterations=1,
        warm_up=0,
        prompt_tokens=(60, 90),
        generation_tokens=5,
        concurrency=(1, 3),
    )
    report = run_benchmark(open_client("ttft_ms=1,tps=500"), parameters, CONDITIONS)
    assert report.points == (Point(1, 60), Point(3, 60), Point(1, 90), Point(3, 90))
    assert len(report.runs) == 8
    assert all(run.prompt_tokens == run.point.prompt_tokens for run in report.runs)


def test_the_report_so_far_is_given_after_every_iteration(open_client: OpenClient) -> None:
    seen: list[Report] = []
    run_benchmark(open_client("ttft_ms=1,tps=500"), SHORT, CONDITIONS, on_report=seen.append)
    assert [len(report.runs) for report in seen] == [1, 2, 2]
    assert [report.finished for report in seen] == [False, False, True]


def test_iterations_go_on_until_the_limit_where_precision_is_out_of_reach(
    open_client: OpenClient,
) -> None:
    parameters = Parameters(
        iterations=2,
        prompt_tokens=(60,),
        generation_tokens=5,
        precision=1e-9,
        max_iterations=7,
    )
    report = run_benchmark(open_client("ttft_ms=1,tps=500,jitter=0.5"), parameters, CONDITIONS)
    assert len(report.runs) == 7


def test_iterations_stop_where_the_precision_is_reached(open_client: OpenClient) -> None:
    parameters = Parameters(
        iterations=1, prompt_tokens=(60,), generation_tokens=5, precision=0.99, max_iterations=100
    )
    report = run_benchmark(open_client("ttft_ms=20,tps=200"), parameters, CONDITIONS)
    assert 6 <= len(report.runs) < 100


def test_memory_is_the_highest_seen_and_unknown_where_it_cannot_be_seen(
    open_client: OpenClient,
) -> None:
    client = open_client("ttft_ms=1,tps=500")
    seen = Conditions("here", {}, memory_bytes=lambda: 12345, memory_source="a test")
    report = run_benchmark(client, SHORT, seen)
    assert report.memory is not None
    assert report.memory.peak_bytes == 12345
    assert run_benchmark(client, SHORT, CONDITIONS).memory is None


def test_a_server_without_usage_is_measured_with_cautions(open_client: OpenClient) -> None:
    report = run_benchmark(open_client("ttft_ms=1,tps=500,usage=0"), SHORT, CONDITIONS)
    assert report.prompt_exactness is Exactness.ASSUMED
    codes = {caution.code for caution in report.cautions}
    assert codes == {CautionCode.EVENTS_COUNTED, CautionCode.PROMPT_LENGTH}
    assert report.summaries[0].generation_tps.value is not None


def test_a_benchmark_without_one_good_run_is_an_error(open_client: OpenClient) -> None:
    with pytest.raises(EndpointError, match="None of 2 runs succeeded"):
        run_benchmark(open_client("ttft_ms=1,tps=500,fail_after=1"), SHORT, CONDITIONS)
