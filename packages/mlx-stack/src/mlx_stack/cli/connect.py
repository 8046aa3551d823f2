"""`mlx-stack connect` and `env`: what clients need to know of the endpoint."""

import shlex

import click

from mlx_stack import clients, gateway
from mlx_stack.cli.frame.context import Context, examples, with_context
from mlx_stack.cli.frame.options import completer, tier_option
from mlx_stack.cli.frame.output import Output
from mlx_stack.errors import UsageError

_complete_clients = completer(lambda _opened: (each.name for each in clients.registry.CLIENTS))


@click.command("connect")
@click.argument("client", required=False, shell_complete=_complete_clients)
@tier_option("The tier for the main model; by default the first of the stack.")
@click.option("--dry-run", is_flag=True, help="Show the change without writing anything.")
@click.option("--undo", is_flag=True, help="Undo what `connect` wrote.")
@with_context()
@examples("mlx-stack connect claude-code", "mlx-stack connect zed --dry-run")
def command(
    context: Context, client: str | None, tier: str | None, *, dry_run: bool, undo: bool
) -> None:
    """Configure a client to use this endpoint.

    Without CLIENT, list all clients, and which are installed and connected. `connect` only changes
    its own settings in a client's configuration file, and saves a backup next to the file before
    the first change. If a client has no such file, it shows what to type and where.
    """
    connect = clients.connect
    around = connect.surroundings(context.home)
    if client is None:
        if undo or tier is not None:
            option = "--undo" if undo else "--tier"
            raise UsageError(f"{option} needs a client.", hint="`mlx-stack connect` lists them.")
        context.output.show(connect.list_clients(context.opened, around), _show_list)
        return
    if undo:
        plan = connect.plan_undo(context.opened, client)
    else:
        plan = connect.plan_connect(context.opened, client, around, tier)
    if not dry_run:
        plan = connect.carry_out(context.opened, plan)
    context.output.show(plan, _show)


def _show_list(output: Output, known: "clients.connect.KnownClients") -> None:
    for each in known.clients:
        state = "connected" if each.is_connected else "found" if each.found_at else ""
        by_hand = "by hand" if each.client.files is None else ""
        place = "" if each.found_at is None else str(each.found_at)
        row = f"{each.client.name:<14} {each.client.title:<14} {state:<10} {by_hand:<8} {place}"
        output.text(row.rstrip())
    output.say(
        "\n`mlx-stack connect CLIENT` connects one, or shows what to type into a client "
        "that you must configure yourself; --dry-run only shows the change."
    )


def _show(output: Output, plan: "clients.connect.ConnectionPlan") -> None:
    for change in plan.changes:
        if not plan.is_done:
            output.text(change.diff().rstrip("\n") or f"{change.path} stays as it is.")
        elif change.after is None:
            output.text(f"Removed {change.path}." if change.is_change else f"No {change.path}.")
        else:
            state = "written" if change.is_change else "is already up to date"
            output.text(f"{change.path} {state}.")
            if change.is_first and change.backup.exists():
                output.text(f"Backup of the original: {change.backup}.")
    if plan.client.files is None and not plan.is_undo:
        output.text(plan.next_step)  # the answer itself
    elif plan.is_done:
        output.say(plan.next_step)


@click.command("env")
@click.option(
    "--shell",
    type=click.Choice(["sh", "fish"]),
    default="sh",
    show_default=True,
    help="Shell syntax to use; sh also works for bash and zsh.",
)
@with_context()
@examples('eval "$(mlx-stack env)"', "mlx-stack env --shell fish | source")
def env(context: Context, shell: str) -> None:
    """Print environment variables for clients.

    For this shell: `eval "$(mlx-stack env)"`, in fish `mlx-stack env --shell fish | source`.
    The key is printed in full.
    """

    def show(output: Output, endpoint: "gateway.endpoint.Endpoint") -> None:
        for name, value in endpoint.environment().items():
            if value is not None:
                output.text(_assignment(shell, name, value))
        if endpoint.key is None:
            output.say("There is no key yet: the first `mlx-stack up` creates one.")

    context.output.show(gateway.endpoint.gateway_endpoint(context.opened), show)


def _assignment(shell: str, name: str, value: str) -> str:
    if shell == "fish":
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"set -gx {name} '{escaped}'"
    return f"export {name}={shlex.quote(value)}"
