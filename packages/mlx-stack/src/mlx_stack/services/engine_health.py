"""A question to engines that are not in use yet: a real engine, a real gateway, a real answer."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from mlx_catalog import Quant
from mlx_procsup import NotReadyError, start_service, stop_service, wait_for_healthy
from mlx_stack.ask import ask
from mlx_stack.child_environment import inherited_environment
from mlx_stack.config import Config
from mlx_stack.credentials import ensure_gateway_key
from mlx_stack.engines import embedded_model
from mlx_stack.engines.environment import Environment
from mlx_stack.engines.errors import EngineUnhealthyError
from mlx_stack.engines.manage import EnginePair, HealthReport
from mlx_stack.engines.uv_process import Toolchain
from mlx_stack.engines.vllm_mlx import Serving
from mlx_stack.errors import NoStackError, StackError
from mlx_stack.gateway.endpoint import LOOPBACK, Endpoint
from mlx_stack.home import Home
from mlx_stack.models.find import local_model_of
from mlx_stack.models.serving import serving_of
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.assembly import gateway_settings, model_folder, write_gateway_files
from mlx_stack.services.ports import free_ports
from mlx_stack.services.service import (
    Service,
    engine_service,
    gateway_service,
    litellm_service,
)
from mlx_stack.stack import SCHEMA_VERSION, Stack, Tier

READY_WITHIN_S = 300.0
"""The first start of a new environment compiles its byte code; a large model loads from disk."""
_ANSWER_WITHIN_S = 300.0
_ANSWER_TOKENS = 24
_TIER = "health-check"


@dataclass(frozen=True, slots=True)
class _Subject:
    """The model that is asked.

    Attributes:
        tier: What to serve; its port is not used.
        folder: The model's folder.
        serving: How it is served.
        expected: What the answer must be; None takes any answer that is not empty.
    """

    tier: Tier
    folder: Path
    serving: Serving
    expected: str | None


def check_health(
    opened: OpenStack,
    pair: EnginePair,
    toolchain: Toolchain,
    *,
    available_bytes: int | None = None,
) -> HealthReport:
    """Serve a model with the engines in `pair`, on free ports, and ask it a question.

    The model is the smallest of the stack's tiers if it fits beside what runs, served with the
    tier's own command line; else the embedded model, whose answer is known. Everything is started
    in a temporary folder, and stopped and removed again.

    Args:
        opened: Where the stack and its models are.
        pair: What to try; without LiteLLM, its half is left out.
        toolchain: What the embedded model is fetched with.
        available_bytes: Memory that is free for this; None asks the machine.

    Raises:
        EngineUnhealthyError: One doesn't start, or gives no or a wrong answer.
    """
    if pair.vllm_mlx is None:
        raise StackError(
            "Without vllm-mlx there is nothing that could answer.",
            hint="Install it with `mlx-stack engines install`.",
        )
    home = opened.home
    home.engines.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".health-check.", dir=home.engines) as temporary:
        scratch = Home(Path(temporary))
        if available_bytes is None:
            available_bytes = psutil.virtual_memory().available
        subject = _own_subject(opened, available_bytes) or _embedded_subject(
            scratch, pair.vllm_mlx, toolchain
        )
        return _try(pair.vllm_mlx, pair.litellm, subject, scratch)


def _own_subject(opened: OpenStack, available_bytes: int) -> _Subject | None:
    """The smallest model of the stack that is whole and takes at most half of the free memory."""
    try:
        stack = opened.stack
    except NoStackError:
        return None
    found = [(local_model_of(opened, tier), tier) for tier in stack.tiers]
    whole = [
        (model.size_bytes, tier)
        for model, tier in found
        if model is not None and model.is_whole and model.size_bytes * 2 <= available_bytes
    ]
    if not whole:
        return None
    _, tier = min(whole, key=lambda pair: pair[0])
    tier = msgspec.structs.replace(tier, lazy=False, idle_unload_s=None)
    folder = model_folder(opened, tier)
    return _Subject(tier, folder, serving_of(opened.catalog, tier, folder), None)


def _embedded_subject(scratch: Home, engine: Environment, toolchain: Toolchain) -> _Subject:
    folder = embedded_model.make_embedded_model(scratch.models, engine, toolchain)
    tier = Tier(
        name=_TIER,
        model=embedded_model.NAME,
        quant=Quant.INT4,
        source=str(folder),
        port=1,
        vllm_flags={},
    )
    return _Subject(tier, folder, Serving(), embedded_model.ANSWER)


def _try(
    engine: Environment, litellm: Environment | None, subject: _Subject, scratch: Home
) -> HealthReport:
    """Start them with a gateway in front, ask, and stop all, whatever happens."""
    engine_port, gateway_port, litellm_port = free_ports(3)
    tier = msgspec.structs.replace(subject.tier, name=_TIER, port=engine_port)
    key = ensure_gateway_key(scratch)
    config = Config(litellm_port=gateway_port)
    services = [_engine(engine, tier, subject, scratch)]
    if litellm is not None:
        services.append(
            litellm_service(
                litellm.program("litellm"),
                config,
                home=scratch,
                key=key,
                port=litellm_port,
                environment=inherited_environment(),
            )
        )
    services.append(_gateway(config, tier, key, scratch))
    endpoint = Endpoint(f"http://{LOOPBACK}:{gateway_port}", key)
    dirs = scratch.state_dirs
    dirs.create()
    began = time.monotonic()
    try:
        started = [start_service(service.spec, dirs) for service in services]
        for each in started:
            wait_for_healthy(each, READY_WITHIN_S)
        text = _answer(endpoint, tier)
    except NotReadyError as error:
        log = "\n".join(error.log_tail)
        raise EngineUnhealthyError(_names(engine, litellm), str(error), log=log) from error
    except StackError as error:
        raise EngineUnhealthyError(_names(engine, litellm), error.message) from error
    finally:
        for service in reversed(services):
            stop_service(service.name, dirs)
    if subject.expected is not None and text.strip() != subject.expected:
        problem = f"it answered {text.strip()!r} to {embedded_model.QUESTION!r}"
        raise EngineUnhealthyError(_names(engine, litellm), problem)
    if not text.strip():
        raise EngineUnhealthyError(_names(engine, litellm), "the answer was empty")
    return HealthReport(tier.model, embedded_model.QUESTION, text, time.monotonic() - began)


def _answer(endpoint: Endpoint, tier: Tier) -> str:
    """What the model says; what a thinking model thought counts as well."""
    answer = ask(
        endpoint,
        embedded_model.QUESTION,
        model=tier.model,
        timeout_s=_ANSWER_WITHIN_S,
        max_tokens=_ANSWER_TOKENS,
        temperature=0.0,
    )
    return answer.text or answer.reasoning


def _engine(engine: Environment, tier: Tier, subject: _Subject, scratch: Home) -> Service:
    return engine_service(
        tier,
        subject.folder,
        subject.serving,
        engine=engine,
        home=scratch,
        environment=inherited_environment(),
    )


def _gateway(config: Config, tier: Tier, key: str, scratch: Home) -> Service:
    text = gateway_settings(Stack(schema_version=SCHEMA_VERSION, tiers=(tier,)), config)
    write_gateway_files(scratch, text)
    return gateway_service(
        config, home=scratch, key=key, settings_text=text, environment=inherited_environment()
    )


def _names(engine: Environment, litellm: Environment | None) -> str:
    used = [engine] if litellm is None else [engine, litellm]
    return " with ".join(f"{each.engine} {each.version}" for each in used)
