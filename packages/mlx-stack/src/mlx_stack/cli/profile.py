"""`mlx-stack profile`."""

from pathlib import Path

import click

import mlx_hwprobe
import mlx_stack
from mlx_stack import exit_codes
from mlx_stack.cli.frame.context import Context, examples, with_context
from mlx_stack.cli.frame.output import Output, write_error


@click.command("profile")
@click.option(
    "--from",
    "capture",
    metavar="CAPTURE",
    type=click.Path(path_type=Path),
    help="Read a capture or a saved profile instead of this machine.",
)
@with_context()
@examples("mlx-stack profile", "mlx-stack profile --json")
def command(context: Context, capture: Path | None) -> int:
    """Detect the hardware and save it for the other commands.

    With --from, save the machine of a capture instead: `mlx-hwprobe capture -o FILE` makes one on
    any Mac. Exits with 5 on a Mac with an Intel processor, where MLX doesn't run.
    """
    try:
        saved = mlx_stack.hardware.save_profile(context.home, capture)
    except mlx_hwprobe.NotAppleSiliconError as error:
        context.output.show(error.profile, _show_profile)
        write_error(error.message, error.hint)
        return exit_codes.MISSING
    context.output.show(saved, _show)
    return exit_codes.DONE


def _show(output: Output, saved: "mlx_stack.hardware.SavedProfile") -> None:
    _show_profile(output, saved.profile)
    output.say(f"\nSaved to {saved.path}.")
    if not saved.is_this_machine:
        output.say(
            "Commands now plan for that machine; `mlx-stack profile` switches back to this one."
        )


def _show_profile(output: Output, profile: "mlx_hwprobe.HardwareProfile") -> None:
    output.text(mlx_hwprobe.render_profile(profile))
