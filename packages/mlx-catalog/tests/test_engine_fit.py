import pytest

from mlx_catalog import Catalog, engine_fit, load_catalog


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


@pytest.mark.parametrize(
    "model", ["gpt-oss-20b", "gemma3-1b", "olmo-3-7b", "qwen3.5-9b", "nemotron-nano-9b-v2"]
)
def test_prefixes_are_read_again_where_a_cache_cannot_be_cut(catalog: Catalog, model: str):
    assert not engine_fit(catalog.get(model)).reuses_prefixes


def test_prefixes_are_reused_where_every_layer_keeps_the_whole_context(catalog: Catalog):
    assert engine_fit(catalog.get("qwen3-8b")).reuses_prefixes


def test_a_model_with_a_vision_tower_goes_to_the_multimodal_half(catalog: Catalog):
    assert engine_fit(catalog.get("qwen3.5-9b")).multimodal
    assert not engine_fit(catalog.get("qwen3-8b")).multimodal


def test_layers_with_two_caches_are_not_batched(catalog: Catalog):
    assert not engine_fit(catalog.get("falcon-h1-7b")).batching
    assert engine_fit(catalog.get("nemotron-nano-9b-v2")).batching


@pytest.mark.parametrize(
    ("model", "because"),
    [
        ("qwen3-8b", ""),
        ("gemma4-12b", ""),
        ("deepseek-v4-flash", "no released mlx-lm has the module 'deepseek_v4'"),
        ("laguna-xs-2.1", "it needs mlx-lm 0.32.0; vllm-mlx 0.6.0 holds 0.31.3"),
    ],
)
def test_what_the_pinned_engine_cannot_load_says_why(catalog: Catalog, model: str, because: str):
    assert engine_fit(catalog.get(model)).unservable_because == because
