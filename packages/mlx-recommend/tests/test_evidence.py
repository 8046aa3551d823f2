"""The ladder of evidence: what beats what, and what never counts."""

import msgspec
import pytest

from mlx_catalog import BenchmarkFigure, load_catalog
from mlx_hwprobe import parse_hardware_spec
from mlx_recommend import (
    Basis,
    Measurement,
    Workload,
    estimate,
    reference_measurements,
    shape_of_entry,
)

ENTRY = load_catalog().get("qwen3-8b")
SHAPE = shape_of_entry(ENTRY, "int4")
MAC = parse_hardware_spec("m4-pro:20:24")


def measured(basis: Basis = Basis.MEASURED, **figures: object) -> Measurement:
    return Measurement(basis=basis, quant="int4", prompt_tokens=1024, **figures)


def test_saved_benchmarks_beat_published_figures_which_beat_the_estimate():
    published = measured(Basis.REFERENCE, generation_tps=52.0, prompt_tps=410.0)
    saved = measured(generation_tps=47.0)
    assert estimate(SHAPE, MAC).generation_tps.basis is Basis.ESTIMATE
    assert estimate(SHAPE, MAC, measurements=[published]).generation_tps.basis is Basis.REFERENCE
    both = estimate(SHAPE, MAC, measurements=[saved, published])
    assert both.generation_tps.basis is Basis.MEASURED
    assert both.generation_tps.value == pytest.approx(47.0)
    assert both.prompt_tps.basis is Basis.REFERENCE


def test_the_latest_of_several_saved_results_counts():
    results = [measured(generation_tps=40.0), measured(generation_tps=44.0)]
    assert estimate(SHAPE, MAC, measurements=results).generation_tps.value == pytest.approx(44.0)


@pytest.mark.parametrize("missing", [None, 0, 0.0, -5.0, 1e308])
def test_a_missing_or_impossible_figure_is_no_evidence(missing):
    odd = measured(generation_tps=missing, prompt_tps=missing)
    expected = estimate(SHAPE, MAC, measurements=[odd])
    assert expected == estimate(SHAPE, MAC)


def test_no_measurement_changes_what_a_model_takes():
    plain = estimate(SHAPE, MAC)
    saved = estimate(SHAPE, MAC, measurements=[measured(generation_tps=900.0, prompt_tps=1e6)])
    assert saved.memory == plain.memory
    assert saved.fits == plain.fits


def test_a_figure_of_another_precision_is_not_used():
    other = Measurement(basis=Basis.MEASURED, quant="int8", generation_tps=30.0)
    assert estimate(SHAPE, MAC, measurements=[other]).generation_tps.basis is Basis.ESTIMATE


def test_a_figure_is_carried_over_to_a_longer_context_and_its_range_widens():
    saved = [measured(generation_tps=50.0)]
    near = estimate(SHAPE, MAC, Workload(context_tokens=1024), saved).generation_tps
    work = Workload(context_tokens=30_000, speed_context_tokens=None)
    far = estimate(SHAPE, MAC, work, saved).generation_tps
    assert near.value == pytest.approx(50.0)
    assert far.value < 0.7 * near.value
    assert far.high / far.low > near.high / near.low


def figures_on(profile_id: str, gpu_cores: int | None = None):
    figure = BenchmarkFigure(source="x", quant="int4", gen_tps=50, gpu_cores=gpu_cores)
    return msgspec.structs.replace(ENTRY, benchmarks={profile_id: figure})


@pytest.mark.parametrize(
    ("profile_id", "gpu_cores", "spec", "counts"),
    [
        ("m4-pro-24", 20, "m4-pro:20:24", True),
        ("m4-pro-24", 20, "m4-pro:20:48", True),
        ("m4-pro-24", 20, "m4-pro:16:24", False),
        ("m4-max-64", 40, "m4-max:32:36", False),
        ("m4-max-64", None, "m4-max:40:64", True),
        ("m4-max-64", None, "m4-max:40:128", False),
        ("m4-24", 10, "m4-pro:20:24", False),
    ],
)
def test_a_published_figure_counts_for_the_same_bin_only(profile_id, gpu_cores, spec, counts):
    found = reference_measurements(figures_on(profile_id, gpu_cores), parse_hardware_spec(spec))
    assert bool(found) is counts


def test_a_speed_that_was_measured_with_drafts_replaces_the_range():
    drafting = shape_of_entry(load_catalog().get("qwen3.5-27b"), "int4")
    assert estimate(drafting, MAC).mtp_tps.basis is Basis.ESTIMATE
    found = estimate(drafting, MAC, measurements=[measured(mtp_tps=21.5)])
    assert found.mtp_tps.basis is Basis.MEASURED
    assert found.mtp_tps.value == pytest.approx(21.5)
    assert found.generation_tps == estimate(drafting, MAC).generation_tps
