"""`mlx-stack completion`."""

import click
from click.shell_completion import get_completion_class

from mlx_stack.cli.frame.context import examples
from mlx_stack.cli.frame.output import write_line

_VARIABLE = "_MLX_STACK_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
@examples(
    "mlx-stack completion zsh > ~/.zfunc/_mlx-stack",
    "mlx-stack completion fish > ~/.config/fish/completions/mlx-stack.fish",
)
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    Save it where the shell looks for completions:

    \b
    bash  mlx-stack completion bash > FILE, with FILE
          ~/.local/share/bash-completion/completions/mlx-stack
    zsh   mlx-stack completion zsh > ~/.zfunc/_mlx-stack, with ~/.zfunc in fpath
    fish  mlx-stack completion fish > FILE, with FILE
          ~/.config/fish/completions/mlx-stack.fish
    """  # noqa: D301 - click takes a backspace character for "don't wrap this"
    kind = get_completion_class(shell)
    assert kind is not None  # the choices are click's own
    write_line(kind(ctx.find_root().command, {}, "mlx-stack", _VARIABLE).source())
