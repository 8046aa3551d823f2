"""What `bench` measures: a tier, a local model served just for the run, or any URL."""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import msgspec

from mlx_bench import (
    EndpointError,
    EngineVersion,
    ModelEndpoint,
    ServingProcess,
    StreamingClient,
    find_serving_process,
    parse_base_url,
    serving_process_of,
)
from mlx_bench.runner import OnProgress
from mlx_bench.serving_process import is_local
from mlx_catalog import CatalogEntry, ModelRole, Quant, UnknownModelError
from mlx_procsup import Ask, NotReadyError, StateDirs, start_service, stop_service, wait_for_healthy
from mlx_stack.engines.by_role import environment_of, program_of
from mlx_stack.errors import StackError, UsageError
from mlx_stack.gateway.endpoint import LOOPBACK
from mlx_stack.models.disk.local import LocalModel
from mlx_stack.models.find import find, local_model_of, local_models, near_names
from mlx_stack.models.hub.environment import read_environment
from mlx_stack.models.name import is_on_hub
from mlx_stack.models.own_code import ensure_no_code
from mlx_stack.models.serving import entry_of, role_of_folder, serving_of
from mlx_stack.models.shelf import engine_needed
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.engine_door import latest_asker
from mlx_stack.services.ports import free_ports
from mlx_stack.services.service import Service, engine_service
from mlx_stack.stack import Tier, require_role

_SERVICE = "bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchTarget:
    """An endpoint that answers, and what is known of the model behind it.

    Attributes:
        process: The serving process, or None where it is not on this machine or not ours.
        context_tokens: What the tier is planned for; None where nothing was planned.
        concurrency: How many requests it is planned for at once.
        engine: What serves it, where that is one of ours that is known.
    """

    endpoint: ModelEndpoint
    entry: CatalogEntry | None = None
    folder: Path | None = None
    quant: Quant | None = None
    source: str | None = None
    tier: str | None = None
    process: ServingProcess | None = None
    context_tokens: int | None = None
    concurrency: int | None = None
    engine: EngineVersion | None = None

    @property
    def is_here(self) -> bool:
        """Whether this machine serves it."""
        return is_local(self.endpoint.base_url)


@contextmanager
def open_target(
    opened: OpenStack,
    name: str,
    *,
    model: str | None,
    api_key: str | None,
    concurrency: int,
    on_progress: OnProgress,
    role: ModelRole = ModelRole.CHAT,
) -> Generator[BenchTarget]:
    """The target that a name means, answering for as long as the context is open.

    A URL is taken as it is; then tiers of the stack; then models on this disk, which are served on
    a free port until the context is left.

    Args:
        model: The model to ask a URL for; a server with one model needs none.
        concurrency: How many streams a model served for the run must take at once.
        role: What is asked of it.

    Raises:
        UsageError: The name means nothing, or a model for something else, or `model` was given for
            something else than a URL.
        StackError: The tier doesn't answer, or the model can't be served.
    """
    if _is_url(name):
        yield _of_url(opened, name, model, api_key)
        return
    if model is not None:
        raise UsageError(
            "--model only goes with a URL.",
            hint="A tier or a local model already says which model.",
        )
    stack = opened.defined_stack
    tier = stack.tier(name) if stack is not None else None
    if tier is not None:
        require_role(tier, role)
        yield _of_tier(opened, tier)
        return
    local = _find_model(opened, name)
    with _serve(opened, local, concurrency, on_progress, role) as target:
        yield target


def role_to_measure(opened: OpenStack, name: str, asked: str | None) -> ModelRole:
    """The role asked for, else what the model that a name means is for; chat where nothing says so.

    Of a name that means nothing, whatever is done with it says so.
    """
    if asked is not None:
        return ModelRole(asked)
    if _is_url(name):
        return ModelRole.CHAT
    stack = opened.defined_stack
    tier = stack.tier(name) if stack is not None else None
    if tier is not None:
        return tier.role
    try:
        return role_of_folder(opened.catalog, _find_model(opened, name).path)
    except StackError:
        return ModelRole.CHAT


def _is_url(name: str) -> bool:
    is_url = name.startswith(("http://", "https://"))
    return is_url and not is_on_hub(name, read_environment().endpoint)


def _of_url(opened: OpenStack, url: str, model: str | None, api_key: str | None) -> BenchTarget:
    endpoint = ModelEndpoint(parse_base_url(url), model or "", api_key)
    if model is None:
        with StreamingClient(endpoint) as client:
            names = [each.id for each in client.list_models()]
        if len(names) != 1:
            listed = f" It has {', '.join(names)}." if names else ""
            raise UsageError(f"Which model of {url}?{listed}", hint="Name one with --model.")
        endpoint = replace(endpoint, model=names[0])
    catalog = opened.catalog
    entry = catalog.get(endpoint.model) if endpoint.model in catalog else None
    return BenchTarget(
        endpoint=endpoint,
        entry=entry or catalog.by_repo(endpoint.model),
        process=find_serving_process(endpoint.base_url),
    )


def _of_tier(opened: OpenStack, tier: Tier) -> BenchTarget:
    endpoint = _endpoint_of(tier, opened.home.state_dirs)
    try:
        with StreamingClient(endpoint) as client:
            client.list_models()
    except EndpointError as error:
        raise StackError(
            f"Tier {tier.name!r} doesn't answer on port {tier.port}.",
            hint=f"`mlx-stack up --tier {tier.name}` starts it.",
        ) from error
    local = local_model_of(opened, tier)
    return BenchTarget(
        endpoint=endpoint,
        entry=entry_of(opened.catalog, tier),
        folder=local.path if local else None,
        quant=tier.quant,
        source=tier.source,
        tier=tier.name,
        process=find_serving_process(endpoint.base_url),
        context_tokens=tier.context_tokens,
        concurrency=tier.concurrency,
        engine=_engine_of(opened, tier),
    )


def _engine_of(opened: OpenStack, tier: Tier) -> EngineVersion | None:
    found = program_of(tier, opened.home.engines)
    return EngineVersion(*found) if found is not None else None


def _find_model(opened: OpenStack, name: str) -> LocalModel:
    problem = f"{name!r} isn't a tier, a model on this disk or a URL."
    try:
        found = find(opened, name)
    except UnknownModelError as error:
        hint = f"{near_names(opened, name)}`mlx-stack models` lists the models on this disk."
        raise UsageError(problem, hint=hint) from error
    model = next(iter(local_models(opened, found)), None)
    if model is None:
        hint = "`mlx-stack models` lists the models on this disk"
        if found.path is None:
            hint += f"; `mlx-stack pull {name}` downloads it"
        raise UsageError(problem, hint=f"{hint}.")
    if not model.is_whole:
        raise StackError(
            f"The model {model.condition}",
            hint=f"`mlx-stack pull {model.model or model.repo or name}` completes it.",
        )
    ensure_no_code(model.path)
    return model


@contextmanager
def _serve(
    opened: OpenStack,
    local: LocalModel,
    concurrency: int,
    on_progress: OnProgress,
    role: ModelRole,
) -> Generator[BenchTarget]:
    """A local model served by an engine that is started for it and stopped afterwards."""
    (port,) = free_ports(1)
    source = local.repo or str(local.path)
    tier = Tier(
        name=_SERVICE,
        model=local.model or local.repo or local.path.name,
        quant=local.quant,
        source=source,
        port=port,
        vllm_flags={},
        concurrency=concurrency,
        role=role_of_folder(opened.catalog, local.path),
    )
    tier = msgspec.structs.replace(
        tier, engine=engine_needed(entry_of(opened.catalog, tier), tier.role, local.path)
    )
    require_role(tier, role)
    on_progress(f"Starting {tier.model} for this run")
    with serve_beside(opened, tier, local.path) as target:
        yield target


@contextmanager
def serve_beside(opened: OpenStack, tier: Tier, folder: Path) -> Generator[BenchTarget]:
    """A tier served by an engine of its own, next to what runs, until the context is left.

    Args:
        tier: What to serve; its port must be free.
        folder: Its model.

    Raises:
        StackError: The engine doesn't start.
    """
    with tempfile.TemporaryDirectory(prefix="mlx-stack-bench-") as state:
        dirs = StateDirs(*(Path(state) / part for part in ("pids", "run", "logs")))
        service = _engine(opened, tier, folder, dirs)
        try:
            started = start_service(service.spec, dirs)
            wait_for_healthy(started)
            yield BenchTarget(
                endpoint=_endpoint_of(tier, dirs),
                entry=entry_of(opened.catalog, tier),
                folder=folder,
                quant=tier.quant,
                source=tier.source,
                process=serving_process_of(started.pid),
                engine=_engine_of(opened, tier),
            )
        except NotReadyError as error:
            log = "\n".join(error.log_tail)
            raise StackError(f"{tier.model} can't be served: {error}\n{log}".rstrip()) from error
        finally:
            stop_service(tier.name, dirs, command=service.spec.command, wanted=None)


class _Proof(httpx.Auth):
    """What each request to an engine carries, and each of its answers."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        """Sign a request, and look at who has answered it."""
        question = self._ask(request.method, request.url.raw_path.decode("latin-1"))
        request.headers.update(question.headers)
        response = yield request
        if not question.is_answered(response.headers):
            raise httpx.ConnectError("another process answers there", request=request)


def _endpoint_of(tier: Tier, dirs: StateDirs) -> ModelEndpoint:
    url = f"http://{LOOPBACK}:{tier.port}/v1"
    return ModelEndpoint(url, tier.model, auth=_Proof(latest_asker(dirs, tier.name)))


def _engine(opened: OpenStack, tier: Tier, folder: Path, dirs: StateDirs) -> Service:
    serving = serving_of(opened.catalog, tier, folder)
    environment = environment_of(tier, opened.home.engines)
    return engine_service(opened, tier, folder, serving, engine=environment, dirs=dirs)
