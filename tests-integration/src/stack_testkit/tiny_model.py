"""A model that knows nothing and answers at hundreds of tokens a second, for tests of real engines.

Two layers of random weights under the tokenizer of another model. What it says is gibberish, and
always the same at temperature 0; everything around it, streaming, limits, batching, is real.
"""

import json
import shutil
import subprocess
from pathlib import Path

_LAYERS = 2
_HIDDEN_SIZE = 64
_HEADS = 4

_WRITE_WEIGHTS = """
import sys
import mlx.core as mx

folder, layers, hidden, vocabulary = sys.argv[1], *map(int, sys.argv[2:])
mx.random.seed(7)
shapes = {"model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
for layer in range(layers):
    prefix = f"model.layers.{layer}"
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        shapes[f"{prefix}.self_attn.{name}.weight"] = (hidden, hidden)
    for name in ("gate_proj", "up_proj", "down_proj"):
        shapes[f"{prefix}.mlp.{name}.weight"] = (hidden, hidden)
    for name in ("input_layernorm", "post_attention_layernorm"):
        shapes[f"{prefix}.{name}.weight"] = (hidden,)
weights = {
    name: mx.ones(shape) if len(shape) == 1 else mx.random.normal(shape, scale=hidden**-0.5)
    for name, shape in shapes.items()
}
mx.save_safetensors(f"{folder}/model.safetensors", weights, metadata={"format": "mlx"})
"""


def make_tiny_model(
    folder: Path, *, tokenizer_of: Path, engine_python: Path, hidden_size: int = _HIDDEN_SIZE
) -> Path:
    """Write the model to `folder`, which is returned.

    Args:
        folder: Where it shall be; made where it is missing.
        tokenizer_of: A model folder of the Llama architecture whose tokenizer is taken over.
        engine_python: The Python of an environment that holds MLX.
        hidden_size: A larger one makes a heavier model: at 1024 it takes 260 MB.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(tokenizer_of / name, folder / name)
    config = json.loads((tokenizer_of / "config.json").read_text(encoding="utf-8"))
    del config["quantization"]
    config |= {
        "hidden_size": hidden_size,
        "intermediate_size": hidden_size,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _HEADS,
    }
    subprocess.run(
        [
            *(engine_python, "-I", "-c", _WRITE_WEIGHTS, folder),
            *(str(_LAYERS), str(hidden_size), str(config["vocab_size"])),
        ],
        check=True,
    )
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return folder
