"""The table of model types against mlx-lm's own modules: what they hold, and what they cache."""

import json
import subprocess
from pathlib import Path

import pytest

from mlx_catalog.config_json import read_config
from mlx_catalog.parameters import weights_of_config
from stack_testkit.small_configs import small_configs

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

CONFIGS = small_configs(Path(__file__).parent / "model_types.json")

_TOKENS = 41
_PROGRAM = """
import importlib, json, sys
import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import MODEL_REMAPPING

def size(state):
    if isinstance(state, (list, tuple)):
        return sum(size(each) for each in state)
    return 0 if state is None else state.nbytes

answer = {}
for name, config in json.loads(sys.argv[1]).items():
    kind = config["model_type"]
    module = importlib.import_module(f"mlx_lm.models.{MODEL_REMAPPING.get(kind, kind)}")
    model = module.Model(module.ModelArgs.from_dict(config))
    params = sum(value.size for _, value in tree_flatten(model.parameters()))
    model.set_dtype(mx.float32)
    caches = make_prompt_cache(model)
    # A prompt, and one token more: only then has a rotating cache dropped what left its window.
    model(mx.array([[1] * 40]), cache=caches)
    model(mx.array([[1]]), cache=caches)
    # A cache that its layer never uses has no keys.
    held = [cache.state for cache in caches if getattr(cache, "keys", True) is not None]
    answer[name] = [params, size(held)]
open(sys.argv[2], "w").write(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def built(vllm_mlx_environment, tmp_path_factory) -> dict[str, tuple[int, int]]:
    """Parameters, and bytes of the caches in 32 bits, of each model as mlx-lm builds it."""
    answer = tmp_path_factory.mktemp("built") / "answer.json"
    command = [vllm_mlx_environment.python, "-I", "-c", _PROGRAM, json.dumps(CONFIGS), answer]
    subprocess.run(command, check=True, capture_output=True)
    return json.loads(answer.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_is_counted_to_what_the_module_holds(name: str, built):
    weights = weights_of_config(read_config(CONFIGS[name]))
    assert weights is not None
    assert weights.total_params == pytest.approx(built[name][0], rel=0.012)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_is_read_to_what_the_module_caches(name: str, built):
    geometry = read_config(CONFIGS[name]).geometry
    assert geometry is not None
    growing, sliding, state = (
        geometry.growing_kv_elements_per_token,
        geometry.sliding_kv_elements_per_token,
        0,
    )
    assert growing is not None
    assert sliding is not None
    recurrent = geometry.recurrent
    if recurrent is not None:
        history = (recurrent.conv_kernel - 1) * recurrent.conv_channels
        state = recurrent.heads * recurrent.head_dim * recurrent.state_dim + history
        state *= recurrent.layers
    within = min(_TOKENS, geometry.sliding_window or 0)
    assert built[name][1] == 4 * (growing * _TOKENS + sliding * within + state)
