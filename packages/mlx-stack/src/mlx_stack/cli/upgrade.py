"""`mlx-stack upgrade`."""

import click

import mlx_stack
from mlx_stack import exit_codes
from mlx_stack.cli.frame.context import Context, examples, with_context
from mlx_stack.cli.frame.output import Output

_WAYS = {
    "uv-tool": "with `uv tool install`",
    "uvx": "by uvx, into a temporary environment",
    "pipx": "with pipx",
    "venv": "into a virtual environment",
    "checkout": "from a clone, and runs from its sources",
    "homebrew": "with Homebrew",
}


@click.command("upgrade")
@click.option("--check", is_flag=True, help="Show how this copy would be upgraded; change nothing.")
@with_context()
@examples("mlx-stack upgrade --check", "mlx-stack upgrade")
def command(context: Context, *, check: bool) -> int:
    """Upgrade mlx-stack and its engines.

    This copy is upgraded the same way as it was installed: with uv, pipx or Homebrew, or in a
    clone. Steps that you have to run yourself are printed.
    """
    output, upgrade = context.output, mlx_stack.upgrade

    def announce(step: "mlx_stack.upgrade.UpgradeStep") -> None:
        output.say(f"{step.purpose}: {mlx_stack.upgrade.show_command(step.command or ())}")

    report = upgrade.upgrade(
        upgrade.read_facts(context.home), upgrade.run_command, only_check=check, on_event=announce
    )
    output.show(report, _show)
    return exit_codes.DONE if report.is_success else exit_codes.FAILED


def _show(output: Output, report: "mlx_stack.upgrade.UpgradeReport") -> None:
    newest = {True: " It is the newest.", False: " There is a newer one.", None: ""}
    output.answer(
        f"mlx-stack {report.version} was installed {_WAYS[report.plan.way]}."
        f"{newest[report.is_current]}"
    )
    for outcome, title in (
        ("done", "Done:"),
        ("failed", "Failed:"),
        ("planned", "`mlx-stack upgrade` would run:" if report.is_success else "Not run:"),
        ("by-you", "Left to you:"),
    ):
        steps = [
            step
            for step, each in zip(report.plan.steps, report.outcomes, strict=True)
            if each == outcome
        ]
        if steps:
            output.answer(f"\n{title}", style="bold")
        for step in steps:
            output.answer(f"  {step.purpose}")
            if step.command is not None:
                output.text(f"    {mlx_stack.upgrade.show_command(step.command)}")
