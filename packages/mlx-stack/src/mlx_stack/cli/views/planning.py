"""Estimates and drafts of stacks, the same wherever they are shown."""

import mlx_recommend
from mlx_stack import planning
from mlx_stack.cli.frame.output import Column, Output, Part
from mlx_stack.format import format_bytes

_TINY_TPS = 10


def short_speed(speed: "mlx_recommend.Speed | None") -> str:
    """A speed for a table: `~94`, or `94` where it was measured or published; `?` if unknown."""
    if speed is None:
        return "?"
    mark = "~" if speed.basis == "estimate" else ""
    return f"{mark}{_format_tps(speed.value)}"


def long_speed(speed: "mlx_recommend.Speed | None") -> str:
    """A speed in full: `94 tokens/s (78-113, estimated)`."""
    if speed is None:
        return "unknown"
    value = f"{_format_tps(speed.value)} tokens/s"
    if speed.basis == "measured":
        return f"{value} (measured on this machine)"
    word = "published for such a machine" if speed.basis == "reference" else "estimated"
    return f"{value} ({_format_tps(speed.low)} to {_format_tps(speed.high)}, {word})"


def _format_tps(tps: float) -> str:
    """`7.4` or `128` tokens a second."""
    return f"{tps:.1f}" if tps < _TINY_TPS else f"{tps:,.0f}"


def show_draft(output: Output, draft: "planning.init.Draft") -> None:
    """Show the tiers, on stdout, and what there is to say about them, on stderr."""
    columns = [
        Column("Tier"),
        Column("Model", folds=True),
        Column("Quant"),
        *(Column(name, right=True) for name in ("Memory", "Context", "Port")),
        Column("On disk"),
    ]
    rows: list[list[Part]] = []
    for each in draft.tiers:
        tier = each.tier
        rows.append(
            [
                (tier.name, "cyan"),
                tier.model,
                tier.quant or "?",
                format_bytes(each.memory_bytes),
                f"{tier.context_tokens:,}" if tier.context_tokens is not None else "",
                str(tier.port),
                "yes" if each.is_present else ("no", "yellow"),
            ]
        )
    output.table(columns, rows)
    if draft.budget_bytes is not None:
        together, budget = format_bytes(draft.total_bytes), format_bytes(draft.budget_bytes)
        output.say(f"Together {together} of a budget of {budget}.")
    for missing in draft.missing:
        why = planning.wording.missing_text(missing)
        output.say((missing.tier, "yellow"), f": {why}")
    for note in draft.notes:
        output.say(("note:", "yellow"), f" {note}")
