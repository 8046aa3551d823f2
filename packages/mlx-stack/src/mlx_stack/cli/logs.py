"""`mlx-stack logs`."""

from datetime import datetime

import click

from mlx_stack import services
from mlx_stack.cli.frame.context import Context, examples, until_interrupted, with_context
from mlx_stack.cli.frame.options import completer
from mlx_stack.cli.frame.output import Column, Output, Span
from mlx_stack.errors import UsageError
from mlx_stack.format import format_bytes

_complete_services = completer(
    lambda opened: sorted(path.stem for path in opened.home.logs.glob("*.log"))
)


@click.command("logs")
@click.argument("service", required=False, shell_complete=_complete_services)
@click.option("--follow", "-f", is_flag=True, help="Keep printing new lines.")
@click.option(
    "--tail",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    metavar="N",
    help="Show the last N lines.",
)
@click.option("--all", "everything", is_flag=True, help="Show all lines, archives first.")
@click.option("--rotate", is_flag=True, help="Archive the log now, or every log.")
@with_context(json_lines=True)
@examples("mlx-stack logs standard --follow", "mlx-stack logs gateway --tail 200")
def command(
    context: Context,
    service: str | None,
    tail: int,
    *,
    follow: bool,
    everything: bool,
    rotate: bool,
) -> None:
    """List the services' logs, or show one of them."""
    output, logs = context.output, services.logs
    if follow:
        output.refuse_document("--follow")
        if everything or rotate:
            other = "--all" if everything else "--rotate"
            raise UsageError(f"--follow and {other} can't be combined.")
    if service is None and (follow or everything):
        raise UsageError("Which log? Name a service.", hint="`mlx-stack logs` lists them.")
    if rotate:
        output.show(logs.rotate_logs(context.opened, service), _show_rotated)
    elif service is None:
        output.show(logs.find_logs(context.opened), _show_list)
    elif follow:
        with until_interrupted():
            for line in logs.follow_log(
                context.opened, service, tail=tail, keep_colours=output.has_colours
            ):
                output.event(line, _show_line)
    else:
        lines = None if everything else tail
        log = logs.read_log(context.opened, service, tail=lines, keep_colours=output.has_colours)
        output.show_events(log, log.lines, _show_line)


def _show_line(output: Output, line: "services.logs.LogLine") -> None:
    output.text(line.line)


def _show_rotated(output: Output, done: "services.logs.RotatedLogs") -> None:
    for name, each in done.rotated:
        output.text(f"{name}: {format_bytes(each.archived_bytes)} into {each.archive.name}")
    if not done.rotated:
        output.say("Nothing to archive: every log is empty.")


def _show_list(output: Output, found: "services.logs.ServiceLogs") -> None:
    if not found.logs:
        output.say("There are no logs yet: nothing has been started.")
        return
    columns = [
        Column("Log"),
        Column("Size", right=True),
        Column("Last line"),
        Column("Archives", right=True),
    ]
    rows: list[list[Span]] = []
    for info in found.logs:
        at = datetime.fromtimestamp(info.modified_at).astimezone()
        size = format_bytes(info.size_bytes)
        rows.append([info.name, size, f"{at:%Y-%m-%d %H:%M}", str(len(info.archives))])
    output.table(columns, rows)
    output.hint(f"\nIn {found.folder}; `mlx-stack logs NAME` shows one.")
