import pytest

from mlx_catalog import Catalog, ServingEngine, engine_fit, load_catalog
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
        ("laguna-xs-2.1", ""),
    ],
)
def test_what_no_pinned_engine_can_load_says_why(catalog: Catalog, model: str, because: str):
    assert engine_fit(catalog.get(model)).unservable_because == because


@pytest.mark.parametrize(
    ("model", "engine"),
    [
        ("qwen3-8b", ServingEngine.VLLM_MLX),
        ("gemma4-12b", ServingEngine.VLLM_MLX),  # it sees
        ("laguna-xs-2.1", ServingEngine.MLX_LM),
        ("mellum2-12b-a2.5b", ServingEngine.MLX_LM),
        ("minimax-m3", ServingEngine.MLX_LM),
    ],
)
def test_what_only_a_newer_mlx_lm_loads_is_served_by_it(
    catalog: Catalog, model: str, engine: ServingEngine
):
    assert engine_fit(catalog.get(model)).engine is engine


def test_a_model_may_be_served_by_the_other_engine_which_only_reads_text(catalog: Catalog):
    fit = engine_fit(catalog.get("gemma4-12b"), ServingEngine.MLX_LM)
    assert (fit.engine, fit.multimodal) == (ServingEngine.MLX_LM, False)


def test_the_files_of_a_newer_type_say_that_it_needs_the_newer_engine():
    assert engine_fit(describe("mine", {**LLAMA, "model_type": "mellum"})).engine == "mlx-lm"
    assert engine_fit(describe("mine", LLAMA)).engine == "vllm-mlx"


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


@pytest.mark.parametrize(
    ("said", "lacks"),
    [
        ({"istftnet": {}, "plbert": {}}, "misaki"),
        ({"model_type": "kitten_tts"}, "phonemizer"),
        ({"model_type": "soprano"}, ""),
        ({"model_type": "whisper"}, ""),
    ],
)
def test_what_cannot_speak_without_a_package_says_which(said: dict[str, object], lacks: str):
    because = engine_fit(describe("mine", said)).unservable_because
    assert lacks in because
    assert bool(lacks) == bool(because)


def test_of_the_entries_of_sound_only_kokoro_lacks_one(catalog: Catalog):
    of_sound = [entry for entry in catalog if entry.role.is_of_sound]
    lacking = [entry.id for entry in of_sound if engine_fit(entry).unservable_because]
    assert lacking == ["kokoro-82m"]


def test_every_textual_entry_reuses_prefixes(catalog: Catalog):
    for entry in catalog:
        fit = engine_fit(entry)
        is_usual = entry.role.chats and fit.engine is ServingEngine.VLLM_MLX
        if is_usual and not (fit.multimodal or fit.unservable_because):
            assert fit.reuses_prefixes, entry.id
