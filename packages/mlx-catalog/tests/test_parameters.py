"""Parameters counted from the widths of real configurations, against published counts."""

import pytest

from mlx_catalog.config_json import read_config
from mlx_catalog.parameters import weights_of_config
from mlx_catalog.weights import TensorRole, Weights


def weights(config) -> Weights | None:
    return weights_of_config(read_config(config))


QWEN3_8B = {
    "model_type": "qwen3",
    "num_hidden_layers": 36,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
}
QWEN3_30B_A3B = {
    "model_type": "qwen3_moe",
    "num_hidden_layers": 48,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
}
QWEN3_6_35B_A3B = {
    "model_type": "qwen3_5_moe",
    "text_config": {
        "model_type": "qwen3_5_moe_text",
        "num_hidden_layers": 40,
        "hidden_size": 2048,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
        "num_experts": 256,
        "num_experts_per_tok": 8,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "full_attention_interval": 4,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "vocab_size": 248320,
    },
}
GEMMA4_E2B = {
    "model_type": "gemma4",
    "num_hidden_layers": 35,
    "hidden_size": 1536,
    "intermediate_size": 6144,
    "use_double_wide_mlp": True,
    "num_kv_shared_layers": 20,
    "hidden_size_per_layer_input": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "global_head_dim": 512,
    "layer_types": ["sliding_attention"] * 28 + ["full_attention"] * 7,
    "vocab_size": 262144,
}
GEMMA4_26B_A4B = {
    "model_type": "gemma4",
    "num_hidden_layers": 30,
    "hidden_size": 2816,
    "intermediate_size": 2112,
    "moe_intermediate_size": 704,
    "num_experts": 128,
    "top_k_experts": 8,
    "enable_moe_block": True,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 256,
    "global_head_dim": 512,
    "num_global_key_value_heads": 2,
    "attention_k_eq_v": True,
    "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 5,
    "vocab_size": 262144,
}
MIXTRAL_8X7B = {
    "model_type": "mixtral",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
}
DEEPSEEK_V3 = {
    "model_type": "deepseek_v3",
    "num_hidden_layers": 61,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "first_k_dense_replace": 3,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "num_attention_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 129280,
}
KIMI_LINEAR = {
    "model_type": "kimi_linear",
    "num_hidden_layers": 27,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "moe_intermediate_size": 1024,
    "first_k_dense_replace": 1,
    "num_experts": 256,
    "num_experts_per_token": 8,
    "num_shared_experts": 1,
    "num_attention_heads": 32,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "linear_attn_config": {
        "kda_layers": [number for number in range(1, 27) if number % 4],
        "num_heads": 32,
        "head_dim": 128,
        "short_conv_kernel_size": 4,
    },
    "vocab_size": 163840,
}
NEMOTRON_NANO_9B = {
    "model_type": "nemotron_h",
    "hidden_size": 4480,
    "intermediate_size": 15680,
    "hybrid_override_pattern": "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-",
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "mamba_num_heads": 128,
    "mamba_head_dim": 80,
    "n_groups": 8,
    "ssm_state_size": 128,
    "conv_kernel": 4,
    "vocab_size": 131072,
}
NEMOTRON_3_NANO = {
    "model_type": "nemotron_h",
    "hidden_size": 2688,
    "hybrid_override_pattern": "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
    "moe_intermediate_size": 1856,
    "moe_shared_expert_intermediate_size": 3712,
    "n_routed_experts": 128,
    "n_shared_experts": 1,
    "num_experts_per_tok": 6,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "mamba_num_heads": 64,
    "mamba_head_dim": 64,
    "n_groups": 8,
    "ssm_state_size": 128,
    "conv_kernel": 4,
    "vocab_size": 131072,
}
FALCON_H1_7B = {
    "model_type": "falcon_h1",
    "num_hidden_layers": 44,
    "hidden_size": 3072,
    "intermediate_size": 12288,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "mamba_n_heads": 24,
    "mamba_d_head": 128,
    "mamba_d_state": 256,
    "mamba_n_groups": 1,
    "mamba_d_conv": 4,
    "vocab_size": 130048,
    "tie_word_embeddings": False,
}
GRANITE_4_H_TINY = {
    "model_type": "granitemoehybrid",
    "num_hidden_layers": 40,
    "hidden_size": 1536,
    "intermediate_size": 512,
    "shared_intermediate_size": 1024,
    "num_local_experts": 64,
    "num_experts_per_tok": 6,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "layer_types": (["mamba"] * 9 + ["attention"]) * 4,
    "mamba_n_heads": 48,
    "mamba_d_head": 64,
    "mamba_d_state": 128,
    "mamba_n_groups": 1,
    "mamba_d_conv": 4,
    "vocab_size": 100352,
}
JAMBA_MINI = {
    "model_type": "jamba",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "attn_layer_offset": 4,
    "attn_layer_period": 8,
    "expert_layer_offset": 1,
    "expert_layer_period": 2,
    "num_experts": 16,
    "num_experts_per_tok": 2,
    "mamba_d_conv": 4,
    "mamba_d_state": 16,
    "mamba_expand": 2,
    "mamba_dt_rank": 256,
    "vocab_size": 65536,
    "tie_word_embeddings": False,
}
LFM2_1_2B = {
    "model_type": "lfm2",
    "num_hidden_layers": 16,
    "hidden_size": 2048,
    "block_ff_dim": 12288,
    "block_auto_adjust_ff_dim": True,
    "block_ffn_dim_multiplier": 1.0,
    "block_multiple_of": 256,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "full_attn_idxs": [2, 5, 8, 10, 12, 14],
    "conv_L_cache": 3,
    "vocab_size": 65536,
}
LLAMA4_MAVERICK = {
    "model_type": "llama4",
    "text_config": {
        "model_type": "llama4_text",
        "num_hidden_layers": 48,
        "hidden_size": 5120,
        "intermediate_size": 8192,
        "intermediate_size_mlp": 16384,
        "interleave_moe_layer_step": 2,
        "num_local_experts": 128,
        "num_experts_per_tok": 1,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "attention_chunk_size": 8192,
        "vocab_size": 202048,
    },
}
GEMMA_3N_E4B = {
    "model_type": "gemma3n",
    "text_config": {
        "model_type": "gemma3n_text",
        "num_hidden_layers": 35,
        "hidden_size": 2048,
        "intermediate_size": [16384] * 35,
        "hidden_size_per_layer_input": 256,
        "vocab_size_per_layer_input": 262144,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "num_kv_shared_layers": 15,
        "sliding_window": 512,
        "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 7,
        "vocab_size": 262400,
    },
}
STARCODER2_7B = {
    "model_type": "starcoder2",
    "num_hidden_layers": 32,
    "hidden_size": 4608,
    "intermediate_size": 18432,
    "num_attention_heads": 36,
    "num_key_value_heads": 4,
    "vocab_size": 49152,
    "tie_word_embeddings": False,
}
STEP_3_5 = {
    "model_type": "step3p5",
    "num_hidden_layers": 45,
    "hidden_size": 4096,
    "intermediate_size": 11264,
    "moe_num_experts": 288,
    "moe_top_k": 8,
    "moe_intermediate_size": 1280,
    "share_expert_dim": 1280,
    "moe_layers_enum": ",".join(str(index) for index in range(3, 45)),
    "num_attention_heads": 64,
    "num_attention_groups": 8,
    "head_dim": 128,
    "attention_other_setting": {"num_attention_heads": 96, "num_attention_groups": 8},
    "layer_types": (["full_attention"] + ["sliding_attention"] * 3) * 11 + ["full_attention"],
    "sliding_window": 512,
    "vocab_size": 128896,
}
NEMOTRON_NAS = {
    "model_type": "nemotron-nas",
    "hidden_size": 8192,
    "num_attention_heads": 64,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
    "block_configs": [
        {"attention": {"n_heads_in_group": 8}, "ffn": {"ffn_mult": 2.625}},
        {"attention": {"no_op": True}, "ffn": {"ffn_mult": 1.3125}},
        {"attention": {"n_heads_in_group": 8}, "ffn": {"ffn_mult": 5.25}},
        {"attention": {"n_heads_in_group": 8}, "ffn": {"ffn_mult": 0.5}},
    ],
}


@pytest.mark.parametrize(
    ("config", "stored"),
    [
        (MIXTRAL_8X7B, 46_702_792_704),
        (DEEPSEEK_V3, 671_026_419_200),
        (KIMI_LINEAR, 49_122_681_728),
        (NEMOTRON_NANO_9B, 8_600_279_424),
        (NEMOTRON_3_NANO, 31_577_940_288),
        (FALCON_H1_7B, 7_585_513_568),
        (GRANITE_4_H_TINY, 6_939_037_248),
        (JAMBA_MINI, 51_570_323_328),
        (LFM2_1_2B, 1_170_340_608),
        (LLAMA4_MAVERICK, 400_711_848_960),
        (GEMMA_3N_E4B, 6_866_696_688),
        (STARCODER2_7B, 7_400_416_256),
        (STEP_3_5, 196_956_130_368),
        (NEMOTRON_NAS, 3_856_728_064),
    ],
    ids=[
        "moe",
        "latent-attention",
        "kda",
        "mamba2",
        "mamba2-moe",
        "mamba2-parallel",
        "mamba2-shared-expert",
        "mamba1",
        "short-convolution",
        "every-other-layer-moe",
        "width-of-each-layer",
        "ungated",
        "uneven-heads",
        "searched",
    ],
)
def test_every_family_counts_as_its_module_in_mlx_lm_does(config, stored: int):
    assert weights(config).total_params == pytest.approx(stored, rel=0.006)


@pytest.mark.parametrize("factor", [float("nan"), -1, 1e300, "wide", None])
def test_an_odd_factor_is_left_out(factor):
    odd = LFM2_1_2B | {"block_ffn_dim_multiplier": factor}
    assert weights(odd) == weights(LFM2_1_2B)


def test_a_tower_that_says_how_wide_it_is_is_counted_beside():
    siglip = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27}
    plain, seeing = (weights(GEMMA_3N_E4B | {"vision_config": tower}) for tower in ({}, siglip))
    assert seeing.total_params - plain.total_params == pytest.approx(0.41e9, rel=0.01)
    assert seeing.read_params == plain.read_params


@pytest.mark.parametrize(
    ("config", "width"),
    [
        (QWEN3_8B, "intermediate_size"),
        (NEMOTRON_NANO_9B, "mamba_num_heads"),
        (JAMBA_MINI, "mamba_d_state"),
        (QWEN3_8B, "vocab_size"),
    ],
)
def test_a_missing_width_is_not_guessed(config, width: str):
    assert weights({key: value for key, value in config.items() if key != width}) is None


@pytest.mark.parametrize(
    ("config", "text_b", "read_b"),
    [
        (QWEN3_8B, 8.19 - 0.62, 8.19 - 0.62),
        (QWEN3_30B_A3B, 30.53 - 0.31, 3.35 - 0.31),
        (QWEN3_6_35B_A3B, 34.66 - 0.51, 2.95),
        (GEMMA4_E2B, 2.30, 2.30),
        (GEMMA4_26B_A4B, 25.23, 3.82),
    ],
    ids=["dense", "moe", "moe-deltanet", "shared-kv-and-lookups", "dense-beside-moe"],
)
def test_counts_are_those_of_the_model_cards(config, text_b: float, read_b: float):
    found = weights(config)
    text = sum(
        found.params[role]
        for role in (TensorRole.DENSE, TensorRole.OUTPUT, TensorRole.ROUTED)
        if role in found.params
    )
    assert text / 1e9 == pytest.approx(text_b, rel=0.01)
    assert found.read_params / 1e9 == pytest.approx(read_b, rel=0.01)


def test_what_every_layer_looks_up_is_not_read():
    found = weights(GEMMA4_E2B)
    assert found.params[TensorRole.LOOKED_UP] == 262144 * 256 * 35
    assert found.total_params == pytest.approx(4.65e9, rel=0.01)


def test_first_layers_without_experts_are_dense():
    config = QWEN3_30B_A3B | {
        "model_type": "glm4_moe",
        "first_k_dense_replace": 1,
        "intermediate_size": 12288,
    }
    fewer, all_moe = weights(config), weights(QWEN3_30B_A3B)
    assert fewer.params[TensorRole.ROUTED] == pytest.approx(
        all_moe.params[TensorRole.ROUTED] * 47 / 48
    )
    assert fewer.read_params > all_moe.read_params


@pytest.mark.parametrize(
    "config",
    [{}, {"model_type": "nemotron_h"}, {"model_type": "qwen3"}, QWEN3_8B | {"hidden_size": "x"}],
    ids=["empty", "another-layout", "no-widths", "odd-width"],
)
def test_what_cannot_be_counted_is_not_guessed(config):
    assert weights(config) is None


def test_query_heads_for_each_kv_head():
    assert read_config(QWEN3_8B).geometry.query_group == 4
    assert read_config(QWEN3_6_35B_A3B).geometry.query_group == 8


HUNYUAN = {
    "model_type": "hunyuan",
    "num_hidden_layers": 4,
    "hidden_size": 1024,
    "intermediate_size": 1500,
    "moe_intermediate_size": [700, 800, 900, 1000],
    "num_experts": 16,
    "moe_topk": [1, 2, 3, 4],
    "num_shared_expert": [1, 1, 2, 2],
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 5000,
}


def test_lists_give_each_layer_its_own_number():
    found = weights(HUNYUAN)
    attention = 4 * (2 * 1024 * 1024 + 2 * 1024 * 256)
    shared = 3 * 1024 * (700 + 800 + 2 * 900 + 2 * 1000)
    routed = 3 * 1024 * (700 + 2 * 800 + 3 * 900 + 4 * 1000)
    assert found.params[TensorRole.ROUTED] == 16 * 3 * 1024 * (700 + 800 + 900 + 1000)
    assert found.read_params == pytest.approx(
        attention + shared + routed + 4 * 1024 * 16 + 5000 * 1024
    )


@pytest.mark.parametrize(
    "said",
    [
        {"moe_topk": [1, 2]},
        {"moe_topk": None},
        {"moe_topk": "all"},
    ],
)
def test_experts_of_an_unknown_number_are_not_all_read(said: dict[str, object]):
    found = weights(HUNYUAN | said)
    assert found.total_params == weights(HUNYUAN).total_params
    assert (found.read_params, found.active_params) == (None, None)


def test_half_of_what_the_first_qwen_calls_its_width_is_its_width():
    qwen = {key: value for key, value in QWEN3_8B.items() if key != "head_dim"}
    halved = weights(qwen | {"model_type": "qwen", "intermediate_size": 2 * 12288})
    assert halved.params[TensorRole.DENSE] == weights(qwen).params[TensorRole.DENSE]
