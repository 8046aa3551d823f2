"""`mlx-stack usage`."""

import csv
import io
from collections import Counter
from datetime import datetime
from pathlib import Path

import click

import mlx_stack
from mlx_gateway.availability import Availability
from mlx_gateway.sums import Sums
from mlx_gateway.usage import By
from mlx_stack.cli.frame.context import Context, examples, with_context
from mlx_stack.cli.frame.output import Column, Output, Span
from mlx_stack.errors import UsageError
from mlx_stack.format import format_duration, format_seconds

_NOTABLE_S = 3600.0
"""What was first seen so much later than the report begins is reported from then on."""
_REASONS_SHOWN = 5


@click.command("usage")
@click.option(
    "--since",
    default="7d",
    show_default=True,
    metavar="TIME",
    help="How far back: 30m, 12h, 7d, 2w, or a date.",
)
@click.option(
    "--by",
    type=click.Choice([each.value for each in By]),
    default=By.MODEL.value,
    show_default=True,
    help="How to group the rows.",
)
@click.option(
    "--prices",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A YAML file with dollars per million tokens, by model; adds the cost.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print the rows as CSV.")
@with_context()
@examples("mlx-stack usage", "mlx-stack usage --since 24h --by key")
def command(context: Context, since: str, by: str, prices: Path | None, *, as_csv: bool) -> None:
    """Show requests, tokens, speed and availability.

    The figures come from ledger.db in the state folder, where the gateway records each request
    without its text. A client that disconnects doesn't count as a failure.
    """
    if as_csv and context.output.is_for_programs:
        raise UsageError("--csv and --json can't be combined.")
    report = mlx_stack.usage.report_usage(context.opened, since=since, by=By(by), prices=prices)
    context.output.show(report, _show_csv if as_csv else _show)


def _show_csv(output: Output, report: "mlx_stack.usage.UsageReport") -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(report.usage.table())
    output.text(text.getvalue().rstrip("\n"))


def _show(output: Output, report: "mlx_stack.usage.UsageReport") -> None:
    usage = report.usage
    since = datetime.fromtimestamp(usage.since).astimezone()
    if not usage.rows:
        output.say(f"No requests since {since:%Y-%m-%d %H:%M}.")
    else:
        _show_rows(output, report)
    if report.read_again:
        output.answer("\nPrompts that had to be read again:")
        for each in report.read_again[:_REASONS_SHOWN]:
            output.answer(f"{each.sum.words}: {_cost(each)}")
    if usage.availability:
        width = max(map(len, usage.availability))
        output.answer("\nAvailable:")
        for name, each in usage.availability.items():
            is_new = each.since - usage.since > _NOTABLE_S
            period = _period(each.since if is_new else usage.since, usage.until)
            output.answer(f"{name:<{width}}  {_describe(each, period)}")
    if usage.events:
        counts = Counter(event.what for event in usage.events)
        output.answer(
            f"Events: {', '.join(f'{what} {count}' for what, count in counts.most_common())}."
        )


def _cost(each: "mlx_stack.usage.ReadAgain") -> str:
    """`41 min 12 s of reading (1,204,000 tokens in 131 of 140 turns)`."""
    tokens = f"{each.sum.tokens:,} tokens in {each.sum.requests} of {each.sum.turns} turns"
    if each.seconds is None:
        return tokens
    about = "about " if each.basis == "predicted" else ""
    return f"{about}{format_duration(each.seconds)} of reading ({tokens})"


def _describe(each: Availability, period: str) -> str:
    """`99.2 % of November; 3 restarts, 1 panic, longest outage 41 s`."""
    share = "unknown for" if each.share is None else f"{_percent(each.share)} of"
    counts = [(each.restarts, "restart", "restarts"), (each.panics, "panic", "panics")]
    parts = [f"{count} {one if count == 1 else many}" for count, one, many in counts if count]
    if each.outages:
        parts.append(f"longest outage {format_duration(each.longest_outage_s)}")
    return f"{share} {period}; {', '.join(parts) or 'no outage'}"


def _percent(share: float) -> str:
    """`99.2 %`, with as many digits as tell it from 100 %."""
    digits = next((n for n in (1, 2, 3) if share == 1 or round(share * 100, n) < 100), 3)
    return f"{100 * share:.{digits}f} %" if share < 1 else "100 %"


def _period(since: float, until: float) -> str:
    """`November`, where it is that month so far; `the last 7 days`, or since when."""
    begin = datetime.fromtimestamp(since).astimezone()
    end = datetime.fromtimestamp(until).astimezone()
    is_month = (begin.day, begin.hour, begin.minute, begin.second) == (1, 0, 0, 0)
    if is_month and (begin.year, begin.month) == (end.year, end.month):
        return f"{begin:%B}"
    days = (until - since) / 86_400
    if days >= 1 and abs(days - round(days)) < 0.001:
        return "the last day" if round(days) == 1 else f"the last {round(days)} days"
    return f"the time since {begin:%Y-%m-%d %H:%M}"


def _show_rows(output: Output, report: "mlx_stack.usage.UsageReport") -> None:
    usage = report.usage
    has_prediction = usage.by is By.MODEL and bool(report.predictions)
    heads = ["Reqs", "Failed", "Read", "Reused", "Written", "TTFT", "p95"]
    heads += ["expected"] if has_prediction else []
    heads += ["tok/s"]
    heads += ["expected"] if has_prediction else []
    heads += ["Cost"] if report.prices else []
    names: list[tuple[str | None, Sums]] = [*usage.rows.items()]
    names += [(None, usage.totals)] if len(usage.rows) > 1 else []
    rows: list[list[Span]] = []
    for name, used in names:
        predicted = report.predictions.get(name or "")
        ttft: list[Span] = [format_seconds(used.ttft_s(0.5)), format_seconds(used.ttft_s(0.95))]
        speed: list[Span] = [_figure(used.generation_tps(0.5))]
        if has_prediction:
            ttft.append(format_seconds(predicted.ttft_s if predicted else None))
            speed.append(_figure(predicted.generation_tps if predicted else None))
        counts = (used.requests, used.failed, used.prompt_tokens, used.cached_tokens)
        tokens: list[Span] = [f"{count:,}" for count in (*counts, used.completion_tokens)]
        cost: list[Span] = [_figure(report.cost(name), " $")] if report.prices else []
        rows.append([name or "in all", *tokens, *ttft, *speed, *cost])
    columns = [Column(usage.by.value.capitalize()), *(Column(head, right=True) for head in heads)]
    output.table(columns, rows)


def _figure(value: float | None, unit: str = "") -> str:
    return "" if value is None else f"{value:.3g}{unit}" if value < 100 else f"{value:.0f}{unit}"
