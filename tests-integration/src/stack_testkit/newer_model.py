"""A model of a type that only the newer mlx-lm has: tiny, its weights random."""

import json
import shutil
import subprocess
from pathlib import Path

_WRITE_WEIGHTS = """
import json, sys
from pathlib import Path
import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import mellum

folder = Path(sys.argv[1])
mx.random.seed(7)
config = json.loads((folder / "config.json").read_text())
model = mellum.Model(mellum.ModelArgs.from_dict(config))
weights = dict(tree_flatten(model.parameters()))
mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
"""


def make_newer_model(folder: Path, *, tokenizer_of: Path, engine_python: Path) -> Path:
    """Write the model to `folder`, which is returned.

    Args:
        folder: Where it shall be; made where it is missing.
        tokenizer_of: A model folder whose tokenizer is taken over.
        engine_python: The Python of mlx-lm's environment.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(tokenizer_of / name, folder / name)
    like = json.loads((tokenizer_of / "config.json").read_text(encoding="utf-8"))
    rope = {"rope_type": "default", "rope_theta": 10_000.0}
    config = {
        **{key: like[key] for key in ("vocab_size", "bos_token_id", "eos_token_id")},
        "model_type": "mellum",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "moe_intermediate_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "norm_topk_prob": True,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "max_position_embeddings": 8192,
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"sliding_attention": rope, "full_attention": rope},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    subprocess.run([engine_python, "-I", "-c", _WRITE_WEIGHTS, folder], check=True)
    return folder
