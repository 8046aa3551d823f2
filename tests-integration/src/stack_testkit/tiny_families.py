"""Models of every kind of architecture, with random weights: tiny widths, real structures.

What they say is gibberish that depends on all that they were asked, and always the same at
temperature 0: answers that are equal with and without a cache show that the cache is right.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

_COMMON: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "vocab_size": 49152,
}
_EXPERTS: dict[str, Any] = {
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "norm_topk_prob": True,
}
_DELTA: dict[str, Any] = {
    "num_hidden_layers": 4,
    "full_attention_interval": 4,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "partial_rotary_factor": 0.5,
}
_LATENT: dict[str, Any] = {
    "kv_lora_rank": 32,
    "q_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "n_shared_experts": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
}

FAMILIES: dict[str, dict[str, Any]] = {
    "full attention": {"model_type": "qwen3", "num_hidden_layers": 2, **_COMMON},
    "experts": {
        "model_type": "qwen3_moe",
        "num_hidden_layers": 2,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        **_COMMON,
        **_EXPERTS,
    },
    "sliding window": {
        "model_type": "gemma3_text",
        "num_hidden_layers": 6,
        "sliding_window": 64,
        "sliding_window_pattern": 6,
        "query_pre_attn_scalar": 16,
        **_COMMON,
    },
    "gated delta": {
        "model_type": "qwen3_next",
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "shared_expert_intermediate_size": 32,
        **_COMMON,
        **_EXPERTS,
        **_DELTA,
    },
    "mamba-2": {
        "model_type": "granitemoehybrid",
        "num_hidden_layers": 4,
        "layer_types": ["mamba", "mamba", "mamba", "attention"],
        "mamba_n_heads": 4,
        "mamba_d_head": 32,
        "mamba_expand": 2,
        "mamba_d_state": 16,
        "mamba_d_conv": 4,
        "mamba_n_groups": 1,
        "mamba_conv_bias": True,
        "mamba_proj_bias": False,
        "embedding_multiplier": 1.0,
        "attention_multiplier": 0.25,
        "logits_scaling": 1.0,
        "residual_multiplier": 1.0,
        "attention_bias": False,
        "position_embedding_type": "nope",
        **_COMMON,
    },
    "latent attention": {
        "model_type": "deepseek_v3",
        "num_hidden_layers": 2,
        **_LATENT,
        "moe_layer_freq": 1,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "noaux_tc",
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        **_COMMON,
        "num_key_value_heads": 4,
    },
    "sparse latent attention": {
        "model_type": "deepseek_v32",
        "num_hidden_layers": 2,
        "index_head_dim": 32,
        "index_n_heads": 2,
        "index_topk": 64,
        **_LATENT,
        **_COMMON,
        "num_key_value_heads": 4,
    },
    "short convolution": {
        "model_type": "lfm2",
        "num_hidden_layers": 4,
        "norm_eps": 1e-6,
        "conv_bias": False,
        "conv_L_cache": 3,
        "block_dim": 64,
        "block_ff_dim": 96,
        "block_multiple_of": 32,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "full_attn_idxs": [3],
        **_COMMON,
    },
    "gated delta that sees": {
        "model_type": "qwen3_5",
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "text_config": {
            "model_type": "qwen3_5_text",
            "rope_parameters": {
                "type": "default",
                "rope_type": "default",
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
            },
            **_COMMON,
            **_DELTA,
        },
        "vision_config": {
            "model_type": "qwen3_5",
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 64,
            "out_hidden_size": 64,
            "num_heads": 2,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [],
            "in_channels": 3,
        },
        "image_token_id": 5,
        "video_token_id": 6,
        "vision_start_token_id": 7,
        "vision_end_token_id": 8,
        "vocab_size": 49152,
    },
    "parallel mamba-2": {
        "model_type": "falcon_h1",
        "num_hidden_layers": 2,
        "mamba_d_ssm": 64,
        "mamba_d_state": 16,
        "mamba_d_conv": 4,
        "mamba_d_head": 16,
        "mamba_n_heads": 4,
        "mamba_n_groups": 1,
        "mamba_chunk_size": 64,
        "mamba_conv_bias": True,
        "mamba_proj_bias": False,
        "mamba_rms_norm": False,
        "mamba_norm_before_gate": False,
        "mamba_expand": 1,
        "projectors_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        **_COMMON,
    },
}
"""By its name, the `config.json` of a small model of each kind."""

_PICTURES = {
    "processor_class": "Qwen3VLProcessor",
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "size": {"longest_edge": 65536, "shortest_edge": 1024},
}

_WRITE = """
import json, sys
import mlx.core as mx
from mlx.utils import tree_flatten

folder, config = sys.argv[1], json.loads(sys.argv[2])
mx.random.seed(7)
if "vision_config" in config:
    from mlx_vlm.utils import get_model_and_args

    classes, _ = get_model_and_args(config)
    arguments = classes.ModelConfig.from_dict(config)
    arguments.text_config = classes.TextConfig.from_dict(config["text_config"])
    arguments.vision_config = classes.VisionConfig.from_dict(config["vision_config"])
    model = classes.Model(arguments)
else:
    from mlx_lm.utils import _get_classes

    Model, Arguments = _get_classes(config)
    model = Model(Arguments.from_dict(config))
digits = mx.array(json.loads(sys.argv[3]))  # which the tokenizer never joins: answers are of them
weights, names = {}, [name for name, _ in tree_flatten(model.parameters())]
tied = not any(name.endswith("lm_head.weight") for name in names)
for name, value in tree_flatten(model.parameters()):
    if value.ndim > 1:  # large enough for the answer to hang on each token of the prompt
        value = mx.random.normal(value.shape) * (2.0 / value.shape[-1] ** 0.5)
    if name.endswith("lm_head.weight"):
        rows = value[digits[:5]]  # and their opposites: one of the digits is always above the rest
        value = mx.zeros_like(value).at[digits].add(mx.concatenate([rows, -rows]))
    elif name.endswith("embed_tokens.weight") and tied:
        value = value.at[digits].add(9 * value[digits])
    weights[name] = value.astype(mx.float32)
mx.save_safetensors(f"{folder}/model.safetensors", weights, metadata={"format": "mlx"})
"""


def make_tiny_family(folder: Path, family: str, *, tokenizer_of: Path, engine_python: Path) -> Path:
    """Write a model of one of the `FAMILIES` to `folder`, which is returned.

    Args:
        folder: Where it shall be; made where it is missing.
        family: Its name.
        tokenizer_of: A model folder whose tokenizer is taken over.
        engine_python: The Python of an environment that holds MLX.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(tokenizer_of / name, folder / name)
    if "vision_config" in FAMILIES[family]:
        (folder / "preprocessor_config.json").write_text(json.dumps(_PICTURES), encoding="utf-8")
    theirs = json.loads((tokenizer_of / "config.json").read_text(encoding="utf-8"))
    ends = {name: theirs[name] for name in ("bos_token_id", "eos_token_id")}
    config = json.dumps(FAMILIES[family] | ends | {"torch_dtype": "float32"}, indent=1)
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"][
        "vocab"
    ]
    digits = json.dumps([vocabulary[digit] for digit in "0123456789"])
    subprocess.run([engine_python, "-I", "-c", _WRITE, folder, config, digits], check=True)
    (folder / "config.json").write_text(config, encoding="utf-8")
    return folder


_MARKS = {
    "<file_sep>": "<|image_pad|>",
    "<filename>": "<|video_pad|>",
    "<gh_stars>": "<|vision_start|>",
    "<issue_start>": "<|vision_end|>",
}
"""By a special token of the tokenizer, what a model with eyes calls it (ids 5 to 8)."""
_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_model_with_eyes(folder: Path, *, tokenizer_of: Path, engine_python: Path) -> Path:
    """Write a model that is shown pictures to `folder`, which is returned.

    What it says of one means nothing, and hangs on every pixel.
    """
    make_tiny_family(
        folder, "gated delta that sees", tokenizer_of=tokenizer_of, engine_python=engine_python
    )
    tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8")
    for theirs, named in _MARKS.items():
        tokenizer = tokenizer.replace(json.dumps(theirs), json.dumps(named))
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings |= {"chat_template": _TEMPLATE, "image_token": "<|image_pad|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
