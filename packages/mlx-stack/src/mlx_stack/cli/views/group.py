"""A model on several Macs together, as a person reads it."""

from typing import TYPE_CHECKING

import mlx_recommend
from mlx_stack.cli.frame.output import Column, Output, Span
from mlx_stack.cli.views.planning import range_of, show_model
from mlx_stack.format import describe_hardware, format_bytes, format_seconds

if TYPE_CHECKING:
    from mlx_stack import planning

_LINKS = {
    "thunderbolt": "Thunderbolt, TCP",
    "jaccl": "Thunderbolt 5, RDMA",
    "ethernet": "Ethernet",
}
"""What the kinds of link are called."""


def show_group_estimate(output: Output, found: "planning.group.GroupModelEstimate") -> None:
    """Show the verdict, what each Mac holds, and how fast they are together."""
    show_model(output, found.model, f"{len(found.macs)} Macs together")
    expected = found.estimate
    if expected is None:
        output.answer("Nothing can be estimated.")
        return
    if expected.split.refusals:
        output.answer(("They can't serve it together:", "red"), f" {expected.split.refusals[0]}.")
        for more in expected.split.refusals[1:]:
            output.answer(f"Also, {more}.")
        return
    _show_fit(output, expected)
    if not expected.parts:
        return
    _show_parts(output, expected)
    output.answer("")
    output.facts(_rows(expected))
    if expected.shape.role.chats:
        show_links(output, expected)


def _show_fit(output: Output, expected: mlx_recommend.GroupEstimate) -> None:
    fullest = expected.fullest
    if expected.fits is None or fullest is None:
        output.answer("Whether it fits can't be known.", style="yellow")
        return
    total, limit = format_bytes(fullest.memory.total_bytes), format_bytes(fullest.limit_bytes)
    where = f"Mac {fullest.share.rank + 1}"
    if expected.fits:
        text = f" {where}, which has the least room, needs {total} of the {limit} of its GPU."
        output.answer(("It fits:", "green"), text)
    else:
        text = f" {where} would need {total}, and its GPU may use {limit}."
        output.answer(("It doesn't fit:", "red"), text)


def _show_parts(output: Output, expected: mlx_recommend.GroupEstimate) -> None:
    is_tensor = expected.split.kind == "tensor"
    how = "each has a part of every layer" if is_tensor else "each has some of the layers"
    output.answer(f"Divided by {expected.split.kind}: {how}.\n")
    rows: list[list[Span]] = []
    for part in expected.parts:
        memory = part.memory
        rows.append(
            [
                (str(part.share.rank + 1), "cyan"),
                describe_hardware(part.hardware.to_document()),
                str(part.share.layers),
                format_bytes(memory.weights_bytes),
                format_bytes(memory.kv_cache_bytes),
                (format_bytes(memory.total_bytes), "" if part.fits is not False else "red"),
                format_bytes(part.limit_bytes),
            ]
        )
    numbers = ("Layers", "Weights", "KV cache", "Total", "Limit")
    columns = [
        Column("Mac"),
        Column("", folds=True),
        *(Column(each, right=True) for each in numbers),
    ]
    output.table(columns, rows)


def _rows(expected: mlx_recommend.GroupEstimate) -> list[tuple[str, str]]:
    work = expected.workload
    requests = "1 request" if work.concurrency == 1 else f"{work.concurrency} requests"
    rows = [("Planned for", f"{work.context_tokens:,} tokens, {requests}")]
    longest = expected.max_context_tokens
    if longest is not None:
        short = " (less than asked for)" if longest < work.context_tokens else ""
        rows.append(("Longest context", f"{longest:,} tokens{short}"))
    return rows


def show_group_tier(output: Output, tier: mlx_recommend.GroupTier) -> None:
    """Show a tier that all Macs serve together, in a row for each Mac."""
    expected = tier.estimate
    output.answer(f"All {len(expected.parts)} together, by {expected.split.kind}:")
    rows: list[list[Span]] = []
    for part in expected.parts:
        is_first = part.share.rank == 0
        tokens = f"{expected.workload.context_tokens:,}"
        rows.append(
            [
                (mlx_recommend.GROUP_TIER if is_first else "", "cyan"),
                tier.candidate.model if is_first else "",
                tier.candidate.quant if is_first else "",
                part.hardware.chip or "?",
                format_bytes(part.memory.with_process_bytes),
                tokens if is_first else "",
                range_of(expected.generation_tps) if is_first else "",
            ]
        )
    names = [Column("Tier"), Column("Model", folds=True), Column("Quant"), Column("Mac")]
    numbers = [Column(name, right=True) for name in ("Memory", "Context", "Tokens/s")]
    output.table([*names, *numbers], rows)
    output.answer("")


def show_links(output: Output, expected: mlx_recommend.GroupEstimate) -> None:
    """Show how fast they are over each kind of link, divided in each way that is possible."""
    output.answer("\nTokens a second, estimated:")
    rows: list[list[Span]] = []
    for found in filter(None, (expected, expected.other)):
        how = str(found.split.kind)
        if found.fits is False:
            rows.append([how, "doesn't fit", "", ""])
            continue
        for each in found.speeds:
            ttft_s = None
            if each.prompt_tps is not None:
                ttft_s = found.workload.tokens_in_speed / each.prompt_tps.value
            figures = (range_of(each.generation_tps), range_of(each.prompt_tps))
            rows.append([how, _LINKS[each.kind], *figures, format_seconds(ttft_s)])
    prompt = f"Prompt of {expected.workload.tokens_in_speed:,}"
    output.table(
        [
            Column("By"),
            Column("Link", folds=True),
            *(Column(name, right=True) for name in ("Generation", prompt, "First token")),
        ],
        rows,
    )
    if any(each.kind == "jaccl" for each in expected.speeds):
        output.hint("RDMA is MLX's JACCL, which mlx-stack was never tested with.")
