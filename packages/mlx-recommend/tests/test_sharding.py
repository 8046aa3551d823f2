"""A model divided between Macs: what each gets, and when it can't be."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_catalog import Division, Quant, load_catalog
from mlx_catalog.division import DividedCount, DividedWidth
from mlx_recommend import ModelShape, SplitKind, Workload, memory_use, shape_of_entry, split
from mlx_recommend.sharding import pipeline_layers

CATALOG = load_catalog()
SHAPES = tuple(
    shape
    for shape in (shape_of_entry(entry, Quant.INT4) for entry in CATALOG)
    if shape.undivided is not None and memory_use(shape, Workload()).total_bytes is not None
)
TENSOR, PIPELINE = SplitKind.TENSOR, SplitKind.PIPELINE


def shape_of(model: str, quant: Quant = Quant.INT4) -> ModelShape:
    return shape_of_entry(CATALOG.get(model), quant)


def of_division(**fields: object) -> ModelShape:
    known = {"model_type": "any", "tensor": True, "pipeline": True, "layers": 32}
    return replace(shape_of("qwen3-8b"), division=Division(**{**known, **fields}))


@given(
    shape=st.sampled_from(SHAPES),
    macs=st.integers(2, 8),
    kind=st.sampled_from(SplitKind),
    tokens=st.sampled_from((2048, 32_768)),
)
def test_together_the_macs_hold_the_whole_model_and_none_holds_more(shape, macs, kind, tokens):
    divided = split(shape, macs, kind)
    work = Workload(context_tokens=tokens)
    whole, parts = memory_use(shape, work), [each.memory(work) for each in divided.shares]
    for part in parts:
        assert part.total_bytes <= whole.total_bytes
    for name in ("weights_bytes", "kv_cache_bytes", "state_bytes"):
        if parts:
            assert sum(getattr(part, name) for part in parts) >= getattr(whole, name)


@given(layers=st.integers(8, 200), macs=st.integers(1, 8))
def test_every_layer_is_dealt_out_and_the_first_macs_get_what_is_left_over(layers: int, macs: int):
    dealt = pipeline_layers(layers, macs)
    assert sum(dealt) == layers
    assert sorted(dealt, reverse=True) == list(dealt)
    assert dealt[0] - dealt[-1] <= 1


def test_by_tensor_each_mac_keeps_embedding_and_output_layer_whole():
    shape = shape_of("llama3.3-70b")
    ends = shape.undivided.output_bytes + shape.undivided.beside_bytes
    (first, _) = split(shape, 2, TENSOR).shares
    assert first.shape.weights_bytes == pytest.approx((shape.weights_bytes - ends) / 2 + ends)


def test_by_tensor_keys_and_values_are_divided_by_the_macs():
    work = Workload(context_tokens=32_768)
    whole = memory_use(shape_of("llama3.3-70b"), work).kv_cache_bytes
    parts = split(shape_of("llama3.3-70b"), 4, TENSOR).shares
    assert {each.memory(work).kv_cache_bytes for each in parts} == {whole // 4}


def test_by_tensor_each_mac_caches_all_latents():
    work = Workload(context_tokens=32_768)
    shape = shape_of("deepseek-v3.1")
    parts = split(shape, 2, TENSOR).shares
    whole = memory_use(shape, work).kv_cache_bytes
    assert {each.memory(work).kv_cache_bytes for each in parts} == {whole}


def test_by_pipeline_keys_and_values_are_divided_by_layers():
    work = Workload(context_tokens=32_768)
    shape = shape_of("deepseek-v3.1")  # 61 layers
    first, second = split(shape, 2, PIPELINE).shares
    assert (first.layers, second.layers) == (31, 30)
    whole = memory_use(shape, work).kv_cache_bytes
    assert first.memory(work).kv_cache_bytes == pytest.approx(whole * 31 / 61, rel=1e-3)


def test_macs_that_share_kv_heads_cache_the_same_ones():
    shape = shape_of("qwen3.5-397b-a17b")  # two KV heads
    work = Workload(context_tokens=32_768)
    whole = memory_use(shape, work).kv_cache_bytes
    parts = split(shape, 4, TENSOR).shares
    assert {each.memory(work).kv_cache_bytes for each in parts} == {whole // 2}


@pytest.mark.parametrize(
    ("fields", "because"),
    [
        (
            {"counts": (DividedCount("KV heads", 3),)},
            "its 3 KV heads can't be divided evenly by 2 Macs",
        ),
        (
            {"widths": (DividedWidth("the networks", 2880, 64),)},
            (
                "the width of the networks, 2,880 divided by 2 Macs, isn't a whole number of"
                " groups of 64 quantized weights"
            ),
        ),
        (
            {"widths": (DividedWidth("the networks", 2881),)},
            "the width of the networks, 2,881, can't be divided by 2 Macs",
        ),
        ({"tensor": False}, "mlx-lm can divide models of the type any by pipeline only"),
        (
            {"tensor": False, "pipeline": False},
            "mlx-lm can't divide models of the type any between Macs",
        ),
    ],
)
def test_what_cannot_be_divided_by_tensor_says_why(fields: dict[str, object], because: str):
    divided = split(of_division(**fields), 2, TENSOR)
    assert divided.refusals == (because,)
    assert divided.shares == ()


def test_what_cannot_be_divided_by_pipeline_says_why():
    by_tensor_only = split(of_division(pipeline=False), 2, PIPELINE)
    assert by_tensor_only.refusals == ("mlx-lm can divide models of the type any by tensor only",)
    few = split(of_division(layers=4), 5, PIPELINE)
    assert few.refusals == ("it has 4 layers, fewer than there are Macs",)


def test_only_models_that_chat_are_divided():
    assert split(shape_of("bge-m3"), 2, TENSOR).refusals == (
        "only models that chat are divided between Macs",
    )


def test_fewer_kv_heads_than_macs_are_fine_where_macs_share_them():
    shared = (DividedCount("KV heads", 2, is_shared=True),)
    assert not split(of_division(counts=shared), 4, TENSOR).refusals
    assert split(of_division(counts=shared), 3, TENSOR).refusals


def test_widths_that_are_whole_groups_on_each_mac_are_fine():
    widths = (DividedWidth("the experts", 2880, 32),)
    assert not split(of_division(widths=widths), 2, TENSOR).refusals
    assert split(of_division(widths=widths), 4, TENSOR).refusals


def test_of_a_type_that_is_not_known_nothing_is_refused_and_nothing_said():
    divided = split(replace(shape_of("qwen3-8b"), division=None), 2, TENSOR)
    assert (divided.refusals, divided.shares) == ((), ())
