"""`mlx-stack setup`."""

from contextlib import ExitStack

import click

import mlx_procsup
import mlx_recommend
import mlx_stack
from mlx_stack import engines, exit_codes, planning, services
from mlx_stack.cli.frame.context import Context, confirm_or_stop, examples, with_context
from mlx_stack.cli.frame.options import complete_models
from mlx_stack.cli.frame.output import Output
from mlx_stack.cli.frame.planning_options import INTENTS, budget_pct_option
from mlx_stack.cli.views.planning import show_draft
from mlx_stack.cli.views.progress import install_progress, pull_progress
from mlx_stack.cli.views.services import show_event
from mlx_stack.errors import Interrupted, StackError
from mlx_stack.format import format_duration
from mlx_stack.steps import Step, StepStarted

_MARKS = {"done": ("✓", "green"), "already": ("✓", "green"), "failed": ("✗", "red")}
_SHOWN_FROM_S = 1.0


@click.command("setup")
@click.option("--accept-defaults", "-y", is_flag=True, help="Ask nothing.")
@click.option(
    "--intent",
    type=click.Choice(INTENTS),
    help="balanced: chat and code for one person; agent-fleet: programs that call tools all day.",
)
@budget_pct_option
@click.option(
    "--model",
    metavar="MODEL",
    shell_complete=complete_models,
    help="Serve only this model: a catalog id or a Hub repo.",
)
@click.option("--force", is_flag=True, help="Accept a --model that doesn't fit in memory.")
@click.option("--no-pull", is_flag=True, help="Skip the downloads.")
@click.option("--no-start", is_flag=True, help="Skip installing engines and starting services.")
@with_context()
@examples("mlx-stack setup", "mlx-stack setup --model qwen3-8b --accept-defaults")
def command(
    context: Context,
    intent: str | None,
    budget_pct: int | None,
    model: str | None,
    *,
    accept_defaults: bool,
    force: bool,
    no_pull: bool,
    no_start: bool,
) -> int:
    """Set up a stack: detect the hardware, choose models, download and start them.

    Finished steps are skipped, so you can rerun it after a failure or Ctrl-C.
    """
    output, setup = context.output, mlx_stack.setup
    may_ask = context.may_ask and not accept_defaults
    earlier = setup.interrupted_setup(context.home)
    if earlier is not None:
        done = ", ".join(earlier.done) or "nothing yet"
        output.say(f"Continuing the setup that was interrupted (done: {done}).")
    elif may_ask and model is None and not context.home.stack.exists():
        intent, budget_pct = _asked(intent, budget_pct)
    choices = setup.Choices(
        intent=mlx_recommend.Intent(intent) if intent is not None else None,
        budget_pct=budget_pct,
        model=model,
        allows_too_large=True if force else None,
        pulls=False if no_pull else None,
        starts=False if no_start else None,
    )
    progress = _Progress(output, may_ask=may_ask)
    try:
        result = setup.setup(context.home, choices, progress.show)
    except (StackError, KeyboardInterrupt, Interrupted):
        progress.close()
        if context.home.setup_progress.exists():
            output.say("`mlx-stack setup` continues where this stopped.")
        raise
    finally:
        progress.close()
    output.show(result, _show)
    return exit_codes.DONE if result.ok else exit_codes.FAILED


def _asked(intent: str | None, budget_pct: int | None) -> tuple[str, int]:
    """What the command line left open, asked for."""
    if intent is None:
        click.echo("What is the stack for? balanced: one person's chat and code;", err=True)
        click.echo("agent-fleet: programs that call tools all day.", err=True)
        kind = click.Choice(INTENTS)
        intent = str(click.prompt("Intent", type=kind, default=INTENTS[0], err=True))
    if budget_pct is None:
        question = "Percent of the memory that models may take"
        limits, default = click.IntRange(1, 100), mlx_recommend.DEFAULT_BUDGET_PCT
        budget_pct = int(click.prompt(question, type=limits, default=default, err=True))
    return intent, budget_pct


class _Progress:
    """Shows a setup as it goes: a line a step, and below it what the step shows of itself."""

    def __init__(self, output: Output, *, may_ask: bool) -> None:
        self._output = output
        self._may_ask = may_ask
        self._open = ExitStack()
        self._show_pull = None
        self._show_install = install_progress(output)

    def close(self) -> None:
        """Stop whatever is being redrawn."""
        self._open.close()
        self._show_pull = None
        self._output.stop_spinning()

    def show(self, event: "mlx_stack.setup.SetupEvent") -> None:
        output = self._output
        match event:
            case StepStarted():
                output.say((event.purpose, "bold"))
                if event.name == "start":
                    output.spin("Starting")
            case Step():
                self.close()
                self._show_step(event)
            case planning.init.Draft():
                show_draft(output, event)
                if self._may_ask:
                    confirm_or_stop("Set this up?")
            case engines.install.InstallEvent():
                self._show_install(event)
            case services.service.ServiceOutcome() | mlx_procsup.WaitsForMemory():
                show_event(output, event)
            case _:
                if self._show_pull is None:
                    self._show_pull = self._open.enter_context(pull_progress(output))
                self._show_pull(event)

    def _show_step(self, step: Step) -> None:
        if step.outcome == "skipped" or not step.detail:  # without one, an error says more
            return
        took = f" ({format_duration(step.seconds)})" if step.seconds >= _SHOWN_FROM_S else ""
        self._output.say("  ", _MARKS[step.outcome], f" {step.detail}{took}")


def _show(output: Output, result: "mlx_stack.setup.SetupResult") -> None:
    if not result.ok:
        output.say("`mlx-stack setup` tries again; `mlx-stack logs` tells more.")
    elif result.steps[-1].outcome == "skipped":
        output.say("The stack is defined: `mlx-stack up` starts it.")
    else:
        output.say('Ready: `mlx-stack ask "Hello"`, or `mlx-stack connect` for clients.')
