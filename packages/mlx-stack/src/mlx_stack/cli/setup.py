"""`mlx-stack setup`."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mlx_stack import exit_codes
from mlx_stack.cli.frame.completion import complete_models
from mlx_stack.cli.frame.context import Context, json_option, open_context, quiet_option
from mlx_stack.cli.options.planning import INTENTS, budget_pct_option
from mlx_stack.errors import Interrupted, StackError

if TYPE_CHECKING:
    from mlx_stack.setup import Step
    from mlx_stack.setup_progress import Choices, Progress


@click.command("setup")
@click.option("--accept-defaults", is_flag=True, help="Ask nothing.")
@click.option(
    "--intent",
    type=click.Choice(INTENTS),
    help="One person's chat and code (balanced), or programs that call tools all day.",
)
@budget_pct_option
@click.option(
    "--model",
    metavar="MODEL",
    shell_complete=complete_models,
    help="Serve this model alone: a catalog id or a Hub repo.",
)
@click.option("--no-pull", is_flag=True, help="Download no models.")
@click.option("--no-start", is_flag=True, help="Neither install the engines nor start anything.")
@json_option
@quiet_option
def command(
    intent: str | None,
    budget_pct: int | None,
    model: str | None,
    *,
    accept_defaults: bool,
    no_pull: bool,
    no_start: bool,
    json: bool,
    quiet: bool,
) -> int:
    """From nothing to a running stack: profile, recommend, define, install, pull, start.

    What is done already is left alone, so after a failure or Ctrl-C the next `setup` continues.
    """
    from mlx_recommend import Intent
    from mlx_stack.setup import interrupted_setup, setup
    from mlx_stack.setup_progress import Choices

    context = open_context(json=json, quiet=quiet)
    choices = Choices(
        intent=Intent(intent) if intent is not None else None,
        budget_pct=budget_pct,
        model=model,
        pulls=False if no_pull else None,
        starts=False if no_start else None,
    )
    earlier = interrupted_setup(context.home)
    asks = sys.stdin.isatty() and not (accept_defaults or json)
    if earlier is not None:
        context.output.say(_continuing(earlier))
    elif asks and not context.home.stack.exists():
        choices = _asked(choices)
    from mlx_stack.cli.views.setup import SetupView

    with SetupView(context.output, asks=asks) as view:
        try:
            steps = setup(context.home, choices, view.listeners)
        except (StackError, KeyboardInterrupt, Interrupted):
            view.close()
            if context.home.setup_progress.exists():
                context.output.say("`mlx-stack setup` continues where this stopped.")
            raise
    return _finish(context, steps)


def _continuing(earlier: "Progress") -> str:
    done = ", ".join(earlier.done) or "nothing yet"
    return f"Continuing the setup that was interrupted (done: {done})."


def _asked(choices: "Choices") -> "Choices":
    """The choices, with what the command line left open asked for."""
    import msgspec

    from mlx_recommend import DEFAULT_BUDGET_PCT, Intent

    intent, budget_pct = choices.intent, choices.budget_pct
    if choices.model is None:
        if intent is None:
            click.echo("What is the stack for? balanced: one person's chat and code;", err=True)
            click.echo("agent-fleet: programs that call tools all day.", err=True)
            kind = click.Choice(INTENTS)
            intent = Intent(click.prompt("Intent", type=kind, default=INTENTS[0], err=True))
        if budget_pct is None:
            question = "Percent of the memory that models may take"
            limits = click.IntRange(1, 100)
            budget_pct = click.prompt(question, type=limits, default=DEFAULT_BUDGET_PCT, err=True)
    return msgspec.structs.replace(choices, intent=intent, budget_pct=budget_pct)


def _finish(context: Context, steps: "tuple[Step, ...]") -> int:
    is_done = all(step.outcome != "failed" for step in steps)
    if context.output.json:
        rows = [{**asdict(step), "seconds": round(step.seconds, 3)} for step in steps]
        stack_file = str(context.home.stack)
        context.output.document({"ok": is_done, "steps": rows, "stack_file": stack_file})
    elif not is_done:
        context.output.say("`mlx-stack setup` tries again; `mlx-stack logs` tells more.")
    elif steps[-1].outcome == "skipped":
        context.output.say("The stack is defined: `mlx-stack up` starts it.")
    else:
        context.output.say('Ready: `mlx-stack ask "Hello"`, or `mlx-stack connect` for clients.')
    return exit_codes.DONE if is_done else exit_codes.FAILED
