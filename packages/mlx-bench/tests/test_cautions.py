"""What a reader is warned of, and what not."""

from collections.abc import Callable, Sequence

import pytest

from mlx_bench.cautions import CautionCode, find_cautions
from mlx_bench.completion import CountedBy
from mlx_bench.metrics import MeasuredRun, MeasuredWave, Point
from mlx_bench.workload import Cache, Exactness, Parameters

type MakeRun = Callable[..., MeasuredRun]

POINT = Point(1, 1024)


def codes(
    runs: list[MeasuredRun], waves: list[MeasuredWave] | None = None, cache: Cache = Cache.FRESH
) -> set[CautionCode]:
    found = find_cautions(runs, waves or [], Parameters(cache=cache), Exactness.ASSUMED)
    assert all(caution.message for caution in found)
    return {caution.code for caution in found}


def wave(*, clock_drift_s: float = 0.0, client_cpu_s: float = 0.1) -> MeasuredWave:
    return MeasuredWave(
        concurrency=POINT.concurrency,
        prompt_tokens=POINT.prompt_tokens,
        iteration=0,
        duration_s=2.0,
        clock_drift_s=clock_drift_s,
        client_cpu_s=client_cpu_s,
    )


def series(make_run: MakeRun, rates: Sequence[float]) -> list[MeasuredRun]:
    return [make_run(rate=rate, iteration=n) for n, rate in enumerate(rates)]


def test_a_clean_measurement_needs_no_caution(make_run: MakeRun) -> None:
    assert codes(series(make_run, [100, 100.5, 99.8, 100.1, 100.2, 99.9]), [wave()]) == set()


def test_a_slow_first_run_is_named(make_run: MakeRun) -> None:
    ttfts = [0.5, 0.1, 0.101]
    runs = [make_run(ttft_s=ttft, iteration=n) for n, ttft in enumerate(ttfts)]
    assert codes(runs) == {CautionCode.COLD_FIRST_RUN}


def test_an_answer_far_longer_than_asked_for_is_named(make_run: MakeRun) -> None:
    assert codes([make_run(tokens=120)]) == {CautionCode.LIMIT_IGNORED}
    assert codes([make_run(tokens=101)]) == set()


def test_one_far_run_is_an_outlier(make_run: MakeRun) -> None:
    rates = [100, 100.2, 99.9, 60, 100.1, 99.8, 100.3]
    assert codes(series(make_run, rates)) == {CautionCode.OUTLIERS}


def test_a_far_run_that_does_not_matter_is_not_named(make_run: MakeRun) -> None:
    rates = [100, 100.001, 99.999, 100.1, 100.0, 100.002, 99.998]
    assert codes(series(make_run, rates)) == set()


def test_a_falling_rate_is_thermal_drift(make_run: MakeRun) -> None:
    rates = [100, 98, 96, 94, 92, 90, 88]
    assert codes(series(make_run, rates)) == {CautionCode.THERMAL_DRIFT}


def test_an_early_stop_and_few_tokens_are_named(make_run: MakeRun) -> None:
    assert codes([make_run(tokens=60)]) == {CautionCode.EARLY_STOP}
    short = make_run(tokens=8, requested_tokens=8)
    assert codes([short]) == {CautionCode.FEW_TOKENS}


def test_a_cache_hit_is_named_unless_wanted(make_run: MakeRun) -> None:
    runs = [make_run(cached_tokens=900)]
    assert codes(runs) == {CautionCode.CACHE_HIT}
    assert codes(runs, cache=Cache.PRIMED) == set()
    assert codes([make_run(cached_tokens=12)]) == set()


def test_counting_events_is_named(make_run: MakeRun) -> None:
    assert codes([make_run(counted_by=CountedBy.EVENTS)]) == {CautionCode.EVENTS_COUNTED}


def test_several_tokens_an_event_are_named(make_run: MakeRun) -> None:
    run = make_run(event_offsets_s=tuple(0.1 + 0.04 * k for k in range(25)))
    assert codes([run]) == {CautionCode.GROUPED_TOKENS}


@pytest.mark.parametrize("count", [1000, None])
def test_a_prompt_of_another_or_unknown_length_is_named(
    make_run: MakeRun, count: int | None
) -> None:
    assert codes([make_run(prompt_tokens=count)]) == {CautionCode.PROMPT_LENGTH}


def test_failed_runs_are_named_and_count_for_nothing_else(make_run: MakeRun) -> None:
    runs = [make_run(), make_run(iteration=1, tokens=3, error="HTTP 500: no")]
    assert codes(runs) == {CautionCode.FAILED_RUNS}


def test_a_clock_that_jumped_is_named(make_run: MakeRun) -> None:
    assert codes([make_run()], [wave(clock_drift_s=3.0)]) == {CautionCode.CLOCK}


def test_a_busy_client_is_named(make_run: MakeRun) -> None:
    assert codes([make_run()], [wave(client_cpu_s=1.9)]) == {CautionCode.CLIENT_BUSY}
