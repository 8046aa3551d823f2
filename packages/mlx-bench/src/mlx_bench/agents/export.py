"""A report of agents as a terminal table or JSON; pure."""

from mlx_bench.agents.report import AgentsReport, TurnSummary
from mlx_bench.export import caution_lines, figure, heading, interval, json_text, wrapped

_TITLES = ("Turn", "TTFT s", "95 % interval", "p95", "Prompt", "New", "Read", "Read/new")


def render_agents_json(report: AgentsReport) -> str:
    """The report's JSON document."""
    return json_text(report.to_document())


def render_agents_table(report: AgentsReport) -> str:
    """The report for a terminal of 80 columns."""
    rows = [_TITLES, *(_row(turn) for turn in report.turns)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    lines = [*wrapped(heading(report.target, report.model)), *wrapped(_asked(report)), ""]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells))
    lines += ["", *_overall(report), *caution_lines(report.cautions)]
    return "\n".join(lines) + "\n"


def _asked(report: AgentsReport) -> str:
    asked = report.parameters
    agents = "1 agent" if report.agents == 1 else f"{report.agents} agents at once"
    return (
        f"{agents}, {asked.turns} turns, prefix {asked.prefix_tokens:,} tokens "
        f"({report.prompt_exactness}), {asked.result_tokens} of tool results per turn, "
        f"up to {asked.generation_tokens} generated, seed {asked.seed}"
    )


def _row(turn: TurnSummary) -> tuple[str, ...]:
    ttft = turn.ttft_s
    return (
        str(turn.turn),
        figure(ttft.value),
        interval(ttft.low, ttft.high),
        figure(ttft.p95),
        _count(turn.prompt_tokens),
        _count(turn.new_tokens),
        _count(turn.read_tokens),
        _share(turn.read_tokens, turn.new_tokens),
    )


def _overall(report: AgentsReport) -> list[str]:
    totals = report.totals
    lines = [f"Throughput  {figure(report.throughput_tps)} tok/s of all agents together"]
    if report.fairness is not None:
        lines.append(
            f"Fairness    {figure(report.fairness)} (the slowest agent's time divided by the "
            "fastest agent's)"
        )
    if totals.read_tokens is not None and totals.new_tokens is not None:
        lines.append(
            f"Read        {totals.read_tokens:,} tokens in all; {totals.new_tokens:,} were new"
        )
    return lines


def _count(tokens: int | None) -> str:
    return "-" if tokens is None else f"{tokens:,}"


def _share(read: int | None, new: int | None) -> str:
    return "-" if read is None or not new else f"{read / new:.2f}"
