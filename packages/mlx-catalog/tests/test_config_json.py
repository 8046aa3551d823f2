"""Configurations with the layouts of published models, and what must follow for their memory."""

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_catalog.config_json import read_config
from mlx_catalog.model_types import model_types
from mlx_catalog.precision import Scheme

QWEN3 = {
    "model_type": "qwen3",
    "num_hidden_layers": 36,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
    "max_position_embeddings": 40960,
    "sliding_window": 4096,
    "torch_dtype": "bfloat16",
}
DELTANET = {
    "num_hidden_layers": 40,
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "max_position_embeddings": 262144,
    "num_experts": 256,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
}
GEMMA3 = {
    "model_type": "gemma3",
    "vision_config": {},
    "text_config": {
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "hidden_size": 2560,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window": 1024,
    },
}
GEMMA4 = {
    "model_type": "gemma4",
    "vision_config": {},
    "text_config": {
        "model_type": "gemma4_text",
        "num_hidden_layers": 30,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "num_global_key_value_heads": 2,
        "attention_k_eq_v": True,
        "head_dim": 256,
        "global_head_dim": 512,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 5,
        "sliding_window": 1024,
        "num_kv_shared_layers": 0,
    },
}
GEMMA4_SMALL = {
    "model_type": "gemma4",
    "text_config": {
        "model_type": "gemma4_text",
        "num_hidden_layers": 35,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "global_head_dim": 512,
        "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 7,
        "sliding_window": 512,
        "num_kv_shared_layers": 20,
    },
}
NEMOTRON_H = {
    "model_type": "nemotron_h",
    "hybrid_override_pattern": "M-M-M-MM-M-M*-M-M*-M-M-M*-M-M-MM*-MMM-M-M-",
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "mamba_num_heads": 96,
    "mamba_head_dim": 80,
    "n_groups": 8,
    "ssm_state_size": 128,
    "conv_kernel": 4,
}
GRANITE_H = {
    "model_type": "granitemoehybrid",
    "num_hidden_layers": 40,
    "hidden_size": 1536,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "layer_types": (["mamba"] * 9 + ["attention"]) * 4,
    "mamba_n_heads": 48,
    "mamba_d_head": 64,
    "mamba_d_state": 128,
    "mamba_n_groups": 1,
    "mamba_d_conv": 4,
    "num_local_experts": 64,
    "num_experts_per_tok": 6,
    "shared_intermediate_size": 1024,
}
FALCON_H1 = {
    "model_type": "falcon_h1",
    "num_hidden_layers": 44,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "mamba_d_head": 128,
    "mamba_n_heads": 24,
    "mamba_d_state": 256,
    "mamba_n_groups": 1,
    "mamba_d_conv": 4,
}
LFM2 = {
    "model_type": "lfm2",
    "num_hidden_layers": 16,
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "full_attn_idxs": [2, 5, 8, 10, 12, 14],
    "conv_L_cache": 3,
}
GPT_OSS = {
    "model_type": "gpt_oss",
    "num_hidden_layers": 24,
    "hidden_size": 2880,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "sliding_window": 128,
    "num_local_experts": 32,
    "num_experts_per_tok": 4,
    "intermediate_size": 2880,
}
GLM_LITE = {
    "model_type": "glm4_moe_lite",
    "num_hidden_layers": 47,
    "num_attention_heads": 20,
    "num_key_value_heads": 20,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "n_routed_experts": 64,
    "num_experts_per_tok": 4,
    "n_shared_experts": 1,
}
KIMI_LINEAR = {
    "model_type": "kimi_linear",
    "num_hidden_layers": 27,
    "num_attention_heads": 32,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "linear_attn_config": {
        "kda_layers": [i for i in range(1, 28) if i % 4 and i != 27],
        "num_heads": 32,
        "head_dim": 128,
        "short_conv_kernel_size": 4,
    },
    "num_experts": 256,
    "num_experts_per_token": 8,
}
LLAMA4 = {
    "model_type": "llama4",
    "vision_config": {},
    "text_config": {
        "model_type": "llama4_text",
        "num_hidden_layers": 48,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "attention_chunk_size": 8192,
        "num_local_experts": 16,
        "num_experts_per_tok": 1,
    },
}
MISTRAL3 = {
    "model_type": "mistral3",
    "vision_config": {},
    "text_config": {
        "model_type": "mistral",
        "num_hidden_layers": 40,
        "hidden_size": 5120,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
}
JAMBA = {
    "model_type": "jamba",
    "num_hidden_layers": 28,
    "hidden_size": 2560,
    "num_attention_heads": 20,
    "num_key_value_heads": 1,
    "attn_layer_period": 14,
    "attn_layer_offset": 7,
    "mamba_expand": 2,
    "mamba_d_conv": 4,
    "mamba_d_state": 16,
    "num_experts": 1,
}
NAS = {
    "model_type": "nemotron-nas",
    "num_hidden_layers": 3,
    "hidden_size": 8192,
    "num_attention_heads": 64,
    "block_configs": [
        {"attention": {"n_heads_in_group": 8}},
        {"attention": {"no_op": True, "n_heads_in_group": None}},
        {"attention": {"replace_with_linear": True}},
    ],
}


@pytest.mark.parametrize(
    ("config", "architecture", "kv_bytes", "window_bytes", "state_bytes"),
    [
        # Of 16-bit values: bytes for each token of context, for a full window, for one sequence.
        (QWEN3, "transformer", 147456, 0, 0),
        ({"model_type": "qwen3_next", **DELTANET}, "gated-deltanet-hybrid-moe", 20480, 0, 64389120),
        (GEMMA3, "transformer-swa", 20480, 121634816, 0),
        (GEMMA4, "transformer-swa", 20480, 209715200, 0),
        (GEMMA4_SMALL, "transformer-swa", 6144, 6291456, 0),
        (NEMOTRON_H, "mamba2-hybrid", 16384, 0, 21 * (6 * 9728 + 96 * 80 * 128 * 4)),
        (GRANITE_H, "mamba2-hybrid-moe", 8192, 0, 36 * (6 * 3328 + 48 * 64 * 128 * 4)),
        (FALCON_H1, "mamba2-parallel-hybrid", 45056, 0, 44 * (6 * 3584 + 24 * 128 * 256 * 4)),
        (LFM2, "shortconv-hybrid", 12288, 0, 81920),
        (GPT_OSS, "moe-swa", 24576, 3145728, 0),
        (GLM_LITE, "mla-moe", 54144, 0, 0),
        (KIMI_LINEAR, "kda-mla-hybrid-moe", 8064, 0, 20 * (3 * 12288 * 2 + 32 * 128 * 128 * 4)),
        (LLAMA4, "moe-chunked", 49152, 1207959552, 0),
        (MISTRAL3, "transformer", 163840, 0, 0),
        (JAMBA, "mamba1-hybrid", 1024, 0, 26 * (3 * 5120 + 5120 * 16) * 2),
        (NAS, "nas-transformer", 4096, 0, 0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_memory_of_a_layout_follows_from_its_config(
    config: dict[str, object],
    architecture: str,
    kv_bytes: int,
    window_bytes: int,
    state_bytes: int,
):
    reading = read_config(config)
    geometry = reading.geometry
    assert reading.known
    assert geometry is not None
    growing, sliding = (
        geometry.growing_kv_elements_per_token,
        geometry.sliding_kv_elements_per_token,
    )
    assert growing is not None
    assert sliding is not None
    assert reading.architecture == architecture
    assert 2 * growing == kv_bytes
    assert 2 * sliding * (geometry.sliding_window or 0) == window_bytes
    assert geometry.state_bytes_per_sequence == state_bytes


def test_a_multimodal_model_is_described_by_its_language_part():
    reading = read_config(GEMMA3)
    assert reading.tower is not None
    assert reading.model_type == "gemma3"
    assert reading.geometry is not None
    assert (reading.geometry.full_attention_layers, reading.geometry.sliding_layers) == (5, 29)


def test_an_unknown_type_says_what_can_be_said_and_that_the_cache_is_unknown():
    reading = read_config({**QWEN3, "model_type": "spark9"})
    assert not reading.known
    assert reading.architecture is None
    assert reading.notes == ("the cache layout of the model type 'spark9' is not known",)
    geometry = reading.geometry
    assert geometry is not None
    assert (geometry.layers, geometry.hidden_size, geometry.kv_heads) == (36, 4096, 8)
    assert geometry.growing_kv_elements_per_token is None
    assert geometry.sliding_kv_elements_per_token is None


def test_a_config_without_layers_has_no_geometry():
    reading = read_config({"model_type": "qwen3"})
    assert reading.geometry is None
    assert not reading.known


def test_a_layer_type_that_is_not_known_makes_the_layout_unknown():
    config = {**GRANITE_H, "layer_types": ["mamba"] * 39 + ["quantum"]}
    assert not read_config(config).known


def test_a_missing_dimension_of_the_state_leaves_the_state_unknown_not_zero():
    config = {key: value for key, value in FALCON_H1.items() if key != "mamba_d_state"}
    geometry = read_config(config).geometry
    assert geometry is not None
    assert geometry.state_bytes_per_sequence is None


def test_experts_are_counted_with_the_shared_one():
    geometry = read_config({"model_type": "qwen3_next", **DELTANET}).geometry
    assert geometry is not None
    assert geometry.experts is not None
    assert (geometry.experts.total, geometry.experts.active, geometry.experts.shared) == (256, 8, 1)


@pytest.mark.parametrize(
    ("said", "heads"),
    [({"hidden_size": 2560}, 4), ({"num_attention_heads": 16, "num_key_value_heads": 8}, 8)],
)
def test_what_gemma_3_leaves_out_is_what_its_class_supposes(said: dict[str, object], heads: int):
    text = {"model_type": "gemma3_text", "num_hidden_layers": 48, "sliding_window": 1024, **said}
    reading = read_config({"model_type": "gemma3", "vision_config": {}, "text_config": text})
    assert reading.geometry is not None
    assert (reading.geometry.kv_heads, reading.geometry.head_dim) == (heads, 256)
    assert reading.max_context_tokens == 131072


def test_layers_are_found_under_the_names_of_older_families():
    gpt2 = {"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12}
    reading = read_config(gpt2)
    assert reading.known
    assert reading.geometry is not None
    assert reading.geometry.growing_kv_elements_per_token == 12 * 2 * 768


def test_more_shared_layers_than_there_are_is_an_unknown_layout():
    text = {**GEMMA4_SMALL["text_config"], "num_kv_shared_layers": 1000}
    assert not read_config({**GEMMA4_SMALL, "text_config": text}).known


def scheme_of(**quantization: object) -> Scheme:
    scheme = read_config({**QWEN3, "quantization": quantization}).precision.scheme
    assert scheme is not None
    return scheme


def test_quantization_is_read_with_its_exceptions():
    own = {"model.embed_tokens": {"group_size": 32, "bits": 8}, "lm_head": False}
    scheme = scheme_of(group_size=32, bits=4, **own)
    assert scheme.bits_per_weight == 5.0
    embedding = scheme.overrides["model.embed_tokens"]
    assert embedding is not None
    assert embedding.bits == 8
    assert scheme.overrides["lm_head"] is None


def test_the_scales_of_the_fp_modes_are_smaller():
    assert scheme_of(group_size=32, bits=4, mode="mxfp4").bits_per_weight == 4.25


keys = st.sampled_from(
    sorted({key for config in (GEMMA4, NEMOTRON_H, KIMI_LINEAR, NAS, JAMBA) for key in config})
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**6) | st.text(max_size=4),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(keys, children, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([QWEN3, GEMMA4, NEMOTRON_H, GRANITE_H, LFM2, KIMI_LINEAR, NAS, JAMBA]),
    st.dictionaries(keys, anything, max_size=3),
)
def test_a_damaged_config_is_read_without_an_exception(
    config: dict[str, object], damage: dict[str, object]
):
    reading = read_config({**config, **damage})
    if reading.geometry is not None:
        assert reading.geometry.layers > 0


def test_the_program_reads_a_config_file(tmp_path: Path, program: tuple[str, ...]):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(QWEN3), encoding="utf-8")
    done = subprocess.run([*program, "read", file], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["geometry"]["full_attention_layers"] == 36
    assert answer["max_context_tokens"] == 40960
    assert answer["quantization"] == "bfloat16"


@pytest.mark.parametrize("count", [10**9, 10**20, -1])
def test_an_absurd_number_of_layers_is_an_unknown_one(count: int):
    reading = read_config({**QWEN3, "num_hidden_layers": count})
    assert not reading.known


MULTI_QUERY = {
    "model_type": "gpt_bigcode",
    "n_layer": 10,
    "n_embd": 640,
    "n_head": 10,
    "n_positions": 2048,
    "vocab_size": 500,
}
DBRX = {
    "model_type": "dbrx",
    "d_model": 768,
    "n_layers": 5,
    "n_heads": 12,
    "vocab_size": 900,
    "max_seq_len": 8192,
    "attn_config": {"kv_n_heads": 3},
    "ffn_config": {"ffn_hidden_size": 512, "moe_num_experts": 6, "moe_top_k": 2},
}
LATENTS_WITHOUT_VALUES = {
    "model_type": "minicpm3",
    "num_hidden_layers": 3,
    "hidden_size": 1200,
    "num_attention_heads": 20,
    "kv_lora_rank": 128,
    "q_lora_rank": 256,
    "qk_nope_head_dim": 40,
    "qk_rope_head_dim": 20,
}


@pytest.mark.parametrize(
    ("config", "elements"),
    [
        (MULTI_QUERY, 10 * 2 * 64),
        ({**MULTI_QUERY, "multi_query": False}, 10 * 2 * 640),
        (DBRX, 5 * 2 * 3 * 64),
        ({**QWEN3, "num_key_value_heads": [8] * 36}, 36 * 2 * 8 * 128),
        ({**QWEN3, "num_key_value_heads": 8.0, "head_dim": 64.0}, 36 * 2 * 8 * 64),
        ({key: value for key, value in QWEN3.items() if "key_value" not in key}, 36 * 2 * 32 * 128),
        (LATENTS_WITHOUT_VALUES, 3 * 20 * (40 + 20 + 60)),
        ({**LATENTS_WITHOUT_VALUES, "v_head_dim": 36}, 3 * 20 * (40 + 20 + 36)),
    ],
)
def test_heads_are_read_however_they_are_said(config: dict[str, object], elements: int):
    geometry = read_config(config).geometry
    assert geometry is not None
    assert geometry.growing_kv_elements_per_token == elements


@pytest.mark.parametrize(
    "config",
    [
        {**QWEN3, "num_key_value_heads": [8] * 18 + [4] * 18},
        {**QWEN3, "num_key_value_heads": "few"},
        {**QWEN3, "head_dim": 127.5},
        {**LATENTS_WITHOUT_VALUES, "qk_rope_head_dim": None},
        {**LATENTS_WITHOUT_VALUES, "model_type": "deepseek_v2"},
        {"model_type": "deepseek_v3", "num_hidden_layers": 4, "num_attention_heads": 8},
    ],
)
def test_heads_that_cannot_be_read_leave_the_cache_unknown_and_not_at_its_dearest(
    config: dict[str, object],
):
    geometry = read_config(config).geometry
    assert geometry is not None
    assert geometry.growing_kv_elements_per_token is None


YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 4096}


@pytest.mark.parametrize(
    ("said", "longest"),
    [
        ({"max_position_embeddings": 40960.0}, 40960),
        ({"max_position_embeddings": 4096, "rope_scaling": YARN}, 32768),
        ({"max_position_embeddings": 32768, "rope_scaling": YARN}, 32768),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "yarn", "factor": 2}}, 8192),
        ({"max_position_embeddings": 4096, "rope_parameters": YARN}, 32768),
        ({"max_position_embeddings": 4096, "rope_parameters": {"full_attention": YARN}}, 32768),
        ({"max_position_embeddings": 4096, "rope_scaling": {**YARN, "factor": "x"}}, 4096),
        ({"max_position_embeddings": 4096, "rope_scaling": {**YARN, "rope_type": "llama3"}}, 4096),
        ({"max_position_embeddings": 8192, "model_max_length": 131072}, 8192),
        ({"model_max_length": 65536}, 65536),
        ({"n_positions": 1024}, 1024),
        ({"n_ctx": 1536}, 1536),
        ({"seq_length": 3072}, 3072),
        ({"max_sequence_length": 5120}, 5120),
        ({"max_seq_len": 6144}, 6144),
        ({}, None),
    ],
)
def test_the_longest_context_is_read_however_it_is_said(said: dict[str, object], longest: int):
    config = {key: value for key, value in QWEN3.items() if key != "max_position_embeddings"}
    assert read_config({**config, **said}).max_context_tokens == longest


def test_cohere_means_the_other_length():
    said = {"max_position_embeddings": 8192, "model_max_length": 131072}
    assert read_config({**QWEN3, **said, "model_type": "cohere"}).max_context_tokens == 131072
    assert read_config({**QWEN3, **said, "model_type": "cohere2"}).max_context_tokens == 131072


def test_every_row_of_the_table_names_what_there_is():
    for name, row in model_types().items():
        text = row.in_usual_names({**GEMMA4["text_config"], "hidden_size": 512})
        assert row.heads(text, is_sliding=False) is not None, name
        row.kinds(text, 30)
        row.state(text, 2)


def test_a_row_may_take_another_over():
    assert model_types()["kimi_k2"] is model_types()["deepseek_v3"]
