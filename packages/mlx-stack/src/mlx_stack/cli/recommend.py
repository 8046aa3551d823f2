"""`mlx-stack recommend`."""

from functools import partial

import click

import mlx_recommend
from mlx_stack import planning
from mlx_stack.cli.frame.context import Context, examples, with_context
from mlx_stack.cli.frame.options import several_hardware_option
from mlx_stack.cli.frame.output import Column, Output, Span
from mlx_stack.cli.frame.planning_options import planning_options
from mlx_stack.cli.views.group import show_group_tier
from mlx_stack.cli.views.planning import short_speed
from mlx_stack.format import describe_hardware, format_bytes

_ALTERNATIVES = 8


@click.command("recommend")
@planning_options(
    budget_help="Memory budget for all tiers, e.g. 30gb.",
    context_help="Context length of every chat tier, in tokens.",
)
@several_hardware_option
@click.option(
    "--show-all", is_flag=True, help="List every model of the catalog, even if it doesn't fit."
)
@with_context()
@examples(
    "mlx-stack recommend",
    "mlx-stack recommend --hardware m4-max:40:128 --with embedding,rerank",
    "mlx-stack recommend --hardware m4-max:40:128+m2-ultra:76:192",
)
def command(
    context: Context,
    constraints: "planning.recommend.Constraints",
    hardware_spec: str | None,
    *,
    show_all: bool,
) -> None:
    """Rank the catalog for a machine and propose the tiers of a stack. Nothing is written.

    The tiers share one budget: they all fit in memory at the same time, each with a full context.
    `mlx-stack init` creates a stack from them.

    With several Macs in --hardware, the tiers are for the first Mac. One more tier is for a model
    that all of them run together, and that the first Mac can't run by itself.
    """
    found = planning.recommend.recommend(context.opened, constraints, hardware_spec=hardware_spec)
    context.output.show(found, partial(_show, show_all=show_all))


def _show(output: Output, found: "planning.recommend.Recommendation", *, show_all: bool) -> None:
    """Show the tiers, why they were chosen, and what else there is."""
    plan = found.plan
    share = ""
    if found.hardware.memory_bytes:
        memory = found.hardware.memory_bytes
        share = f", {plan.budget_bytes / memory:.0%} of {format_bytes(memory)}"
    for mac in found.macs:
        output.answer(describe_hardware(mac.to_document()), style="bold")
    budget = format_bytes(plan.budget_bytes)
    whose = " of the first" if len(found.macs) > 1 else ""
    output.answer(f"Budget for all tiers{whose}: {budget}{share}\n")
    if plan.tiers:
        _show_tiers(output, plan)
    if isinstance(found.group, mlx_recommend.GroupTier):
        show_group_tier(output, found.group)
    _show_reasons(output, found)
    _show_candidates(output, plan, show_all=show_all)
    _show_next_steps(output, found)


def _show_next_steps(output: Output, found: "planning.recommend.Recommendation") -> None:
    plan = found.plan
    output.hint("")
    if any(each.estimate.generation_tps is not None for each in plan.ranking):
        output.hint("Speeds with ~ are estimated: `mlx-stack estimate MODEL` shows their range.")
    else:
        output.hint("Speeds are unknown for this machine; `mlx-stack bench` measures them.")
    if plan.tiers:
        output.say("`mlx-stack init` makes a stack of these tiers; `setup` also downloads them.")
    if isinstance(found.group, mlx_recommend.GroupTier):
        name, model = mlx_recommend.GROUP_TIER, found.group.candidate.model
        hosts = " --host NAME" * (len(found.macs) - 1)
        output.say(f"`mlx-stack init --add {model} --as {name}{hosts}` divides it between them.")


def _show_tiers(output: Output, plan: mlx_recommend.TierPlan) -> None:
    rows: list[list[Span]] = [
        [
            (tier.kind.name, "cyan"),
            tier.candidate.model,
            tier.candidate.quant,
            format_bytes(tier.total_bytes),
            f"{tier.estimate.workload.context_tokens:,}",
            short_speed(tier.estimate.generation_tps),
            f"{tier.score:.2f}",
        ]
        for tier in plan.tiers
    ]
    rows += [
        [
            (each.name, "cyan"),
            each.candidate.model,
            each.candidate.quant,
            format_bytes(each.total_bytes),
            f"{each.estimate.workload.context_tokens:,}",
            "",
            "",
        ]
        for each in plan.reading
    ]
    columns = [Column("Tier"), Column("Model", folds=True), Column("Quant")]
    numbers = [Column(name, right=True) for name in ("Memory", "Context", "Tokens/s", "Score")]
    output.table([*columns, *numbers], rows)
    used, left = plan.total_bytes, plan.budget_bytes - plan.total_bytes
    output.answer(
        f"\nIn total, {format_bytes(used)}; {format_bytes(left)} of the budget is left.\n"
    )


def _show_reasons(output: Output, found: "planning.recommend.Recommendation") -> None:
    """Why each tier is there, or isn't."""
    words, plan = planning.recommend, found.plan
    rows: list[list[Span]] = [
        [
            (tier.kind.name, "cyan"),
            "; ".join(words.reason_text(reason) for reason in mlx_recommend.reasons(plan, tier))
            + ".",
        ]
        for tier in plan.tiers
    ]
    rows += [
        [
            (each.name, "cyan"),
            "; ".join(words.reason_text(reason) for reason in mlx_recommend.reading_reasons(each))
            + ".",
        ]
        for each in plan.reading
    ]
    if isinstance(found.group, mlx_recommend.GroupTier):
        why = "; ".join(map(words.reason_text, mlx_recommend.group_reasons(plan, found.group)))
        rows.append([(mlx_recommend.GROUP_TIER, "cyan"), f"{why}."])
    rows += [[(each.tier, "yellow"), words.missing_text(each)] for each in found.missing]
    output.table([Column(), Column(folds=True)], rows)


def _show_candidates(output: Output, plan: mlx_recommend.TierPlan, *, show_all: bool) -> None:
    chosen = {tier.candidate.model for tier in plan.tiers}
    others = [each for each in plan.ranking if show_all or _is_alternative(each, plan)]
    others = [each for each in others if show_all or each.candidate.model not in chosen]
    shown = others if show_all else others[:_ALTERNATIVES]
    if not shown:
        return
    title = "Every model of the catalog" if show_all else "What else fits"
    output.answer((f"\n{title}", "bold"), ", as the standard tier:")
    rows: list[list[Span]] = []
    for each in shown:
        quality = each.candidate.quality
        rows.append(
            [
                each.candidate.model,
                each.candidate.quant,
                format_bytes(each.total_bytes),
                short_speed(each.estimate.generation_tps),
                "?" if quality is None else f"{quality:.0f}",
                f"{each.score:.2f}",
                _note(each, plan, chosen),
            ]
        )
    numbers = [Column(name, right=True) for name in ("Memory", "Tokens/s", "Quality", "Score")]
    output.table(
        [Column("Model", folds=True), Column("Quant"), *numbers, Column("Note", folds=True)], rows
    )
    if len(others) > len(shown):
        output.say(f"{len(others) - len(shown)} more fit: --show-all lists the whole catalog.")


def _is_alternative(option: mlx_recommend.Option, plan: mlx_recommend.TierPlan) -> bool:
    return option.candidate.exclusion is None and option.total_bytes <= plan.chat_budget_bytes


def _note(option: mlx_recommend.Option, plan: mlx_recommend.TierPlan, chosen: set[str]) -> Span:
    if option.candidate.model in chosen:
        return ("in the plan", "green")
    if option.candidate.exclusion is not None:
        return planning.recommend.exclusion_text(option.candidate)
    over = option.total_bytes - plan.chat_budget_bytes
    if over > 0:
        return f"{format_bytes(over)} over"
    return "" if option.candidate.entry.capabilities.tool_calling else "no tool calls"
