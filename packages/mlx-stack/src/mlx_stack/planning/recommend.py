"""Which models suit a machine, and which tiers to make of them."""

from dataclasses import dataclass

from mlx_catalog import Catalog, Quant
from mlx_hwprobe import HardwareProfile
from mlx_recommend import (
    Candidate,
    Intent,
    Option,
    TierPlan,
    budget_bytes,
    candidate_of,
    make_plan,
    reasons,
    reference_measurements,
)
from mlx_stack.config import load_config
from mlx_stack.errors import StackError
from mlx_stack.hardware import asked_hardware
from mlx_stack.home import Home
from mlx_stack.models.find import open_catalog
from mlx_stack.models.hub.environment import read_environment
from mlx_stack.planning.evidence import measurements_of, saved_benchmarks
from mlx_stack.planning.wording import missing_document, reason_document


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a user may ask of a recommendation; None leaves it to the configuration or the roles.

    Attributes:
        intent: What the stack is for.
        budget_bytes: The memory that all tiers share.
        budget_pct: The same, in percent of the unified memory.
        context_tokens: The context of every tier.
        concurrency: Requests that each tier serves side by side.
        hardware_spec: The machine; None is this one.
        reserved_bytes: What models that the user has chosen himself take of the budget.
    """

    intent: Intent = Intent.BALANCED
    budget_bytes: int | None = None
    budget_pct: int | None = None
    context_tokens: int | None = None
    concurrency: int = 1
    hardware_spec: str | None = None
    reserved_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The proposed tiers, and every model that they were chosen from.

    Attributes:
        hardware: The machine.
        budget_bytes: What all tiers share, what is reserved included.
        plan: The tiers, what is missing, and the ranking.
        catalog: Where the models are from.
        quant: The precision that was wanted.
        has_token: Whether gated models were allowed.
    """

    hardware: HardwareProfile
    budget_bytes: int
    plan: TierPlan
    catalog: Catalog
    quant: Quant
    has_token: bool

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        plan = self.plan
        tiers = [
            {
                "tier": tier.kind.name,
                **_option_document(tier),
                "context_tokens": tier.estimate.workload.context_tokens,
                "concurrency": tier.estimate.workload.concurrency,
                "reasons": [reason_document(reason) for reason in reasons(plan, tier)],
            }
            for tier in plan.tiers
        ]
        return {
            "intent": plan.intent.value,
            "hardware": self.hardware.to_document(),
            "budget_bytes": plan.budget_bytes,
            "total_bytes": plan.total_bytes,
            "score": round(plan.score, 4),
            "tiers": tiers,
            "missing_tiers": [missing_document(each) for each in plan.missing],
            "candidates": [_candidate_document(each, plan.budget_bytes) for each in plan.ranking],
        }


def recommend(home: Home, wishes: Wishes) -> Recommendation:
    """The best plan for a machine; writes nothing.

    Raises:
        StackError: The machine's memory is unknown and no budget was given.
        InvalidFileError: The configuration, a saved result or the saved profile is damaged.
    """
    config = load_config(home)
    quant = config.default_quant
    hardware = asked_hardware(home, wishes.hardware_spec)
    budget = budget_bytes(
        hardware,
        pct=wishes.budget_pct or config.memory_budget_pct,
        wanted_bytes=wishes.budget_bytes,
    )
    if budget is None:
        raise StackError(
            "The memory of this machine is unknown, so there is no budget to plan for.",
            hint="Give one with --budget 30gb, or name a machine with --hardware m4-max:40:128.",
        )
    catalog, has_token = open_catalog(home), read_environment().token is not None
    saved = saved_benchmarks(home.benchmarks, hardware)
    candidates: list[Candidate] = []
    for entry in catalog:
        figures = (
            *reference_measurements(entry, hardware),
            *measurements_of(entry, saved, default_quant=quant),
        )
        candidates.append(candidate_of(entry, quant, allow_gated=has_token, measurements=figures))
    plan = make_plan(
        candidates,
        hardware,
        budget_bytes=max(budget - wishes.reserved_bytes, 0),
        intent=wishes.intent,
        context_tokens=wishes.context_tokens,
        concurrency=wishes.concurrency,
    )
    return Recommendation(
        hardware=hardware,
        budget_bytes=budget,
        plan=plan,
        catalog=catalog,
        quant=quant,
        has_token=has_token,
    )


def _option_document(option: Option) -> dict[str, object]:
    expected = option.estimate.to_document()
    return {
        "model": option.candidate.model,
        "quant": option.candidate.quant,
        "score": round(option.score, 4),
        **{name: expected[name] for name in ("memory", "generation_tps", "prompt_tps")},
    }


def _candidate_document(option: Option, budget_bytes: int) -> dict[str, object]:
    candidate, parts = option.candidate, option.components
    return {
        **_option_document(option),
        "components": {
            "speed": round(parts.speed, 4),
            "quality": round(parts.quality, 4),
            "tool_calling": round(parts.tool_calling, 4),
            "memory_efficiency": round(parts.memory, 4),
        },
        "fits": option.total_bytes <= budget_bytes,
        "excluded": candidate.exclusion.value if candidate.exclusion is not None else None,
    }
