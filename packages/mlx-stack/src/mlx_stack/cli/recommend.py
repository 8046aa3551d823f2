"""`mlx-stack recommend`."""

from typing import TYPE_CHECKING

import click

from mlx_stack.cli.frame.context import json_option, open_context, quiet_option
from mlx_stack.cli.options.planning import (
    MemorySize,
    budget_pct_option,
    hardware_option,
    intent_option,
    wishes_of,
    workload_options,
)

if TYPE_CHECKING:
    from mlx_recommend import Option
    from mlx_stack.planning.recommend import Recommendation


@click.command("recommend")
@intent_option
@click.option(
    "--budget", "budget_bytes", type=MemorySize(), help="The memory that all tiers share: 30gb."
)
@budget_pct_option
@workload_options("Tokens of context that every tier is planned for.")
@hardware_option
@click.option("--show-all", is_flag=True, help="List every model of the catalog, fitting or not.")
@json_option
@quiet_option
def command(
    intent: str,
    budget_bytes: int | None,
    budget_pct: int | None,
    context_tokens: int | None,
    concurrency: int,
    hardware_spec: str | None,
    *,
    show_all: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Rank the catalog for a machine and propose the tiers of a stack. Writes nothing.

    The tiers share one budget: each with its KV cache at its full context, they fit at once.
    `mlx-stack init` makes a stack of them.
    """
    from mlx_stack.planning.recommend import recommend

    wishes = wishes_of(
        intent=intent,
        budget_bytes=budget_bytes,
        budget_pct=budget_pct,
        context_tokens=context_tokens,
        concurrency=concurrency,
        hardware_spec=hardware_spec,
    )
    context = open_context(json=json, quiet=quiet)
    found = recommend(context.home, wishes)
    if json:
        context.output.document(_document(found))
        return
    from mlx_stack.cli.views.recommendation import show_recommendation

    show_recommendation(context.output, found, show_all=show_all)


def _document(found: "Recommendation") -> dict[str, object]:
    from mlx_recommend import reasons
    from mlx_stack.cli.views.reasons import missing_text, reason_fields

    plan = found.plan
    tiers = [
        {
            "tier": tier.kind.name,
            **_option_fields(tier),
            "context_tokens": tier.estimate.workload.context_tokens,
            "concurrency": tier.estimate.workload.concurrency,
            "reasons": [reason_fields(reason) for reason in reasons(plan, tier)],
        }
        for tier in plan.tiers
    ]
    missing = [
        {"tier": each.tier, "reason": each.absence.value, "text": missing_text(each)}
        for each in plan.missing
    ]
    return {
        "intent": plan.intent.value,
        "hardware": found.hardware.to_json(),
        "budget_bytes": plan.budget_bytes,
        "total_bytes": plan.total_bytes,
        "score": round(plan.score, 4),
        "tiers": tiers,
        "missing_tiers": missing,
        "candidates": [_candidate_fields(each, plan.budget_bytes) for each in plan.ranking],
    }


def _option_fields(option: "Option") -> dict[str, object]:
    from mlx_stack.cli.views.estimates import memory_fields, speed_fields

    expected = option.estimate
    return {
        "model": option.candidate.model,
        "quant": option.candidate.quant,
        "score": round(option.score, 4),
        "memory": memory_fields(expected.memory, expected.limit_bytes),
        "generation_tps": speed_fields(expected.generation_tps),
        "prompt_tps": speed_fields(expected.prompt_tps),
    }


def _candidate_fields(option: "Option", budget_bytes: int) -> dict[str, object]:
    candidate, parts = option.candidate, option.components
    return {
        **_option_fields(option),
        "components": {
            "speed": round(parts.speed, 4),
            "quality": round(parts.quality, 4),
            "tool_calling": round(parts.tool_calling, 4),
            "memory_efficiency": round(parts.memory, 4),
        },
        "fits": option.total_bytes <= budget_bytes,
        "excluded": candidate.exclusion.value if candidate.exclusion is not None else None,
    }
