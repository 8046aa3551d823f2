"""One model on several Macs: what fits, what decides, and how fast it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_catalog import Quant, load_catalog
from mlx_hwprobe import HardwareProfile, parse_hardware_spec
from mlx_recommend import (
    GroupEstimate,
    LinkKind,
    SplitKind,
    Workload,
    estimate,
    estimate_group,
    shape_of_entry,
)

CATALOG = load_catalog()
SPECS = ("m4-max:40:128", "m2-ultra:76:192", "m4-pro:20:48", "m1:8:16")
MODELS = ("llama3.3-70b", "qwen3-30b-a3b", "qwen3.5-397b-a17b", "deepseek-v3.1", "qwen3-8b")


def macs(*specs: str) -> list[HardwareProfile]:
    return [parse_hardware_spec(spec) for spec in specs]


def together(
    model: str, *specs: str, quant: Quant = Quant.INT4, **options: object
) -> GroupEstimate:
    return estimate_group(shape_of_entry(CATALOG.get(model), quant), macs(*specs), **options)


@given(
    model=st.sampled_from(MODELS),
    specs=st.lists(st.sampled_from(SPECS), min_size=2, max_size=4),
    kind=st.none() | st.sampled_from(SplitKind),
)
def test_ranges_hold_their_value_and_a_slower_link_is_never_faster(model, specs, kind):
    found = together(model, *specs, kind=kind)
    by_link = {each.kind: each for each in found.speeds}
    for speed in (each for link in found.speeds for each in (link.generation_tps, link.prompt_tps)):
        assert 0 < speed.low <= speed.value <= speed.high
    if LinkKind.JACCL in by_link:
        speeds = [by_link[kind].generation_tps.value for kind in LinkKind]
        thunderbolt, jaccl, ethernet = speeds
        assert jaccl > thunderbolt > ethernet


def test_the_mac_with_the_least_room_decides():
    found = together("llama3.3-70b", "m4-max:40:128", "m4:10:24")
    assert found.fits is False
    assert [part.fits for part in found.parts] == [True, False]
    assert found.fullest.hardware.memory_gb == 24


def test_a_model_that_fits_neither_mac_can_fit_both():
    shape, pair = (
        shape_of_entry(CATALOG.get("llama3.3-70b"), Quant.INT4),
        macs(*["m4-pro:20:48"] * 2),
    )
    assert estimate(shape, pair[0]).fits is False
    found = estimate_group(shape, pair)
    assert found.fits
    assert found.max_context_tokens > 8192


def test_the_longest_context_is_that_of_the_mac_with_the_least_room():
    small = together("llama3.3-70b", "m4-pro:20:48", "m4-pro:20:48").max_context_tokens
    mixed = together("llama3.3-70b", "m2-ultra:76:192", "m4-pro:20:48").max_context_tokens
    assert mixed == small
    assert together("llama3.3-70b", "m1:8:16", "m4-pro:20:48").max_context_tokens == 0


def test_by_tensor_the_slowest_mac_decides_and_by_pipeline_each_adds_its_time():
    fast, slow = "m2-ultra:76:192", "m4-pro:20:48"
    mixed, equal = (
        together("qwen3-30b-a3b", one, slow, kind=SplitKind.TENSOR).generation_tps.value
        for one in (fast, slow)
    )
    assert mixed == pytest.approx(equal, rel=0.2)
    one, other = (
        together("qwen2.5-72b", first, slow, kind=SplitKind.PIPELINE).generation_tps.value
        for first in (fast, slow)
    )
    assert one > 1.2 * other


def test_by_pipeline_two_macs_are_no_faster_than_one():
    shape = shape_of_entry(CATALOG.get("qwen3-30b-a3b"), Quant.INT4)
    mac = macs("m4-max:40:128")
    alone = estimate(shape, mac[0]).generation_tps.value
    assert estimate_group(shape, mac * 2, kind=SplitKind.PIPELINE).generation_tps.value < alone


def test_what_is_quicker_over_thunderbolt_is_taken_of_what_fits():
    pair = ("m4-max:40:128", "m4-max:40:128")
    found = together("qwen3-235b-a22b-instruct-2507", *pair)
    assert (found.split.kind, found.other.split.kind) == (SplitKind.PIPELINE, SplitKind.TENSOR)
    assert found.generation_tps.value > found.other.generation_tps.value
    only = together("llama3.3-70b", *pair)
    assert (only.split.kind, only.other) == (SplitKind.TENSOR, None)


@pytest.mark.parametrize(
    ("model", "count", "kind", "is_possible"),
    [
        ("llama3.3-70b", 2, SplitKind.TENSOR, True),
        ("qwen3-next-80b-a3b-instruct", 2, SplitKind.PIPELINE, True),
        ("qwen3-30b-a3b", 3, SplitKind.PIPELINE, True),  # 32 heads
        ("llama3.3-70b", 3, SplitKind.TENSOR, False),
        ("gemma4-31b", 2, SplitKind.PIPELINE, False),
    ],
)
def test_a_model_is_divided_in_the_way_that_is_possible(model, count, kind, is_possible):
    divided = together(model, *["m4-max:40:128"] * count).split
    assert (divided.kind, not divided.refusals) == (kind, is_possible)


def test_rdma_is_for_macs_that_all_have_thunderbolt_5():
    both = together("llama3.3-70b", "m4-max:40:128", "m3-ultra:80:256")
    one = together("llama3.3-70b", "m4-max:40:128", "m2-ultra:76:192")
    base = together("llama3.3-70b", "m5:10:32", "m5:10:32")
    assert LinkKind.JACCL in {each.kind for each in both.speeds}
    assert LinkKind.JACCL not in {each.kind for each in one.speeds}
    assert LinkKind.JACCL not in {each.kind for each in base.speeds}


def test_rdma_is_for_no_more_macs_than_can_have_a_cable_to_each_other():
    four, eight = (together("llama3.3-70b", *["m4-max:40:128"] * count) for count in (4, 8))
    assert LinkKind.JACCL in {each.kind for each in four.speeds}
    assert LinkKind.JACCL not in {each.kind for each in eight.speeds}


def test_what_cannot_be_divided_does_not_fit_and_has_no_figures():
    found = together("gemma4-31b", "m4-max:40:128", "m4-max:40:128")
    assert found.fits is False
    assert (found.parts, found.speeds) == ((), ())
    assert (found.generation_tps, found.max_context_tokens) == (None, None)


def test_a_mac_of_unknown_speed_leaves_the_speed_open():
    unknown = HardwareProfile(memory_bytes=64_000_000_000, gpu_memory_limit_bytes=48_000_000_000)
    shape = shape_of_entry(CATALOG.get("llama3.3-70b"), Quant.INT4)
    found = estimate_group(shape, [*macs("m4-max:40:128"), unknown])
    assert found.fits
    assert found.generation_tps is None


M3_ULTRA = "m3-ultra:80:512"
PUBLISHED = [
    # https://github.com/georgiedekker/mlx_distributed_ring_inference_v2
    ("qwen3-14b", Quant.INT4, ("m4:10:16",) * 2, LinkKind.THUNDERBOLT, 12.0, 0.15),
    # https://github.com/ml-explore/mlx-lm/pull/990, of a Qwen of the same geometry
    ("qwen3.6-27b", Quant.INT4, ("m4-pro:16:48", "m4-pro:16:24"), LinkKind.JACCL, 17.0, 0.15),
    # https://github.com/ml-explore/mlx-lm/pull/698; and the next, with what makes the GPU wait less
    ("glm-4.7", Quant.INT8, (M3_ULTRA,) * 4, LinkKind.JACCL, 24.6, 0.7),
    # https://huggingface.co/moonshotai/Kimi-K2.7-Code/discussions/7, of a Kimi of the same geometry
    ("kimi-k2.6", Quant.INT4, (M3_ULTRA,) * 2, LinkKind.JACCL, 20.1, 0.3),
]


@pytest.mark.parametrize(("model", "quant", "specs", "link", "measured_tps", "error"), PUBLISHED)
def test_what_others_measured_is_in_the_range(model, quant, specs, link, measured_tps, error):
    work = Workload(context_tokens=2048)
    found = together(model, *specs, quant=quant, workload=work, kind=SplitKind.TENSOR)
    speed = next(each for each in found.speeds if each.kind is link).generation_tps
    assert speed.low <= measured_tps <= speed.high
    assert measured_tps == pytest.approx(speed.value, rel=error)
