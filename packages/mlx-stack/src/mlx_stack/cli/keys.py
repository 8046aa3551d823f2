"""`mlx-stack keys`."""

import click

from mlx_gateway.keys import Priority
from mlx_stack import gateway
from mlx_stack.cli.frame.commands import OrderedGroup
from mlx_stack.cli.frame.context import Context, examples, list_by_default, with_context
from mlx_stack.cli.frame.options import completer
from mlx_stack.cli.frame.output import Column, Output

_complete_names = completer(
    lambda opened: (each.name for each in gateway.keys.list_keys(opened.home).clients)
)


@click.group("keys", cls=OrderedGroup, invoke_without_command=True)
@with_context()
@examples("mlx-stack keys", "mlx-stack keys add laptop")
def command(context: Context) -> None:
    """Create, list and revoke clients' keys; without a COMMAND, list them.

    keys.json in the state folder only contains hashes. Changes take effect at once.
    """
    list_by_default(context)


@command.command("list")
@with_context()
@examples("mlx-stack keys list", "mlx-stack keys list --json")
def list_command(context: Context) -> None:
    """Show what each key may do and when it was last used."""
    context.output.show(gateway.keys.list_keys(context.home), _show_list)


def _show_list(output: Output, listed: "gateway.keys.ListedKeys") -> None:
    if not listed.clients:
        output.say("No client has its own key. `mlx-stack keys add NAME` creates one.")
        return
    names = ("Client", "Tiers", "Priority", "At once", "Created", "Last used")
    output.table(
        [Column(name) for name in names],
        [
            [
                each.name,
                "all" if each.tiers is None else ", ".join(each.tiers) or "none",
                each.priority.value,
                str(each.max_in_flight or ""),
                each.created_at[:10],
                (listed.last_use(each) or "")[:16].replace("T", " "),
            ]
            for each in listed.clients
        ],
    )


@command.command("add", short_help="Create a key for a client, and show it once.")
@click.argument("name")
@click.option("--tiers", metavar="T,…", help="Allow only these tiers; `none` only allows /metrics.")
@click.option(
    "--priority",
    type=click.Choice([each.value for each in Priority]),
    default=Priority.INTERACTIVE.value,
    show_default=True,
    help="Which requests go first when several wait.",
)
@click.option(
    "--max-in-flight",
    type=click.IntRange(min=1),
    metavar="N",
    help="Maximum number of concurrent requests.",
)
@with_context()
@examples("mlx-stack keys add laptop", "mlx-stack keys add nightly --tiers fast --priority batch")
def add_command(
    context: Context, name: str, tiers: str | None, priority: str, max_in_flight: int | None
) -> None:
    """Create a key for the client NAME. It is only shown once."""
    made = gateway.keys.add_key(
        context.opened,
        name,
        tiers=tiers,
        priority=Priority(priority),
        max_in_flight=max_in_flight,
    )
    context.output.show(made, _show_made)


def _show_made(output: Output, made: "gateway.keys.MadeKey") -> None:
    output.text(made.key)
    output.say(f"This is the key of {made.client.name}. It is not stored and can't be shown again.")


@command.command("revoke")
@click.argument("name", shell_complete=_complete_names)
@with_context()
@examples("mlx-stack keys revoke laptop", "mlx-stack keys revoke nightly --json")
def revoke_command(context: Context, name: str) -> None:
    """Revoke the key of the client NAME."""
    revoked = gateway.keys.revoke_key(context.home, name)
    context.output.show(
        revoked, lambda output, _: output.say(f"The key of {name} has been revoked.")
    )
