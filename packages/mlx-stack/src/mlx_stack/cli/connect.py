"""`mlx-stack connect`."""

from typing import TYPE_CHECKING

import click

from mlx_stack.cli.frame.completion import complete_clients
from mlx_stack.cli.frame.context import Context, json_option, open_context, quiet_option
from mlx_stack.errors import UsageError

if TYPE_CHECKING:
    from mlx_stack.clients.connect import ConnectionPlan


@click.command("connect")
@click.argument("client", required=False, shell_complete=complete_clients)
@click.option("--dry-run", is_flag=True, help="Show the change and write nothing.")
@click.option("--undo", is_flag=True, help="Undo what `connect` wrote.")
@json_option
@quiet_option
def command(client: str | None, *, dry_run: bool, undo: bool, json: bool, quiet: bool) -> None:
    """Write a client's configuration for this endpoint.

    CLIENT is claude-code, opencode, codex, continue, zed, llm or open-webui; without it, they are
    listed. Everything else in a client's files is kept. A backup is saved next to each file before
    its first change.
    """
    from mlx_stack.clients import connect

    context = open_context(json=json, quiet=quiet)
    if client is None:
        if undo:
            raise UsageError("--undo needs a client.", hint="`mlx-stack connect` lists them.")
        _list(context)
        return
    if undo:
        plan = connect.plan_undo(context.opened, client)
    else:
        plan = connect.plan_connect(context.opened, client, connect.surroundings(context.home))
    if not dry_run:
        plan = connect.carry_out(context.opened, plan)
    if json:
        context.output.document(plan.to_document())
    else:
        _show(context, plan)


def _list(context: Context) -> None:
    from mlx_stack.clients.connect import list_clients, surroundings

    known = list_clients(context.opened, surroundings(context.home))
    if context.output.json:
        context.output.document(known.to_document())
        return
    for client, is_connected in known.is_connected.items():
        state = "connected" if is_connected else ""
        context.output.text(f"{client.name:<12}  {client.title:<12}  {state}".rstrip())
    context.output.say(
        "\n`mlx-stack connect CLIENT` connects one; --dry-run shows the change first."
    )


def _show(context: Context, plan: "ConnectionPlan") -> None:
    output = context.output
    for change in plan.changes:
        if not plan.is_done:
            output.text(change.diff().rstrip("\n") or f"{change.path} stays as it is.")
        elif change.after is None:
            output.text(f"Removed {change.path}." if change.is_change else f"No {change.path}.")
        else:
            output.text(
                f"{change.path} {'written' if change.is_change else 'is already up to date'}."
            )
    if plan.is_done:
        output.say(plan.next_step)
