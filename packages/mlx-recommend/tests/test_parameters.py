"""Parameters counted from the widths of real configurations, against published counts."""

import pytest

from mlx_recommend.parameters import count_parameters, query_group

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
    counts = count_parameters(config)
    assert counts.text / 1e9 == pytest.approx(text_b, rel=0.01)
    assert counts.read / 1e9 == pytest.approx(read_b, rel=0.01)
    assert counts.routed <= counts.text


def test_what_every_layer_looks_up_is_not_read():
    counts = count_parameters(GEMMA4_E2B)
    assert counts.looked_up / 1e9 == pytest.approx(262144 * 256 * 35 / 1e9)
    assert counts.text + counts.looked_up == pytest.approx(4.65e9, rel=0.01)


def test_first_layers_without_experts_are_dense():
    config = QWEN3_30B_A3B | {
        "model_type": "glm4_moe",
        "first_k_dense_replace": 1,
        "intermediate_size": 12288,
    }
    fewer, all_moe = count_parameters(config), count_parameters(QWEN3_30B_A3B)
    assert fewer.routed == pytest.approx(all_moe.routed * 47 / 48)
    assert fewer.read > all_moe.read


@pytest.mark.parametrize(
    "config",
    [{}, {"model_type": "nemotron_h"}, {"model_type": "qwen3"}, QWEN3_8B | {"hidden_size": "x"}],
    ids=["empty", "another-layout", "no-widths", "odd-width"],
)
def test_what_cannot_be_counted_is_not_guessed(config):
    assert count_parameters(config) is None


def test_query_heads_for_each_kv_head():
    assert query_group(QWEN3_8B) == 4
    assert query_group(QWEN3_6_35B_A3B) == 8
    assert query_group({"model_type": "mamba"}) is None
