"""A question to engines that are not in use yet: a real engine, a real gateway, a real answer."""

import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil

from mlx_catalog import Quant, ServingEngine
from mlx_stack.ask import ModelAnswer, ask
from mlx_stack.config import ConfigValue, LiteLlmMode, save_values
from mlx_stack.credentials import ensure_gateway_key
from mlx_stack.engines import embedded_model
from mlx_stack.engines.by_role import environment_name
from mlx_stack.engines.environment import (
    EngineName,
    Environment,
    current_environment,
    lend_environment,
)
from mlx_stack.engines.errors import EngineUnhealthyError
from mlx_stack.engines.manage import EnginePair, HealthReport
from mlx_stack.engines.uv_process import Toolchain
from mlx_stack.errors import StackError
from mlx_stack.gateway.endpoint import gateway_endpoint
from mlx_stack.home import Home
from mlx_stack.models.find import local_model_of
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.assembly import assemble
from mlx_stack.services.down import stop_services
from mlx_stack.services.ports import free_ports
from mlx_stack.services.up import start_services
from mlx_stack.stack import Stack, Tier, save_stack

READY_WITHIN_S = 300.0
"""The first start of a new environment compiles its byte code; a large model loads from disk."""
_ANSWER_WITHIN_S = 300.0
_ANSWER_TOKENS = 24
SCRATCH_TIER = "health-check"
"""What a tier is called while it is tried."""


def check_health(
    opened: OpenStack,
    pair: EnginePair,
    toolchain: Toolchain,
    *,
    available_bytes: int | None = None,
) -> HealthReport:
    """Serve a model with the engines in `pair`, on free ports, and ask it a question.

    The model is the smallest of the stack's tiers if it fits next to what runs, served with the
    tier's own command line; else the embedded model, whose answer is known. Everything is started
    in a temporary folder, and stopped and removed again.

    Args:
        pair: What to try; without LiteLLM, its half is left out.
        available_bytes: Memory that is free for this; None asks the machine.

    Raises:
        EngineUnhealthyError: One doesn't start, or gives no or a wrong answer.
    """
    if pair.vllm_mlx is None:  # it converts the embedded model, whichever engine serves that
        raise StackError(
            "Without vllm-mlx nothing can answer.",
            hint="Install it with `mlx-stack doctor --fix`.",
        )
    opened.home.engines.mkdir(parents=True, exist_ok=True)
    with _scratch_home(opened.home) as scratch:
        if available_bytes is None:
            available_bytes = psutil.virtual_memory().available
        engine = _asked_engine(opened.home, pair)
        tier, expected = _own_tier(opened, available_bytes, engine), None
        if tier is None:
            tier = _embedded_tier(scratch, pair.vllm_mlx, engine, toolchain)
            expected = embedded_model.ANSWER
        _define(scratch, tier, pair.environments, opened.config.model_dir)
        return _try(OpenStack(scratch, opened.variables), _names(pair), expected)


@contextmanager
def served_beside(opened: OpenStack, pair: EnginePair, tier: Tier) -> Generator[OpenStack]:
    """A stack of this one tier, called `SCRATCH_TIER`, that runs with the engines in `pair`.

    It has a state folder, a gateway and ports of its own; all of it is gone again afterwards.

    Raises:
        EngineUnhealthyError: It doesn't start.
    """
    with _scratch_home(opened.home) as home:
        _define(home, tier, pair.environments, opened.config.model_dir)
        scratch = OpenStack(home, opened.variables)
        try:
            _start(scratch, _names(pair))
            yield scratch
        finally:
            stop_services(scratch)


@contextmanager
def _scratch_home(home: Home) -> Generator[Home]:
    """An empty state folder that knows the user's own catalog entries, and is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=".health-check.", dir=home.engines) as temporary:
        scratch = Home(Path(temporary))
        scratch.catalog = home.catalog
        yield scratch


def _names(pair: EnginePair) -> str:
    return " with ".join(f"{each.engine} {each.version}" for each in pair.environments)


def _asked_engine(home: Home, pair: EnginePair) -> EngineName:
    """The engine that is asked: mlx-lm, where it is new and vllm-mlx isn't."""
    is_usual_new = current_environment(home.engines, EngineName.VLLM_MLX) != pair.vllm_mlx
    is_other_new = current_environment(home.engines, EngineName.MLX_LM) != pair.mlx_lm
    return EngineName.MLX_LM if is_other_new and not is_usual_new else EngineName.VLLM_MLX


def _own_tier(opened: OpenStack, available_bytes: int, engine: EngineName) -> Tier | None:
    """The tier with the smallest model that is whole and takes half of the free memory at most.

    It must chat, since it is asked a question, and be served by that engine.
    """
    stack = opened.defined_stack
    tiers = [tier for tier in stack.chatting if environment_name(tier) is engine] if stack else []
    found = [(local_model_of(opened, tier), tier) for tier in tiers]
    sizes = [
        (model.size_bytes, tier)
        for model, tier in found
        if model is not None and model.is_whole and model.size_bytes * 2 <= available_bytes
    ]
    return min(sizes, key=lambda pair: pair[0])[1] if sizes else None


def _embedded_tier(
    scratch: Home, converter: Environment, engine: EngineName, toolchain: Toolchain
) -> Tier:
    return Tier(
        name=SCRATCH_TIER,
        model=embedded_model.NAME,
        quant=Quant.INT4,
        source=str(embedded_model.make_embedded_model(scratch.models, converter, toolchain)),
        port=1,
        vllm_flags={},
        engine=ServingEngine.MLX_LM if engine is EngineName.MLX_LM else None,
    )


def _define(scratch: Home, tier: Tier, engines: Sequence[Environment], model_dir: Path) -> None:
    """Make a state folder in which `tier` is the stack and these engines are in use."""
    for engine in engines:
        lend_environment(scratch.engines, engine)
    engine_port, gateway_port = free_ports(2)
    flags = {name: value for name, value in tier.vllm_flags.items() if name != "port"}
    of_mlx_lm = {name: each for name, each in tier.mlx_lm_flags.items() if name != "pipeline"}
    moved = msgspec.structs.replace(
        tier, name=SCRATCH_TIER, port=engine_port, vllm_flags=flags, lazy=False, idle_unload_s=None,
        replicas=(), hosts=(), mlx_lm_flags=of_mlx_lm, ssd_cache_gb=None,
    )  # fmt: skip
    save_stack(scratch.stack, Stack(tiers=(moved,)))
    has_litellm = any(engine.engine is EngineName.LITELLM for engine in engines)
    values: dict[str, ConfigValue] = {
        "litellm-port": gateway_port,
        "litellm": LiteLlmMode.ALWAYS if has_litellm else LiteLlmMode.NEVER,
        "model-dir": model_dir,
        "auto-health-check": False,
    }
    save_values(scratch, values)


def _try(scratch: OpenStack, engines: str, expected: str | None) -> HealthReport:
    """Start everything, ask, and stop everything, whatever happens."""
    began = time.monotonic()
    try:
        answer = _answer(scratch, engines)
    except EngineUnhealthyError:
        raise
    except StackError as error:
        raise EngineUnhealthyError(engines, error.message) from error
    finally:
        stop_services(scratch)
    text = answer.text or answer.reasoning  # what a thinking model thought counts as well
    if expected is not None and text.strip() != expected:
        problem = f"it answered {text.strip()!r} to {embedded_model.QUESTION!r}"
        raise EngineUnhealthyError(engines, problem)
    if not text.strip():
        raise EngineUnhealthyError(engines, "the answer was empty")
    return HealthReport(answer.model, answer.question, text, time.monotonic() - began)


def _answer(scratch: OpenStack, engines: str) -> ModelAnswer:
    _start(scratch, engines)
    return ask(
        gateway_endpoint(scratch),
        embedded_model.QUESTION,
        model=scratch.stack.tiers[0].model,
        timeout_s=_ANSWER_WITHIN_S,
        max_tokens=_ANSWER_TOKENS,
        temperature=0.0,
    )


def _start(scratch: OpenStack, engines: str) -> None:
    assembly = assemble(scratch, gateway_key=ensure_gateway_key(scratch.home))
    for each in start_services(scratch.home, assembly, timeout_s=READY_WITHIN_S).services:
        if each.error is not None:
            problem, _, log = each.error.partition("\n")
            raise EngineUnhealthyError(engines, problem, log=log)
