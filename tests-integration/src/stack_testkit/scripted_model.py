"""A model that says what it is told to say, so that a test knows an answer before it asks.

The last message of the user holds the script, on a line of its own where a client adds words:

- `Repeat: TEXT` is answered with TEXT, to a line that says `Over.` or the end of the message;
- `Show the prompt.` with everything that reached the model, brackets made harmless;
- `Talk forever.` with one word after the other;
- anything else with `Fine.`, and a result that comes back from a tool with `Seen: ` and the result.

`Wait 2 s.` before any of them delays each token by so much, `Read for 90 s.` the first one alone,
as a long prompt does. The folder holds Python code that the engine runs (`model_file` in
`config.json`); the tokenizer is another model's.
"""

import argparse
import json
import shutil
import subprocess
from pathlib import Path

_CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}\
{% if message.content is string %}{{ message.content }}{% elif message.content %}\
{{ message.content | tojson }}{% endif %}\
{%- for call in message.tool_calls or [] %}
<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>
{% endfor -%}
{%- if tools %}<|im_start|>tools
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
"""

_CODE = '''\
"""Says what it is told to say; see `stack_testkit.scripted_model`."""

import re
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import KVCache
from tokenizers import Tokenizer

TOKENIZER = Tokenizer.from_file(str(Path(__file__).with_name("tokenizer.json")))
BEGIN, END = (TOKENIZER.token_to_id(name) for name in ("<|im_start|>", "<|im_end|>"))
HEADER = TOKENIZER.encode("<|im_start|>assistant\\n", add_special_tokens=False).ids
WORD = TOKENIZER.encode(" word", add_special_tokens=False).ids[0]
HARMLESS = str.maketrans("<>{}", "\\u2039\\u203a()")
SCRIPT = re.compile(
    r"^(?:Wait ([0-9.]+) s\\. ?)?(?:Read for ([0-9.]+) s\\. ?)?"
    r"(Repeat: |Show the prompt\\.|Talk for ?ever\\.)",
    re.MULTILINE,
)


@dataclass
class ModelArgs:
    vocab_size: int
    num_hidden_layers: int = 1
    num_key_value_heads: int = 1
    head_dim: int = 1

    @classmethod
    def from_dict(cls, config):
        return cls(vocab_size=config["vocab_size"])


@lru_cache(maxsize=64)
def script(prompt):
    """The tokens to say after a prompt, None for ever; the seconds before each and the first."""
    text = TOKENIZER.decode(list(prompt), skip_special_tokens=False)
    turns = [turn.partition("\\n") for turn in text.split("<|im_start|>") if turn]
    turns = [(role, said.removesuffix("\\n").removesuffix("<|im_end|>")) for role, _, said in turns]
    spoken = [(role, said) for role, said in turns if role in ("user", "tool")]
    role, said = spoken[-1] if spoken else ("user", "")
    told = SCRIPT.search(said) if role == "user" else None
    wait_s, read_s, order = told.groups() if told else (None, None, None)
    if role == "tool":
        answer = "Seen: " + said
    elif order == "Repeat: ":
        answer = said[told.end():].partition("\\nOver.")[0]
    elif order == "Show the prompt.":
        answer = text.translate(HARMLESS)
    elif order in ("Talk for ever.", "Talk forever."):
        answer = None
    else:
        answer = "Fine."
    ids = None if answer is None else TOKENIZER.encode(answer, add_special_tokens=False).ids
    return ids, float(wait_s or 0), float(read_s or 0)


def next_token(history):
    """What follows the tokens of a conversation."""
    for at in range(len(history) - len(HEADER), -1, -1):
        if history[at : at + len(HEADER)] == HEADER:
            begin = at + len(HEADER)
            ids, wait_s, read_s = script(tuple(history[:begin]))
            said = len(history) - begin
            time.sleep(wait_s if said else wait_s + read_s)
            if ids is None:
                return WORD
            return ids[said] if said < len(ids) else END
    return END


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = mx.zeros((1,))


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [Layer()]


class Model(nn.Module):
    """Keeps the tokens themselves where other models keep keys."""

    def __init__(self, args):
        super().__init__()
        self.args = args
        self.model_type = "llama"
        self.model = Layers()

    def __call__(self, inputs, cache=None, input_embeddings=None):
        keys = inputs.astype(mx.float32)[:, None, :, None]
        padding = [0] * inputs.shape[0]
        if cache and cache[0] is not None:
            if getattr(cache[0], "left_padding", None) is not None:
                padding = np.array(cache[0].left_padding).astype(int).tolist()
            keys, _ = cache[0].update_and_fetch(keys, keys)
        said = np.full(inputs.shape, END, dtype=np.int32)
        for row, tokens in enumerate(np.array(keys[:, 0, :, 0]).astype(int)):
            said[row, -1] = next_token(tokens.tolist()[padding[row] :])
        chosen = mx.array(said)[:, :, None]
        return mx.where(mx.arange(self.args.vocab_size)[None, None] == chosen, 20.0, -20.0)

    @property
    def layers(self):
        return self.model.layers

    def make_cache(self):
        return [KVCache()]

    def sanitize(self, weights):
        return weights
'''


def make_scripted_model(folder: Path, *, tokenizer_of: Path, engine_python: Path) -> Path:
    """Write the model to `folder`, which is returned.

    Args:
        folder: Where it shall be; made where it is missing.
        tokenizer_of: A model folder whose tokenizer knows `<|im_start|>` and `<|im_end|>`.
        engine_python: The Python of an environment that holds MLX.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "generation_config.json"):
        shutil.copyfile(tokenizer_of / name, folder / name)
    tokenizer = json.loads((tokenizer_of / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer |= {"chat_template": _CHAT_TEMPLATE, "tool_parser_type": "json_tools"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    config = json.loads((tokenizer_of / "config.json").read_text(encoding="utf-8"))
    config.pop("quantization", None)
    config |= {"model_file": "scripted.py", "num_hidden_layers": 1, "hidden_size": 8}
    config |= {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 1}
    config["max_position_embeddings"] = 131_072
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    (folder / "scripted.py").write_text(_CODE, encoding="utf-8")
    write = (
        "import sys, mlx.core as mx; "
        "mx.save_safetensors(sys.argv[1], {'model.layers.0.weight': mx.zeros((1,))}, "
        "metadata={'format': 'mlx'})"
    )
    weights = str(folder / "model.safetensors")
    subprocess.run([engine_python, "-I", "-c", write, weights], check=True)
    return folder


def main() -> None:
    """Write the model to a folder that is named on the command line."""
    parser = argparse.ArgumentParser(description="Write a model that says what it is told to say.")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--tokenizer-of", type=Path, required=True, metavar="MODEL")
    parser.add_argument("--engine-python", type=Path, required=True, metavar="PYTHON")
    options = parser.parse_args()
    make_scripted_model(
        options.folder, tokenizer_of=options.tokenizer_of, engine_python=options.engine_python
    )


if __name__ == "__main__":
    main()
