import pytest

from mlx_catalog import Catalog, engine_fit, load_catalog
from mlx_catalog.model_files import describe


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


@pytest.mark.parametrize(
    "model",
    ["qwen3-8b", "gpt-oss-20b", "gemma3-1b", "olmo-3-7b", "qwen3.6-27b", "nemotron-nano-9b-v2"],
)
def test_prefixes_are_reused_whatever_the_layers_keep(catalog: Catalog, model: str):
    assert engine_fit(catalog.get(model)).reuses_prefixes


@pytest.mark.parametrize("model", ["qwen3-vl-8b", "gemma3-12b", "llama4-scout"])
def test_prefixes_are_read_again_by_the_half_for_images(catalog: Catalog, model: str):
    assert not engine_fit(catalog.get(model)).reuses_prefixes


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


LLAMA = {
    "model_type": "llama",
    "hidden_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize(
    ("said", "reuses"),
    [
        ({}, True),
        ({"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 64}, True),
        ({"vision_config": {}}, False),
        ({"model_type": "qwen3_5", "vision_config": {}}, True),
        ({"model_type": "deepseek_v3", "kv_lora_rank": 64, "qk_rope_head_dim": 16}, True),
        ({"model_type": "falcon_h1"}, True),
        ({"model_type": "brand_new"}, False),
    ],
)
def test_a_model_that_was_read_is_judged_as_an_entry_is(said: dict[str, object], reuses: bool):
    assert engine_fit(describe("mine", {**LLAMA, **said})).reuses_prefixes is reuses


def test_every_textual_entry_reuses_prefixes(catalog: Catalog):
    for entry in catalog:
        fit = engine_fit(entry)
        if entry.role.chats and not fit.multimodal and not fit.unservable_because:
            assert fit.reuses_prefixes, entry.id
