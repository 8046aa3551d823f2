"""`mlx-stack connect`."""

from typing import TYPE_CHECKING

import click

from mlx_stack.cli.frame.completion import complete_clients
from mlx_stack.cli.frame.context import Context, json_option, open_context, quiet_option
from mlx_stack.errors import UsageError

if TYPE_CHECKING:
    from mlx_stack.clients.connect import Plan


@click.command("connect")
@click.argument("client", required=False, shell_complete=complete_clients)
@click.option("--dry-run", is_flag=True, help="Show the change and write nothing.")
@click.option("--undo", is_flag=True, help="Take back what `connect` wrote.")
@json_option
@quiet_option
def command(client: str | None, *, dry_run: bool, undo: bool, json: bool, quiet: bool) -> None:
    """Write a client's configuration for this endpoint.

    CLIENT is claude-code, opencode, codex, continue, zed, llm or open-webui; without it, they are
    listed. What else is in a client's files stays; a file's first change leaves a backup beside it.
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
        (connect.undo if undo else connect.connect)(context.opened, plan)
    if json:
        context.output.document(_document(plan, dry_run=dry_run))
    else:
        _show(context, plan, dry_run=dry_run)


def _list(context: Context) -> None:
    from mlx_stack.clients.connect import connected_clients, surroundings
    from mlx_stack.clients.registry import CLIENTS

    connected = connected_clients(context.opened, surroundings(context.home))
    if context.output.json:
        rows = [
            {"name": client.name, "title": client.title, "connected": connected[client.name]}
            for client in CLIENTS
        ]
        context.output.document({"clients": rows})
        return
    for client in CLIENTS:
        state = "connected" if connected[client.name] else ""
        context.output.text(f"{client.name:<12}  {client.title:<12}  {state}".rstrip())
    context.output.say(
        "\n`mlx-stack connect CLIENT` connects one; --dry-run shows the change first."
    )


def _show(context: Context, plan: "Plan", *, dry_run: bool) -> None:
    output = context.output
    for change in plan.changes:
        if dry_run:
            output.text(change.diff().rstrip("\n") or f"{change.path} stays as it is.")
        elif change.after is None:
            output.text(f"{change.path} is gone." if change.is_change else f"No {change.path}.")
        else:
            output.text(f"{change.path} {'written' if change.is_change else 'was right already'}.")
    if not dry_run:
        output.say(plan.next_step)


def _document(plan: "Plan", *, dry_run: bool) -> dict[str, object]:
    files = [
        {
            "path": str(change.path),
            "changed": change.is_change,
            "backup": str(change.backup) if change.backup.exists() else None,
            "diff": change.diff(),
        }
        for change in plan.changes
    ]
    return {
        "client": plan.client.name,
        "dry_run": dry_run,
        "files": files,
        "next_step": plan.next_step,
    }
