"""The catalog against the pinned engine: its modules, and the caches it allocates."""

import json
import subprocess

import pytest

from mlx_catalog import load_catalog
from mlx_catalog.config_json import read_config
from mlx_catalog.engine import ServingEngine, engine_fit

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

_MODULES = """
import importlib.util, json, sys
from mlx_lm.utils import MODEL_REMAPPING
known = {}
for kind in json.load(sys.stdin):
    name = MODEL_REMAPPING.get(kind, kind)
    known[kind] = [
        package for package in ("mlx_lm", "mlx_vlm")
        if importlib.util.find_spec(f"{package}.models.{name}") is not None
    ]
print(json.dumps(known))
"""

_CACHES = """
import importlib, json, sys
import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import MODEL_REMAPPING

def size(state):
    if isinstance(state, (list, tuple)):
        return sum(size(each) for each in state)
    return 0 if state is None else state.nbytes

asked = json.load(sys.stdin)
answer = {}
for name, config in asked["configs"].items():
    kind = config["model_type"]
    module = importlib.import_module(f"mlx_lm.models.{MODEL_REMAPPING.get(kind, kind)}")
    model = module.Model(module.ModelArgs.from_dict(config))
    # Experts run in 32 bits only on a CPU.
    model.set_dtype(mx.float32 if name in asked["in_32_bits"] else mx.bfloat16)
    caches = make_prompt_cache(model)
    # A prompt, and one token more: only then has a rotating cache dropped what left its window.
    model(mx.array([[1] * (asked["tokens"] - 1)]), cache=caches)
    model(mx.array([[1]]), cache=caches)
    # A cache that its layer never uses has no keys.
    states = [cache.state for cache in caches if getattr(cache, "keys", True) is not None]
    mx.eval(states)
    answer[name] = size(states)
print(json.dumps(answer))
"""

_IN_32_BITS = ("gpt_oss", "llama4", "step3p5")
_PLAIN = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "layer_norm_epsilon": 1e-5,
    "norm_eps": 1e-5,
    "vocab_size": 64,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
}
_DELTANET = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 4,
    "head_dim": 32,
    "num_experts": 0,
    "num_experts_per_tok": 0,
    "decoder_sparse_step": 1,
    "shared_expert_intermediate_size": 32,
    "moe_intermediate_size": 32,
    "mlp_only_layers": [],
    "partial_rotary_factor": 0.5,
    "rope_parameters": {"rope_theta": 10000.0, "partial_rotary_factor": 0.5, "type": "default"},
}
_LATENT = {
    "kv_lora_rank": 16,
    "q_lora_rank": None,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 24,
    "n_routed_experts": None,
    "num_key_value_heads": 4,
}

CONFIGS: dict[str, dict[str, object]] = {
    "llama": {"model_type": "llama", "num_hidden_layers": 3},
    "llama with a window": {
        "model_type": "llama",
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "sliding_window": 16,
    },
    "qwen3": {"model_type": "qwen3", "num_hidden_layers": 2, "head_dim": 24},
    "gpt_oss": {
        "model_type": "gpt_oss",
        "num_hidden_layers": 4,
        "head_dim": 16,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 16,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "num_hidden_layers": 7,
        "head_dim": 32,
        "num_key_value_heads": 1,
        "sliding_window": 16,
        "sliding_window_pattern": 3,
        "query_pre_attn_scalar": 32,
    },
    "gemma4": {
        "model_type": "gemma4_text",
        "num_hidden_layers": 10,
        "head_dim": 16,
        "global_head_dim": 32,
        "num_key_value_heads": 2,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
        "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 0,
        "sliding_window": 16,
        "sliding_window_pattern": 5,
    },
    "gemma4 with shared caches": {
        "model_type": "gemma4_text",
        "num_hidden_layers": 10,
        "head_dim": 16,
        "global_head_dim": 32,
        "num_key_value_heads": 1,
        "num_kv_shared_layers": 5,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 64,
        "sliding_window": 16,
        "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 2,
    },
    "olmo3": {
        "model_type": "olmo3",
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
        "sliding_window": 16,
    },
    "qwen3_next": {"model_type": "qwen3_next", "num_hidden_layers": 8, **_DELTANET},
    "qwen3_5": {
        "model_type": "qwen3_5",
        "text_config": {
            **_PLAIN,
            **_DELTANET,
            "model_type": "qwen3_5_text",
            "num_hidden_layers": 4,
        },
    },
    "nemotron_h": {
        "model_type": "nemotron_h",
        "num_hidden_layers": 5,
        "hybrid_override_pattern": "MM*-M",
        "head_dim": 16,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "mamba_proj_bias": False,
        "ssm_state_size": 8,
        "conv_kernel": 4,
        "n_groups": 2,
        "use_bias": False,
        "use_conv_bias": True,
    },
    "granitemoehybrid": {
        "model_type": "granitemoehybrid",
        "num_hidden_layers": 3,
        "layer_types": ["mamba", "attention", "mamba"],
        "embedding_multiplier": 1.0,
        "attention_multiplier": 1.0,
        "logits_scaling": 1.0,
        "residual_multiplier": 1.0,
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
        "mamba_proj_bias": False,
        "mamba_d_state": 8,
        "mamba_d_conv": 4,
        "mamba_n_groups": 1,
        "mamba_conv_bias": True,
        "position_embedding_type": "nope",
        "shared_intermediate_size": 32,
    },
    "falcon_h1": {
        "model_type": "falcon_h1",
        "num_hidden_layers": 2,
        "head_dim": 16,
        "mamba_d_ssm": 64,
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
        "mamba_d_conv": 4,
        "mamba_expand": 1,
    },
    "jamba": {
        "model_type": "jamba",
        "num_hidden_layers": 4,
        "attn_layer_offset": 1,
        "attn_layer_period": 4,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
        "mamba_d_conv": 4,
        "mamba_d_state": 16,
        "mamba_expand": 2,
        "num_experts": 1,
        "num_experts_per_tok": 1,
    },
    "lfm2": {
        "model_type": "lfm2",
        "num_hidden_layers": 3,
        "conv_bias": False,
        "conv_L_cache": 3,
        "block_dim": 64,
        "block_ff_dim": 64,
        "block_multiple_of": 8,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "layer_types": ["conv", "full_attention", "conv"],
    },
    "kimi_linear": {
        "model_type": "kimi_linear",
        "num_hidden_layers": 3,
        "head_dim": 16,
        "linear_attn_config": {
            "kda_layers": [1, 2],
            "full_attn_layers": [3],
            "num_heads": 2,
            "head_dim": 32,
            "short_conv_kernel_size": 4,
        },
        "model_max_length": 100,
        "num_experts": 0,
        "moe_intermediate_size": 32,
        **_LATENT,
    },
    "deepseek_v3": {"model_type": "deepseek_v3", "num_hidden_layers": 2, **_LATENT},
    "deepseek_v2": {
        "model_type": "deepseek_v2",
        "num_hidden_layers": 2,
        "rope_scaling": {
            "type": "yarn",
            "factor": 1.0,
            "mscale_all_dim": 0,
            "original_max_position_embeddings": 512,
        },
        **_LATENT,
    },
    "glm4_moe_lite": {"model_type": "glm4_moe_lite", "num_hidden_layers": 2, **_LATENT},
    "gemma3n": {
        "model_type": "gemma3n",
        "text_config": {
            **_PLAIN,
            "model_type": "gemma3n_text",
            "num_hidden_layers": 8,
            "head_dim": 16,
            "num_kv_shared_layers": 3,
            "vocab_size_per_layer_input": 64,
            "hidden_size_per_layer_input": 8,
            "sliding_window": 16,
            "rope_local_base_freq": 10000.0,
            "final_logit_softcapping": 30.0,
            "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 2,
            "activation_sparsity_pattern": [0.0] * 8,
            "altup_num_inputs": 2,
            "altup_coef_clip": 1.0,
            "altup_correct_scale": True,
            "altup_active_idx": 0,
            "laurel_rank": 4,
        },
    },
    "llama4": {
        "model_type": "llama4",
        "text_config": {
            **_PLAIN,
            "model_type": "llama4_text",
            "num_hidden_layers": 4,
            "head_dim": 16,
            "attention_chunk_size": 64,
            "interleave_moe_layer_step": 1,
            "intermediate_size_mlp": 64,
            "num_experts_per_tok": 1,
            "num_local_experts": 2,
            "use_qk_norm": True,
            "rope_scaling": None,
        },
    },
    "step3p5": {
        "model_type": "step3p5",
        "num_hidden_layers": 4,
        "head_dim": 16,
        "num_attention_groups": 2,
        "num_key_value_heads": 4,
        "sliding_window": 16,
        "layer_types": ["full_attention"] + ["sliding_attention"] * 3,
        "attention_other_setting": {"num_attention_heads": 8, "num_attention_groups": 4},
        "moe_layers_enum": "3",
        "moe_num_experts": 2,
        "moe_top_k": 1,
        "moe_intermediate_size": 32,
        "share_expert_dim": 32,
        "use_head_wise_attn_gate": False,
    },
    "nemotron-nas": {
        "model_type": "nemotron-nas",
        "num_hidden_layers": 3,
        "block_configs": [
            {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 1.0}},
            {"attention": {"no_op": True}, "ffn": {"ffn_mult": 1.0}},
            {"attention": {"replace_with_linear": True}, "ffn": {"no_op": True}},
        ],
    },
    "cohere2": {
        "model_type": "cohere2",
        "num_hidden_layers": 6,
        "head_dim": 16,
        "sliding_window": 16,
        "sliding_window_pattern": 3,
    },
    "exaone4": {
        "model_type": "exaone4",
        "num_hidden_layers": 5,
        "head_dim": 16,
        "sliding_window": 16,
        "sliding_window_pattern": "LLG",
        "rope_scaling": None,
    },
    "exaone4 without a pattern": {
        "model_type": "exaone4",
        "num_hidden_layers": 2,
        "head_dim": 16,
        "sliding_window": None,
        "sliding_window_pattern": None,
        "rope_scaling": None,
    },
    "gemma2": {
        "model_type": "gemma2",
        "num_hidden_layers": 2,
        "head_dim": 16,
        "sliding_window": 16,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "query_pre_attn_scalar": 16.0,
    },
    "minicpm3": {
        "model_type": "minicpm3",
        "num_hidden_layers": 2,
        "dim_model_base": 64,
        "scale_emb": 1,
        "scale_depth": 1.0,
        "rope_scaling": {
            "original_max_position_embeddings": 512,
            "long_factor": [1.0] * 4,
            "short_factor": [1.0] * 4,
            "type": "longrope",
        },
        **_LATENT,
        "q_lora_rank": 16,
        "v_head_dim": 16,
    },
    "smollm3": {"model_type": "smollm3", "num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0]},
    "phi3": {"model_type": "phi3", "num_hidden_layers": 2},
}


def ask(environment, program: str, question: object) -> dict:
    output = subprocess.run(
        [environment.python, "-I", "-c", program],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return json.loads(output)


def test_every_entry_that_vllm_mlx_serves_has_its_module(vllm_mlx_environment):
    entries = [
        entry
        for entry in load_catalog()
        if entry.role.chats
        and engine_fit(entry).engine is ServingEngine.VLLM_MLX
        and not engine_fit(entry).unservable_because
    ]
    kinds = sorted({entry.model_type for entry in entries})
    known = ask(vllm_mlx_environment, _MODULES, kinds)
    for entry in entries:
        wanted = "mlx_vlm" if engine_fit(entry).multimodal else "mlx_lm"
        assert wanted in known[entry.model_type], entry.id


def test_what_vllm_mlx_does_not_serve_has_no_module(vllm_mlx_environment):
    entries = [
        entry
        for entry in load_catalog()
        if entry.role.chats
        and (
            engine_fit(entry).engine is ServingEngine.MLX_LM or engine_fit(entry).unservable_because
        )
    ]
    known = ask(vllm_mlx_environment, _MODULES, sorted({entry.model_type for entry in entries}))
    assert {
        entry.id: known[entry.model_type]
        for entry in entries
        if "mlx_lm" in known[entry.model_type]
    } == {}


def test_the_caches_that_mlx_lm_allocates_are_those_that_a_config_json_is_read_to_mean(
    vllm_mlx_environment,
):
    tokens = 41
    configs = {
        name: config if "text_config" in config else {**_PLAIN, **config}
        for name, config in CONFIGS.items()
    }
    question = {"tokens": tokens, "configs": configs, "in_32_bits": _IN_32_BITS}
    allocated = ask(vllm_mlx_environment, _CACHES, question)
    expected: dict[str, int] = {}
    for name, config in configs.items():
        geometry = read_config(config).geometry
        assert geometry is not None
        growing = geometry.growing_kv_elements_per_token
        sliding = geometry.sliding_kv_elements_per_token
        state = geometry.state_bytes_per_sequence
        assert growing is not None
        assert sliding is not None
        assert state is not None
        within = min(tokens, geometry.sliding_window or 0)
        value_bytes = 4 if name in _IN_32_BITS else 2
        expected[name] = value_bytes * (growing * tokens + sliding * within) + state
    assert allocated == expected
