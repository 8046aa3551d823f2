"""`mlx-stack logs`."""

from typing import TYPE_CHECKING

import click

from mlx_stack import exit_codes
from mlx_stack.cli.frame.completion import complete_services
from mlx_stack.cli.frame.context import (
    Context,
    json_lines_option,
    json_option,
    open_context,
    quiet_option,
)
from mlx_stack.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from mlx_procsup import LogInfo


@click.command("logs")
@click.argument("service", required=False, shell_complete=complete_services)
@click.option("--follow", "-f", is_flag=True, help="Go on with every new line.")
@click.option(
    "--tail",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    metavar="N",
    help="Begin with the last N lines.",
)
@click.option("--all", "everything", is_flag=True, help="Show all lines, the archives' first.")
@click.option("--rotate", is_flag=True, help="Archive the log now, or every log.")
@json_option
@json_lines_option
@quiet_option
def command(
    service: str | None,
    tail: int,
    *,
    follow: bool,
    everything: bool,
    rotate: bool,
    json: bool,
    json_lines: bool,
    quiet: bool,
) -> int:
    """List the services' logs, or show one of them."""
    if follow and (everything or rotate or json):
        other = "--all" if everything else "--rotate" if rotate else "--json"
        raise UsageError(f"--follow and {other} exclude each other.")
    if service is None and (follow or everything or json_lines):
        raise UsageError("Which log? Name a service.", hint="`mlx-stack logs` lists them.")
    context = open_context(json=json, quiet=quiet)
    if rotate:
        _rotate(context, service)
    elif service is None:
        _list(context)
    elif follow:
        _follow(context, service, tail, json_lines=json_lines)
    else:
        _show(context, service, None if everything else tail, json_lines=json_lines)
    return exit_codes.DONE


def _list(context: Context) -> None:
    from mlx_stack.services.logs import find_logs

    logs = find_logs(context.opened)
    if context.output.json:
        context.output.document({"logs": [_entry(info) for info in logs]})
    elif logs:
        context.output.answer(_table(logs))
        context.output.hint(f"\nIn {context.home.logs}; `mlx-stack logs NAME` shows one.")
    else:
        context.output.say("There are no logs yet: nothing was ever started.")


def _show(context: Context, service: str, tail: int | None, *, json_lines: bool) -> None:
    from mlx_stack.services.logs import find_log, read_lines

    log = find_log(context.opened, service)
    lines = read_lines(log, tail=tail, keep_colours=_keeps_colours(context))
    if context.output.json:
        document = {"service": service, "path": str(log), "lines": list(lines)}
        context.output.document(document)
        return
    for line in lines:
        _print(context, service, line, json_lines=json_lines)


def _follow(context: Context, service: str, tail: int, *, json_lines: bool) -> None:
    from mlx_stack.cli.frame.endless import until_interrupted
    from mlx_stack.services.logs import find_log, follow_lines

    with until_interrupted():
        log = find_log(context.opened, service, wait=True)
        for line in follow_lines(log, tail=tail, keep_colours=_keeps_colours(context)):
            _print(context, service, line, json_lines=json_lines)


def _rotate(context: Context, service: str | None) -> None:
    from mlx_stack.services.logs import rotate_logs

    rotated = rotate_logs(context.opened, service)
    if context.output.json:
        rows = [
            {"service": name, "archive": str(each.archive), "bytes": each.archived_bytes}
            for name, each in rotated
        ]
        context.output.document({"rotated": rows})
        return
    for name, each in rotated:
        context.output.text(f"{name}: {each.archived_bytes} bytes into {each.archive.name}")
    if not rotated:
        context.output.say("Nothing to archive: every log is empty.")


def _print(context: Context, service: str, line: str, *, json_lines: bool) -> None:
    if json_lines:
        context.output.event({"service": service, "line": line})
    else:
        context.output.text(line)


def _keeps_colours(context: Context) -> bool:
    return context.output.has_colours


def _entry(info: "LogInfo") -> dict[str, object]:
    from datetime import UTC, datetime

    return {
        "name": info.name,
        "path": str(info.path),
        "size_bytes": info.size_bytes,
        "modified_at": datetime.fromtimestamp(info.modified_at, UTC).isoformat(),
        "archives": [str(path) for path in reversed(info.archives)],
    }


def _table(logs: "list[LogInfo]") -> "Table":
    from datetime import datetime

    from rich.table import Table

    from mlx_stack.cli.views.format import format_bytes

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Log")
    table.add_column("Size", justify="right")
    table.add_column("Last line", no_wrap=True)
    table.add_column("Archives", justify="right")
    for info in logs:
        at = datetime.fromtimestamp(info.modified_at).astimezone()
        size = format_bytes(info.size_bytes) if info.size_bytes >= 10**6 else f"{info.size_bytes} B"
        table.add_row(info.name, size, f"{at:%Y-%m-%d %H:%M}", str(len(info.archives)))
    return table
