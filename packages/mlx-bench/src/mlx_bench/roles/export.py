"""A report of a role as a terminal table or JSON; pure."""

from mlx_bench.export import caution_lines, figure, heading, interval, json_text, wrapped
from mlx_bench.roles.report import LoadSummary, RoleReport


def render_role_json(report: RoleReport) -> str:
    """The report's JSON document."""
    return json_text(report.to_document())


def render_role_table(report: RoleReport) -> str:
    """The report for a terminal of 80 columns, without those of which nothing is known."""
    several = report.item[1].capitalize()
    titles = (several, f"of {report.size_unit}", "Streams", report.unit, "95 % interval")
    known = [
        (title, values)
        for title, values in (
            ("tok/s", [each.tokens_per_s.value for each in report.summaries]),
            ("First byte s", [each.first_byte_s.value for each in report.summaries]),
        )
        if any(value is not None for value in values)
    ]
    rows: list[tuple[str, ...]] = [(*titles, *(title for title, _ in known), "Request s")]
    for number, each in enumerate(report.summaries):
        more = (figure(values[number]) for _, values in known)
        rows.append((*_row(each), *more, figure(each.end_to_end_s.value)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [*wrapped(heading(report.target, report.model)), *wrapped(_asked(report)), ""]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells))
    lines += caution_lines(report.cautions)
    return "\n".join(lines) + "\n"


def _asked(report: RoleReport) -> str:
    done = max((run.iteration for run in report.runs), default=-1) + 1
    iterations = "1 iteration" if done == 1 else f"{done} iterations"
    exact = f", sizes {report.size_exactness}" if report.size_exactness is not None else ""
    return (
        f"{report.role}: {iterations} after {report.parameters.warm_up} of warm-up{exact}, "
        f"seed {report.parameters.seed}"
    )


def _row(summary: LoadSummary) -> tuple[str, ...]:
    rate = summary.rate
    return (
        str(summary.items),
        f"{summary.size:,}",
        str(summary.concurrency),
        figure(rate.value),
        interval(rate.low, rate.high),
    )
