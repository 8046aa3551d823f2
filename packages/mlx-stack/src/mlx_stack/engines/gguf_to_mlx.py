"""A program for the engine's own Python: turns a Llama GGUF into a model folder that MLX serves.

    ENGINE_PYTHON gguf_to_mlx.py MODEL.gguf FOLDER

It is run by its path, never imported by mlx-stack, and imports nothing but MLX: the environment of
an engine holds MLX, the one of mlx-stack does not. The folder appears complete or not at all.

Only what the embedded model needs is understood: the `llama` architecture with a byte-level BPE
tokenizer that splits digits (`smollm`), in a quantization that MLX loads as it is (Q4_0, Q4_1,
Q8_0). Formats: the GGUF specification of ggml, `convert_hf_to_gguf.py` of llama.cpp for the order
of rows, `mlx_lm.models.llama` for the names of parameters.
"""
# Type checkers look at this file from an environment without MLX.
# pyright: basic, reportMissingImports=false

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import mlx.core as mx

_CONTROL_TOKEN = 3
_GROUP_SIZE = 32
"""GGUF blocks hold 32 weights, for every quantization that MLX loads."""

_PARAMETERS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert(gguf: Path, folder: Path) -> None:
    """Write the model in `gguf` as the model folder `folder`, which must not exist."""
    tensors, metadata = mx.load(str(gguf), return_metadata=True)
    weights = {_mlx_name(name): value for name, value in tensors.items()}
    _restore_row_order(weights, metadata)
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        config = _model_config(metadata, tied="lm_head.weight" not in weights)
        config["quantization"] = _quantization(_bits_of(weights))
        _write_json(building / "config.json", config)
        _write_json(building / "generation_config.json", _generation_config(metadata))
        _write_json(building / "tokenizer.json", _tokenizer(metadata))
        _write_json(building / "tokenizer_config.json", _tokenizer_config(metadata))
        path = str(building / "model.safetensors")
        mx.save_safetensors(path, weights, metadata={"format": "mlx"})
        building.chmod(0o755)
        building.rename(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _mlx_name(gguf_name: str) -> str:
    """`blk.3.attn_q.scales` → `model.layers.3.self_attn.q_proj.scales`."""
    parts = gguf_name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{_PARAMETERS[parts[2]]}.{parts[3]}"
    return f"{_PARAMETERS[parts[0]]}.{parts[1]}"


def _restore_row_order(weights: dict[str, mx.array], metadata: dict) -> None:
    """Undo llama.cpp's order of rows in the query and key projections.

    It interleaves the two halves that rotary embedding turns together; MLX wants them one after
    the other. Scales and biases belong to rows, so they move with them.
    """
    heads = {
        "q_proj": metadata["llama.attention.head_count"].item(),
        "k_proj": metadata["llama.attention.head_count_kv"].item(),
    }
    for name, value in weights.items():
        projection = name.split(".")[-2]
        if projection in heads:
            rows, width = value.shape
            pairs = rows // heads[projection] // 2
            by_head = value.reshape(heads[projection], pairs, 2, width)
            weights[name] = by_head.swapaxes(1, 2).reshape(rows, width)


def _bits_of(weights: dict[str, mx.array]) -> dict[str, int]:
    """How many bits a weight has, for every quantized parameter."""
    bits: dict[str, int] = {}
    for name, scales in weights.items():
        if name.endswith(".scales"):
            parameter = name.removesuffix(".scales")
            packed_bits = weights[f"{parameter}.weight"].shape[-1] * 32
            bits[parameter] = packed_bits // (scales.shape[-1] * _GROUP_SIZE)
    return bits


def _quantization(bits: dict[str, int]) -> dict:
    """The `quantization` of config.json: the usual width, and the parameters that differ."""
    widths = list(bits.values())
    usual = max(set(widths), key=widths.count)
    others = {
        parameter: {"group_size": _GROUP_SIZE, "bits": width}
        for parameter, width in bits.items()
        if width != usual
    }
    return {"group_size": _GROUP_SIZE, "bits": usual, **others}


def _model_config(metadata: dict, *, tied: bool) -> dict:
    def number(key: str) -> int:
        return metadata[f"llama.{key}"].item()

    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": number("embedding_length"),
        "intermediate_size": number("feed_forward_length"),
        "num_hidden_layers": number("block_count"),
        "num_attention_heads": number("attention.head_count"),
        "num_key_value_heads": number("attention.head_count_kv"),
        "max_position_embeddings": number("context_length"),
        "vocab_size": number("vocab_size"),
        "rope_theta": number("rope.freq_base"),
        "rms_norm_eps": round(number("attention.layer_norm_rms_epsilon"), 10),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "torch_dtype": "float16",
        **_generation_config(metadata),
    }


def _generation_config(metadata: dict) -> dict:
    return {
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"].item(),
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"].item(),
        "pad_token_id": metadata["tokenizer.ggml.padding_token_id"].item(),
    }


def _tokenizer(metadata: dict) -> dict:
    """The tokenizer.json of a byte-level BPE that first splits digits one by one."""
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    kinds: list[int] = metadata["tokenizer.ggml.token_type"].tolist()
    as_it_stands = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": token, "special": True, **as_it_stands}
            for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind == _CONTROL_TOKEN
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in metadata["tokenizer.ggml.merges"]],
        },
    }


def _tokenizer_config(metadata: dict) -> dict:
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]

    def token(kind: str) -> str:
        return tokens[metadata[f"tokenizer.ggml.{kind}_token_id"].item()]

    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "bos_token": token("bos"),
        "eos_token": token("eos"),
        "pad_token": token("padding"),
        "unk_token": token("unknown"),
        "model_max_length": metadata["llama.context_length"].item(),
        "clean_up_tokenization_spaces": False,
        "chat_template": metadata["tokenizer.chat_template"],
    }


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description="Turn a Llama GGUF into an MLX model folder.")
    parser.add_argument("gguf", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    convert(options.gguf, options.folder)


if __name__ == "__main__":
    main(sys.argv[1:])
