"""A recommendation as tables."""

from rich.table import Table

from mlx_recommend import Option, TierPlan, reasons
from mlx_stack.cli.frame.output import Output
from mlx_stack.cli.views.estimates import short_bytes, short_speed
from mlx_stack.cli.views.format import describe_hardware, format_machine_bytes
from mlx_stack.cli.views.reasons import EXCLUSIONS, missing_text, reason_text
from mlx_stack.planning.recommend import Recommendation

_ALTERNATIVES = 8


def show_recommendation(output: Output, found: Recommendation, *, show_all: bool) -> None:
    """Show the tiers, why they were chosen, and what else there is."""
    plan = found.plan
    share = ""
    if found.hardware.memory_bytes:
        share = f", {plan.budget_bytes / found.hardware.memory_bytes:.0%} of the memory"
    output.answer(f"[bold]{describe_hardware(found.hardware.to_json())}[/bold]")
    budget = format_machine_bytes(plan.budget_bytes)
    output.answer(f"Budget for all tiers: {budget}{share}\n")
    if plan.tiers:
        output.answer(_tiers(plan))
        used, left = plan.total_bytes, plan.budget_bytes - plan.total_bytes
        output.answer(
            f"\nTogether {short_bytes(used)}, {short_bytes(left)} of the budget to spare.\n"
        )
    output.answer(_why(plan))
    _show_candidates(output, plan, show_all=show_all)
    output.hint("")
    if any(each.estimate.generation_tps is not None for each in plan.ranking):
        output.hint("Speeds with ~ are estimated: `mlx-stack estimate MODEL` shows their range.")
    else:
        output.hint("How fast they are is not known for this machine: `mlx-stack bench` measures.")
    if plan.tiers:
        output.say("`mlx-stack init` makes a stack of these tiers; `setup` also downloads them.")


def _why(plan: TierPlan) -> Table:
    """Why each tier is there, or isn't."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for tier in plan.tiers:
        words = "; ".join(reason_text(reason) for reason in reasons(plan, tier))
        table.add_row(f"[cyan]{tier.kind.name}[/cyan]", f"{words}.")
    for missing in plan.missing:
        table.add_row(f"[yellow]{missing.tier}[/yellow]", missing_text(missing))
    return table


def _tiers(plan: TierPlan) -> Table:
    table = _table("Tier", "Model", "Quant", numbers=("Memory", "Context", "Tokens/s", "Score"))
    for tier in plan.tiers:
        table.add_row(
            f"[cyan]{tier.kind.name}[/cyan]",
            tier.candidate.model,
            tier.candidate.quant,
            short_bytes(tier.total_bytes),
            f"{tier.estimate.workload.context_tokens:,}",
            short_speed(tier.estimate.generation_tps),
            f"{tier.score:.2f}",
        )
    return table


def _show_candidates(output: Output, plan: TierPlan, *, show_all: bool) -> None:
    chosen = {tier.candidate.model for tier in plan.tiers}
    others = [each for each in plan.ranking if show_all or _is_alternative(each, plan)]
    others = [each for each in others if show_all or each.candidate.model not in chosen]
    shown = others if show_all else others[:_ALTERNATIVES]
    if not shown:
        return
    title = "Every model of the catalog" if show_all else "What else fits"
    output.answer(f"\n[bold]{title}[/bold], as the standard tier:")
    table = _table(
        "Model", "Quant", numbers=("Memory", "Tokens/s", "Quality", "Score"), last="Note"
    )
    for each in shown:
        quality = each.candidate.quality
        table.add_row(
            each.candidate.model,
            each.candidate.quant,
            short_bytes(each.total_bytes),
            short_speed(each.estimate.generation_tps),
            "?" if quality is None else f"{quality:.0f}",
            f"{each.score:.2f}",
            _note(each, plan, chosen),
        )
    output.answer(table)
    if len(others) > len(shown):
        output.say(f"{len(others) - len(shown)} more fit: --show-all lists the whole catalog.")


def _is_alternative(option: Option, plan: TierPlan) -> bool:
    return option.candidate.exclusion is None and option.total_bytes <= plan.budget_bytes


def _note(option: Option, plan: TierPlan, chosen: set[str]) -> str:
    if option.candidate.model in chosen:
        return "[green]in the plan[/green]"
    if option.candidate.exclusion is not None:
        return EXCLUSIONS[option.candidate.exclusion]
    over = option.total_bytes - plan.budget_bytes
    if over > 0:
        return f"{short_bytes(over)} over"
    tools = option.candidate.entry.capabilities.tool_calling
    return "" if tools else "no tool calls"


def _table(*texts: str, numbers: tuple[str, ...], last: str | None = None) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in texts:
        table.add_column(name, no_wrap=name != "Model", overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    if last is not None:
        table.add_column(last)
    return table
