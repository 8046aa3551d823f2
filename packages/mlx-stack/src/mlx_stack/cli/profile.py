"""`mlx-stack profile`."""

from pathlib import Path

import click

from mlx_stack import exit_codes
from mlx_stack.cli.frame.context import json_option, open_context, quiet_option
from mlx_stack.cli.frame.output import write_error


@click.command("profile")
@click.option(
    "--from",
    "capture",
    metavar="CAPTURE",
    type=click.Path(path_type=Path),
    help="Read a capture or a saved profile instead of this machine.",
)
@json_option
@quiet_option
def command(capture: Path | None, *, json: bool, quiet: bool) -> int:
    """Detect the hardware and save what the other commands plan with.

    With --from, the machine of the capture is saved: `mlx-hwprobe capture -o FILE` makes one on any
    Mac. Exits with 5 on a Mac with an Intel processor, on which MLX does not run.
    """
    from mlx_hwprobe import NotAppleSiliconError, render_profile
    from mlx_stack.hardware import save_profile

    context = open_context(json=json, quiet=quiet)
    try:
        saved = save_profile(context.home, capture)
    except NotAppleSiliconError as error:
        if json:
            context.output.document(error.profile.to_json())
        else:
            context.output.text(render_profile(error.profile))
        write_error(error.message, error.hint)
        return exit_codes.MISSING
    if json:
        context.output.document(saved.profile.to_json())
        return exit_codes.DONE
    context.output.text(render_profile(saved.profile))
    context.output.say(f"\nSaved to {saved.path}.")
    if not saved.is_this_machine:
        context.output.say("The commands now plan for that machine: `mlx-stack profile` goes back.")
    return exit_codes.DONE
