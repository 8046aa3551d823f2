"""A stack that is about to be written, or has been: as a table and as JSON fields."""

from typing import TYPE_CHECKING

from mlx_stack.cli.frame.output import Output
from mlx_stack.cli.views.estimates import short_bytes
from mlx_stack.cli.views.reasons import missing_text

if TYPE_CHECKING:
    from mlx_stack.home import Home
    from mlx_stack.planning.init import Draft


def draft_fields(draft: "Draft", home: "Home") -> dict[str, object]:
    """The fields of the JSON answer of `init`."""
    tiers = [
        {
            "name": each.tier.name,
            "model": each.tier.model,
            "quant": each.tier.quant,
            "source": each.tier.source,
            "port": each.tier.port,
            "context_tokens": each.tier.context_tokens,
            "concurrency": each.tier.concurrency,
            "memory_bytes": each.memory_bytes,
            "is_present": each.is_present,
        }
        for each in draft.tiers
    ]
    missing = [
        {"tier": each.tier, "reason": each.absence.value, "text": missing_text(each)}
        for each in draft.missing
    ]
    return {
        "stack_file": str(home.stack),
        "gateway_config": str(home.gateway_settings),
        "gateway_port": draft.gateway_port,
        "tiers": tiers,
        "missing_tiers": missing,
        "budget_bytes": draft.budget_bytes,
        "total_bytes": draft.total_bytes,
        "notes": list(draft.notes),
    }


def show_draft(output: Output, draft: "Draft") -> None:
    """Show the tiers, on stdout, and what there is to say about them, on stderr."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("Tier", "Model", "Quant"):
        table.add_column(name, no_wrap=name != "Model", overflow="fold")
    for name in ("Memory", "Context", "Port"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("On disk")
    for each in draft.tiers:
        tier = each.tier
        table.add_row(
            f"[cyan]{tier.name}[/cyan]",
            tier.model,
            tier.quant,
            short_bytes(each.memory_bytes),
            f"{tier.context_tokens:,}" if tier.context_tokens is not None else "",
            str(tier.port),
            "yes" if each.is_present else "[yellow]no[/yellow]",
        )
    output.answer(table)
    if draft.budget_bytes is not None:
        together, budget = short_bytes(draft.total_bytes), short_bytes(draft.budget_bytes)
        output.say(f"Together {together} of a budget of {budget}.")
    for missing in draft.missing:
        output.say(f"[yellow]{missing.tier}[/yellow]: {missing_text(missing)}")
    for note in draft.notes:
        output.say(f"[yellow]note:[/yellow] {note}")
