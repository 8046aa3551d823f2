"""How models are divided between Macs, against the engine that divides them: mlx-lm itself."""

import json
import subprocess
from pathlib import Path

import pytest

from mlx_catalog.model_files import describe
from mlx_catalog.model_types import model_types
from mlx_recommend import SplitKind, shape_of_model, split
from mlx_stack.engines.environment import Environment

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

_ASKED = json.loads((Path(__file__).parent / "model_types.json").read_text(encoding="utf-8"))
CONFIGS = {
    name: {
        "model_type": name.partition(":")[0],
        **(_ASKED["usual"] if config.get("usual") else {}),
        **{key: value for key, value in config.items() if key != "usual"},
    }
    for name, config in _ASKED["configs"].items()
    if model_types()[name.partition(":")[0]].tensor
}
"""Small models of every type that is divided by tensor."""

_PROGRAM = """
import importlib, importlib.util, json, sys
from mlx.utils import tree_flatten
from mlx_lm.utils import MODEL_REMAPPING

class TwoMacs:
    def size(self): return 2
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
    model.shard(TwoMacs())
    params[name] = size(model)
open(sys.argv[2], "w").write(json.dumps([ways_of, params]))
"""


@pytest.fixture(scope="module")
def engine(mlx_lm_environment: Environment, tmp_path_factory) -> tuple[dict, dict]:
    """What mlx-lm can do with each type, and the parameters that each of two Macs gets."""
    answer = tmp_path_factory.mktemp("divided") / "answer.json"
    asked = json.dumps({"kinds": list(model_types()), "configs": CONFIGS})
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
