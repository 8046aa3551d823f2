"""How models are divided between Macs, against the engine that divides them: mlx-lm itself."""

import json
import subprocess
from pathlib import Path

import pytest

from mlx_catalog.model_files import describe
from mlx_catalog.model_types import model_types
from mlx_recommend import SplitKind, shape_of_model, split
from mlx_stack.engines.environment import Environment
from stack_testkit.small_configs import small_configs

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

CONFIGS = {
    name: config
    for name, config in small_configs(Path(__file__).parent / "model_types.json").items()
    if model_types()[config["model_type"]].tensor
}
"""Small models of every type that is divided by tensor."""

LLAMA = CONFIGS["llama"]
QUANTIZED = {
    "as it is": (2, 64, {}),
    "half groups": (2, 64, {"intermediate_size": 1344}),
    "small groups": (2, 32, {"intermediate_size": 1344}),
    "four Macs": (4, 64, {"num_key_value_heads": 8, "intermediate_size": 1536}),
    "half groups of four": (4, 64, {"num_key_value_heads": 8}),
    "too few KV heads": (4, 64, {"intermediate_size": 1536}),
    "odd heads": (2, 64, {"num_attention_heads": 9, "num_key_value_heads": 3}),
    "three Macs": (
        *(3, 64),
        {"num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536},
    ),
}
"""A llama's other widths and heads, divided by so many Macs in groups of so many weights."""

_PROGRAM = """
import importlib, importlib.util, json, sys
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.utils import MODEL_REMAPPING

class Macs:
    def __init__(self, count): self.count = count
    def size(self): return self.count
    def rank(self): return 1

def module_of(kind):
    name = f"mlx_lm.models.{MODEL_REMAPPING.get(kind, kind)}"
    try:
        return importlib.import_module(name) if importlib.util.find_spec(name) else None
    except SystemExit:  # olmo's way to say that it needs a package
        return None

def ways(module):
    if module is None:
        return [False, False]
    modules = [sys.modules[each.__module__] for each in module.Model.__mro__]
    classes = [each for here in modules for each in vars(here).values() if isinstance(each, type)]
    models = [each for each in classes if each.__module__.startswith("mlx_lm.models.")]
    return [hasattr(module.Model, "shard"), any(hasattr(each, "pipeline") for each in models)]

def size(model):
    return sum(value.size for _, value in tree_flatten(model.parameters()))

asked = json.loads(sys.argv[1])
ways_of = {kind: ways(module_of(kind)) for kind in asked["kinds"]}
params = {}
for name, config in asked["configs"].items():
    module = module_of(config["model_type"])
    model = module.Model(module.ModelArgs.from_dict(config))
    assert ways_of[config["model_type"]][1] == hasattr(model.model, "pipeline"), name
    model.shard(Macs(2))
    params[name] = size(model)

def is_possible(macs, group_size, config):
    module = module_of("llama")
    model = module.Model(module.ModelArgs.from_dict(config))
    nn.quantize(model, group_size, 4)
    try:
        model.shard(Macs(macs))
    except ValueError:
        return False
    heads = model.model.layers[0].self_attn
    counts = config["num_attention_heads"], config["num_key_value_heads"]
    return (heads.n_heads * macs, heads.n_kv_heads * macs) == counts

possible = {name: is_possible(*each) for name, each in asked["quantized"].items()}
open(sys.argv[2], "w").write(json.dumps([ways_of, params, possible]))
"""


@pytest.fixture(scope="module")
def engine(mlx_lm_environment: Environment, tmp_path_factory) -> tuple[dict, dict, dict]:
    """What mlx-lm can do with each type, the parameters that each of two Macs gets, and which
    quantized models it divides evenly."""
    answer = tmp_path_factory.mktemp("divided") / "answer.json"
    quantized = {name: (*how, LLAMA | other) for name, (*how, other) in QUANTIZED.items()}
    kinds = list(model_types())
    asked = json.dumps({"kinds": kinds, "configs": CONFIGS, "quantized": quantized})
    command = [mlx_lm_environment.python, "-I", "-c", _PROGRAM, asked, answer]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return tuple(json.loads(answer.read_text(encoding="utf-8")))


def test_the_table_says_of_each_type_what_its_class_can_do(engine):
    said = {kind: [bool(row.tensor), row.pipeline] for kind, row in model_types().items()}
    assert said == engine[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_each_mac_gets_as_many_parameters_as_is_said(name: str, engine):
    shape = shape_of_model(describe(name, CONFIGS[name]))
    assert shape is not None
    (first, _) = split(shape, 2, SplitKind.TENSOR).shares
    assert first.shape.weights_bytes is not None
    assert first.shape.weights_bytes / 2 == pytest.approx(engine[1][name], rel=0.015)


@pytest.mark.parametrize("name", QUANTIZED)
def test_what_is_refused_is_what_mlx_lm_cannot_divide(name: str, engine):
    macs, group_size, other = QUANTIZED[name]
    packing = {"group_size": group_size, "bits": 4}
    shape = shape_of_model(describe(name, {**LLAMA, **other, "quantization": packing}))
    assert shape is not None
    assert (not split(shape, macs, SplitKind.TENSOR).refusals) == engine[2][name]
