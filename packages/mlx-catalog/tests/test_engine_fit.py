import pytest

from mlx_catalog import Catalog, engine_fit, load_catalog, serve_flags


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


@pytest.mark.parametrize(
    ("model", "flags"),
    [
        (
            "qwen3.5-9b",
            "--enable-auto-tool-choice --tool-call-parser qwen3_coder --reasoning-parser qwen3",
        ),
        ("granite-4.0-h-tiny", "--enable-auto-tool-choice --tool-call-parser hermes"),
        (
            "gpt-oss-20b",
            "--enable-auto-tool-choice --tool-call-parser harmony --reasoning-parser gpt_oss",
        ),
        ("lfm2.5-1.2b", ""),
        ("gemma3-4b", ""),
        ("phi-4-reasoning-plus", "--reasoning-parser deepseek_r1"),
    ],
)
def test_an_entry_is_served_with_the_parsers_that_read_it(catalog: Catalog, model: str, flags: str):
    assert " ".join(serve_flags(catalog.get(model))) == flags


@pytest.mark.parametrize(
    "model", ["gpt-oss-20b", "gemma3-1b", "olmo-3-7b", "qwen3.5-9b", "nemotron-nano-9b-v2"]
)
def test_the_paged_cache_stays_off_where_it_answers_wrongly_or_saves_nothing(
    catalog: Catalog, model: str
):
    assert not engine_fit(catalog.get(model)).paged_cache


def test_the_paged_cache_is_exact_for_plain_attention(catalog: Catalog):
    assert engine_fit(catalog.get("qwen3-8b")).paged_cache


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
