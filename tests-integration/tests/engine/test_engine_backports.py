"""The faults that backports fix, in the pinned engine's own libraries, and that they do."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mlx_stack.engines import backports
from mlx_stack.engines.environment import Environment

pytestmark = pytest.mark.engine

DECODE = """
import json, runpy, sys, tempfile
if sys.argv[1]:
    runpy.run_path(sys.argv[1])["apply"]()
import mlx.core as mx
from mlx_lm.models.cache import ArraysCache

def operations_behind(array):
    with tempfile.NamedTemporaryFile("r") as file:
        mx.export_to_dot(file.name, array)
        return file.read().count("->")

cache = ArraysCache(2, left_padding=[0, 3])
cache.prepare(lengths=[900, 900])
cache[1] = mx.zeros((2, 4))
for token in range(600):
    cache[1] = cache[1] + 1
    cache.advance(1)
    mx.eval(cache[1])  # as an answer's next token does
counts = (cache.left_padding, cache.lengths)
print(json.dumps({
    "behind": [operations_behind(each) for each in counts],
    "counts": [each.tolist() for each in counts],
    "state": cache[1][0, 0].item(),
}))
"""


PADDED = """
import json, runpy, sys
if sys.argv[1]:
    runpy.run_path(sys.argv[1])["apply"]()
import mlx.core as mx
from mlx_lm.models import ssm
from mlx_lm.models.cache import ArraysCache

cache = ArraysCache.merge([ArraysCache(2), ArraysCache(2)])
cache.prepare(lengths=[4, 2], right_padding=[0, 2])
mask = cache.make_mask(4)
mx.random.seed(1)
def numbers(*shape):
    return mx.random.normal(shape)
x, B, C, dt = numbers(2, 4, 2, 8), numbers(2, 4, 1, 4), numbers(2, 4, 1, 4), numbers(2, 4, 2)
A_log, D, dt_bias, state = numbers(2), numbers(2), numbers(2), numbers(2, 2, 8, 4)
wanted = mx.array([[True] * 4, [True, True, False, False]])
_, together = ssm.ssm_update(x, A_log, B, C, D, dt, dt_bias, state, (0.001, 100.0), wanted)
_, alone = ssm.ssm_update(
    x[1:, :2], A_log, B[1:, :2], C[1:, :2], D, dt[1:, :2], dt_bias, state[1:], (0.001, 100.0)
)
print(json.dumps({
    "masked": mask.tolist() == wanted.tolist(),
    "state": mx.allclose(together[1:], alone, atol=1e-5).item(),
}))
"""


WAIT = """
import json, runpy, sys
from collections import deque
from types import SimpleNamespace
if sys.argv[1]:
    runpy.run_path(sys.argv[1])["apply"]()
from vllm_mlx.scheduler import Scheduler

scheduler = Scheduler.__new__(Scheduler)
line = deque(SimpleNamespace(request_id=each) for each in ("left", "stays"))
scheduler.__dict__.update(
    requests={}, running={}, request_id_to_uid={}, uid_to_request_id={}, waiting=line,
    finished_req_ids=set(), _cleanup_detokenizer=lambda _: None, _pending_abort_ids=set(),
)
scheduler.abort_request("left")
scheduler._process_pending_aborts()
print(json.dumps([each.request_id for each in line]))
"""


ABANDONED = """
import asyncio, json, runpy, sys
from types import SimpleNamespace
if sys.argv[1]:
    runpy.run_path(sys.argv[1])["apply"]()
from starlette.responses import StreamingResponse
from vllm_mlx.engine_core import EngineCore

aborted, uncollected = [], []
piece = SimpleNamespace(finished=False)
core = EngineCore.__new__(EngineCore)
core.__dict__.update(
    _output_collectors={"left": SimpleNamespace(get_nowait=lambda: piece)},
    scheduler=SimpleNamespace(abort_request=aborted.append),
    _cleanup_request=lambda _: None,
)

async def answer():
    stream = core.stream_outputs("left")
    uncollected.append(stream)
    async for _ in stream:
        yield b"piece"

async def leave():
    reads = asyncio.Event()
    async def send(message):
        if message["type"] == "http.response.body":
            reads.set()
            await asyncio.Event().wait()
    async def receive():
        await reads.wait()
        return {"type": "http.disconnect"}
    response = StreamingResponse(answer())
    uncollected.append(response)
    await response({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
    print(json.dumps(aborted), flush=True)

asyncio.run(leave())
"""


def said(environment: Environment, script: str, backports_file: str) -> Any:
    """What a script prints in the engine's environment, with the backports of a file or none."""
    command = [str(environment.python), "-I", "-c", script, backports_file]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def padded(environment: Environment, backports_file: str) -> dict[str, bool]:
    """Whether prompts of different lengths, read together, are masked and end in their states."""
    return said(environment, PADDED, backports_file)


def waiting(environment: Environment, backports_file: str) -> list[str]:
    """Who waits in the engine once a client has left whose request it has forgotten already."""
    return said(environment, WAIT, backports_file)


def aborted(environment: Environment, backports_file: str) -> list[str]:
    """Whose work ends when a client leaves between two pieces of an answer."""
    return said(environment, ABANDONED, backports_file)


def decoded(environment: Environment, backports_file: str) -> dict[str, Any]:
    """What 600 tokens of a batch leave in a recurrent layer's cache."""
    return said(environment, DECODE, backports_file)


def test_a_hybrid_models_cache_does_not_grow_with_the_answer(vllm_mlx_environment: Environment):
    fixed = decoded(vllm_mlx_environment, str(Path(backports.__file__)))
    assert max(fixed["behind"]) <= 8
    assert fixed["counts"] == [[-600, -597], [300, 300]]
    assert fixed["state"] == 600


def test_prompts_of_different_lengths_read_together_leave_what_each_leaves_alone(
    vllm_mlx_environment: Environment,
):
    right = padded(vllm_mlx_environment, str(Path(backports.__file__)))
    assert right == {"masked": True, "state": True}


def test_a_request_whose_client_left_while_it_waited_is_gone(vllm_mlx_environment: Environment):
    assert waiting(vllm_mlx_environment, str(Path(backports.__file__))) == ["stays"]


def test_an_answer_that_nobody_reads_any_more_is_not_written_on(vllm_mlx_environment: Environment):
    assert aborted(vllm_mlx_environment, str(Path(backports.__file__))) == ["left"]


def test_the_pinned_engine_still_needs_each_backport(vllm_mlx_environment: Environment):
    grown = decoded(vllm_mlx_environment, "")
    assert min(grown["behind"]) >= 600, "mlx-lm#1632 is in the engine: the backport can go"
    assert grown["counts"] == [[-600, -597], [300, 300]]
    faults = padded(vllm_mlx_environment, "")
    assert faults == {"masked": False, "state": False}, "mlx-lm masks padding: that backport can go"
    assert waiting(vllm_mlx_environment, "") == ["left", "stays"], "the engine ends it itself"
    assert aborted(vllm_mlx_environment, "") == [], "the engine closes what it answers itself"
