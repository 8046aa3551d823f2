"""What the catalog's facts make of an engine's command line."""

import json
from pathlib import Path

import pytest

from mlx_catalog import ModelRole, load_catalog
from mlx_catalog.catalog import SHIPPED_MODELS
from mlx_recommend.calibration import CHECKPOINTS
from mlx_stack.engines.checkpoints import MOST_CHECKPOINTS
from mlx_stack.engines.vllm_mlx import Serving
from mlx_stack.errors import StackError
from mlx_stack.models.serving import entry_of, entry_of_folder, serving_of
from mlx_stack.stack import Tier

CATALOG = load_catalog()
LLAMA = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
    "quantization": {"group_size": 64, "bits": 4},
}
KV_BYTES_PER_TOKEN = 16 * 2 * 8 * 64 * 2


def tier(**fields) -> Tier:
    usual = {
        "name": "standard",
        "model": "my-model",
        "quant": "int4",
        "source": "me/my-model",
        "port": 8000,
        "vllm_flags": {},
    }
    return Tier(**{**usual, **fields})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    return tmp_path


def test_a_model_of_the_catalog_brings_its_parsers(folder):
    traits = serving_of(CATALOG, tier(model="qwen3-8b"), folder)
    assert traits.tool_call_parser == "qwen"
    assert traits.reasoning_parser == "qwen3"
    assert traits.batching
    assert not traits.multimodal


def test_a_model_with_a_vision_tower_is_multimodal(folder):
    assert serving_of(CATALOG, tier(model="gemma3-4b"), folder).multimodal
    (folder / "config.json").write_text(json.dumps({**LLAMA, "vision_config": {"depth": 2}}))
    assert serving_of(CATALOG, tier(), folder).multimodal


def test_a_folder_named_after_a_repository_serves_as_its_entry_says(tmp_path: Path):
    folder = tmp_path / "Qwen3-Reranker-0.6B-4bit"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    found = entry_of_folder(CATALOG, folder)
    assert found is not None
    assert found.role is ModelRole.RERANK
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert entry_of_folder(CATALOG, folder) is None


def test_an_embedder_of_the_catalog_brings_its_vectors(folder):
    bge = CATALOG.get("bge-m3")
    traits = serving_of(CATALOG, tier(model="bge-m3", role=ModelRole.EMBEDDING), folder)
    assert (traits.dimensions, traits.shortens) == (1024, False)
    assert traits.pooling == bge.pooling == "cls"
    smaller = tier(model="qwen3-embedding-0.6b", role=ModelRole.EMBEDDING)
    assert serving_of(CATALOG, smaller, folder).shortens


def test_a_model_pulled_by_its_repository_is_known_as_well():
    source = CATALOG.get("qwen3-8b").sources.int4
    assert source is not None
    found = entry_of(CATALOG, tier(model="my-name", source=source.hf_repo))
    assert found is not None
    assert found.id == "qwen3-8b"


def test_a_model_that_nobody_knows_has_no_parsers_and_is_judged_by_its_files(folder):
    serving = serving_of(CATALOG, tier(), folder)
    assert serving == Serving(reuses_prefixes=True, cache_bytes=serving.cache_bytes)
    sliding = {**LLAMA, "model_type": "gpt_oss", "sliding_window": 128}
    (folder / "config.json").write_text(json.dumps(sliding))
    serving = serving_of(CATALOG, tier(), folder)
    assert serving == Serving(reuses_prefixes=True, cache_bytes=serving.cache_bytes)


def test_the_cache_holds_as_much_as_one_request_at_its_full_context_leaves(folder):
    serving = serving_of(CATALOG, tier(context_tokens=10_000), folder)
    assert serving.cache_bytes == 10_000 * KV_BYTES_PER_TOKEN


def test_the_cache_of_a_catalog_model_follows_its_geometry_not_the_files(folder):
    geometry = CATALOG.get("qwen3-8b").geometry
    elements = geometry.growing_kv_elements_per_token
    assert elements is not None
    serving = serving_of(CATALOG, tier(model="qwen3-8b", context_tokens=1000), folder)
    assert serving.cache_bytes == 1000 * elements * 2


def test_a_model_whose_files_don_t_tell_gets_the_default_cache(folder):
    (folder / "config.json").write_text('{"model_type": "unheard-of"}')
    assert serving_of(CATALOG, tier(), folder).cache_bytes is None


def test_long_prompts_are_read_in_the_steps_that_their_memory_was_planned_with(folder):
    def step(model: str, tokens: int) -> int | None:
        return serving_of(CATALOG, tier(model=model, context_tokens=tokens), folder).prefill_step

    assert step("qwen3.5-4b", 65_536) == 256  # heads of 256 keep a step's scores
    assert step("qwen3.5-4b", 3000) is None
    assert step("qwen3-8b", 40_960) is None  # heads of 128 don't


def test_a_damaged_config_json_is_named(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(StackError, match=r"config\.json"):
        serving_of(CATALOG, tier(), folder)


def test_models_without_a_batched_cache_are_served_one_request_at_a_time(folder):
    traits = {e.id: serving_of(CATALOG, tier(model=e.id), folder) for e in CATALOG}
    unbatched = [name for name, each in traits.items() if not each.batching]
    kinds = {CATALOG.get(name).architecture for name in unbatched}
    assert kinds == {"mamba2-parallel-hybrid", "moe-chunked", "mla-moe"}


def test_the_cache_of_a_hybrid_has_room_for_the_copies_that_are_made_on_the_way(folder):
    geometry = CATALOG.get("qwen3.6-27b").geometry
    elements = geometry.growing_kv_elements_per_token
    assert elements is not None
    tokens = 10_000
    serving = serving_of(CATALOG, tier(model="qwen3.6-27b", context_tokens=tokens), folder)
    state_bytes = (serving.cache_bytes or 0) - tokens * elements * 2
    assert state_bytes > 0
    assert state_bytes % (1 + MOST_CHECKPOINTS) == 0


def test_the_memory_plan_counts_as_many_checkpoints_as_the_engine_keeps():
    assert CHECKPOINTS == MOST_CHECKPOINTS


def test_the_user_s_own_entry_counts(folder, tmp_path):
    shipped = (SHIPPED_MODELS / "qwen3-8b.yaml").read_text()
    own = tmp_path / "catalog"
    own.mkdir()
    (own / "qwen3-8b.yaml").write_text(
        shipped.replace("tool_call_parser: qwen", "tool_call_parser: hermes")
    )
    catalog = load_catalog(own)
    assert serving_of(catalog, tier(model="qwen3-8b"), folder).tool_call_parser == "hermes"


def test_a_model_drafts_where_its_folder_has_the_heads_and_the_engine_serves_it_by_sight(folder):
    seeing, textual = tier(model="qwen3.5-27b"), tier(model="qwen3-8b")
    assert not serving_of(CATALOG, seeing, folder).has_mtp  # as conversions leave it
    (folder / "mtp").mkdir()
    (folder / "mtp" / "weights.safetensors").touch()
    assert serving_of(CATALOG, seeing, folder).has_mtp
    assert not serving_of(CATALOG, textual, folder).has_mtp
