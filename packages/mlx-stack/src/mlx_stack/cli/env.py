"""`mlx-stack env`."""

import shlex

import click

from mlx_stack import gateway
from mlx_stack.cli.frame.context import Context, with_context
from mlx_stack.cli.frame.output import Output


@click.command("env")
@click.option(
    "--shell",
    type=click.Choice(["sh", "fish"]),
    default="sh",
    show_default=True,
    help="Whose syntax to print; sh is also for bash and zsh.",
)
@with_context()
def command(context: Context, shell: str) -> None:
    """Print the variables that clients read.

    For this shell: `eval "$(mlx-stack env)"`, in fish `mlx-stack env --shell fish | source`.
    The key is printed as it is: mind who is looking.
    """

    def show(output: Output, endpoint: "gateway.endpoint.Endpoint") -> None:
        for name, value in endpoint.environment().items():
            if value is not None:
                output.text(_assignment(shell, name, value))
        if endpoint.key is None:
            output.say("There is no key yet: the first `mlx-stack up` makes one.")

    context.output.show(gateway.endpoint.gateway_endpoint(context.opened), show)


def _assignment(shell: str, name: str, value: str) -> str:
    if shell == "fish":
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"set -gx {name} '{escaped}'"
    return f"export {name}={shlex.quote(value)}"
