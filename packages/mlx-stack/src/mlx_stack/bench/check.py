"""Whether a tier, a local model or any endpoint is fit for agents; the result is kept."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import httpx

from mlx_bench import StreamingClient
from mlx_bench.agent_check.check import run_check, server_of
from mlx_bench.agent_check.report import CheckConditions, CheckReport
from mlx_bench.agent_check.saved import save_check
from mlx_bench.conformance.server import Server
from mlx_bench.engine import identify_engine
from mlx_bench.runner import OnProgress
from mlx_stack.bench.target import BenchTarget, open_target
from mlx_stack.errors import StackError
from mlx_stack.gateway.endpoint import gateway_endpoint, require_key
from mlx_stack.models.disk.manifest import weights_digest
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.agent_checks import check_file, conditions_of, last_check
from mlx_stack.stack import Tier, require_role

_ANSWER_WITHIN_S = 120.0
_TIER_HEADER = "x-mlx-stack-tier"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A finished check.

    Attributes:
        saved: Where it is kept; None for an endpoint by its URL.
    """

    report: CheckReport
    saved: Path | None

    def to_document(self) -> dict[str, object]:
        """The JSON answer."""
        document = self.report.to_document()
        return {**document, "saved": str(self.saved) if self.saved else None}


def check(
    opened: OpenStack,
    name: str,
    *,
    model: str | None = None,
    api_key: str | None = None,
    on_progress: OnProgress = lambda _: None,
) -> CheckResult:
    """Check what `name` means: a tier as clients reach it, through the gateway; else directly.

    Raises:
        UsageError: The name means nothing.
        StackError: The gateway or the target doesn't answer.
        EndpointError: A plain question is not answered.
        ReportError: A saved check is damaged, or the new one can't be written.
    """
    stack = opened.defined_stack
    tier = stack.tier(name) if stack is not None and model is None else None
    if tier is not None:
        require_role(tier)
        report = check_tier(opened, tier, on_progress=on_progress)
        path = check_file(opened.home, tier.name, tier.model)
        opened.home.create()
        save_check(report, path)
        return CheckResult(report, path)
    target_context = open_target(
        opened, name, model=model, api_key=api_key, concurrency=2, on_progress=on_progress
    )
    with target_context as target:
        return CheckResult(_check_target(name, target, on_progress), None)


def check_tier(
    opened: OpenStack, tier: Tier, *, on_progress: OnProgress = lambda _: None
) -> CheckReport:
    """Check a tier through the gateway, which clients ask as well.

    Raises:
        StackError: The gateway doesn't answer.
        EndpointError: A plain question is not answered.
    """
    endpoint = gateway_endpoint(opened)
    key = require_key(endpoint)
    server = Server(
        endpoint.root_url,
        tier.name,
        key,
        timeout_s=_ANSWER_WITHIN_S,
        auth=_OnlyThisTier(tier.name),
    )
    try:
        _wake(server)
        before = last_check(opened, tier)
        return run_check(
            server,
            target=f"tier {tier.name}",
            model=tier.model,
            conditions=conditions_of(opened, tier),
            context_tokens=tier.context_tokens,
            before=before.report if before is not None else None,
            on_progress=on_progress,
        )
    finally:
        server.close()


def _wake(server: Server) -> None:
    """Have an engine that rests started, so that what is known of it is of the one that answers."""
    try:
        server.chat("Say hello.", max_tokens=1)
        server.seen.clear()
    except httpx.HTTPError as error:
        raise StackError(
            f"The gateway doesn't answer at {server.base_url}.", hint="`mlx-stack up` starts it."
        ) from error


class _OnlyThisTier(httpx.Auth):
    """Takes no answer of another tier, which the gateway would fall back to."""

    def __init__(self, tier: str) -> None:
        self._tier = tier

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        """Send a request as it is, and look at who has answered it."""
        response = yield request
        answered = response.headers.get(_TIER_HEADER, self._tier)
        if answered != self._tier:
            problem = f"{answered} answered instead of {self._tier}"
            raise httpx.ConnectError(problem, request=request)


def _check_target(name: str, target: BenchTarget, on_progress: OnProgress) -> CheckReport:
    with StreamingClient(target.endpoint) as client:
        engine = identify_engine(client, "")
        context_tokens = target.context_tokens or client.listed_context_tokens()
    folder = target.folder
    conditions = CheckConditions(
        model_hash=weights_digest(folder) if folder is not None else None, engine=engine
    )
    server = server_of(target.endpoint, timeout_s=_ANSWER_WITHIN_S)
    try:
        return run_check(
            server,
            target=name,
            conditions=conditions,
            context_tokens=context_tokens,
            on_progress=on_progress,
        )
    finally:
        server.close()
