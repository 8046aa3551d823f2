"""`mlx-stack env`."""

import shlex

import click

from mlx_stack.cli.frame.context import json_option, open_context, quiet_option


@click.command("env")
@click.option(
    "--shell",
    type=click.Choice(["sh", "fish"]),
    default="sh",
    show_default=True,
    help="Whose syntax to print; sh is also for bash and zsh.",
)
@json_option
@quiet_option
def command(shell: str, *, json: bool, quiet: bool) -> None:
    """Print the variables that clients read.

    For this shell: `eval "$(mlx-stack env)"`, in fish `mlx-stack env --shell fish | source`.
    The key is printed as it is: mind who is looking.
    """
    from mlx_stack.gateway.endpoint import gateway_endpoint

    context = open_context(json=json, quiet=quiet)
    variables = gateway_endpoint(context.opened).environment()
    if json:
        context.output.document({"env": variables})
        return
    for name, value in variables.items():
        if value is not None:
            context.output.text(_assignment(shell, name, value))
    if None in variables.values():
        context.output.say("There is no key yet: the first `mlx-stack up` makes one.")


def _assignment(shell: str, name: str, value: str) -> str:
    if shell == "fish":
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"set -gx {name} '{escaped}'"
    return f"export {name}={shlex.quote(value)}"
