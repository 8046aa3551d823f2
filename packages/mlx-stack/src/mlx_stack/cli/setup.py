"""`mlx-stack setup`."""

import shutil
from contextlib import ExitStack

import click
import msgspec

import mlx_procsup
import mlx_recommend
import mlx_stack
from mlx_stack import autostart, engines, exit_codes, planning, services
from mlx_stack.cli.frame.context import Context, examples, with_context
from mlx_stack.cli.frame.options import complete_models
from mlx_stack.cli.frame.output import Output, write_error
from mlx_stack.cli.frame.planning_options import INTENTS, budget_pct_option
from mlx_stack.cli.views.planning import show_draft
from mlx_stack.cli.views.progress import install_progress, pull_progress
from mlx_stack.cli.views.services import StartingServices
from mlx_stack.errors import Interrupted, StackError
from mlx_stack.format import format_duration
from mlx_stack.steps import Step, StepStarted

_MARKS = {"done": ("✓", "green"), "already": ("✓", "green"), "failed": ("✗", "red")}
_SHOWN_FROM_S = 1.0


@click.command("setup")
@click.option(
    "--accept-defaults", "-y", is_flag=True, help="Don't ask questions; use the defaults."
)
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
    help="Serve only this model: a catalog ID or a Hub repo.",
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
        output.say(f"Continuing the interrupted setup (done: {done}).")
    choices = setup.Choices(
        intent=mlx_recommend.Intent(intent) if intent is not None else None,
        budget_pct=budget_pct,
        model=model,
        allows_too_large=True if force else None,
        pulls=False if no_pull else None,
        starts=False if no_start else None,
    )
    progress = _Progress(output)
    try:
        result = setup.setup(
            context.home, choices, progress.show, _Review(output) if may_ask else None
        )
    except (StackError, KeyboardInterrupt, Interrupted):
        progress.close()
        if context.home.setup_progress.exists():
            output.say("`mlx-stack setup` continues where this stopped.")
        raise
    finally:
        progress.close()
    output.show(result, _show)
    if not result.ok:
        return exit_codes.FAILED
    if result.steps[-1].outcome != "skipped":
        _offer_to_install(context, may_ask=may_ask)
    return exit_codes.DONE


class _Review:
    """Asks a person about a plan."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._edited = ""

    def __call__(
        self,
        draft: "planning.init.Draft",
        choices: "mlx_stack.setup.Choices",
        problem: StackError | None,
    ) -> "mlx_stack.setup.Choices | None":
        """None to go on with the plan, or other choices."""
        if problem is not None:
            write_error(problem.message, problem.hint)
        elif not self._wants_an_edit(draft, choices):
            return None
        while (changed := self._edit(choices)) is None:
            if not self._wants_an_edit(draft, choices):
                return None
        return changed

    def _wants_an_edit(
        self, draft: "planning.init.Draft", choices: "mlx_stack.setup.Choices"
    ) -> bool:
        if choices.model is None and not choices.embedder:
            self._output.say("Edit it to add an embedder, for search and the memory of agents.")
        if draft.free_disk_bytes is not None and draft.download_bytes > draft.free_disk_bytes:
            self._output.say(("warning: ", "yellow"), "the disk has no room for these downloads.")
        answer = _typed("Enter to set this up, e to edit, q to quit", ("", "e", "q"))
        if answer == "q":
            raise StackError("Cancelled; nothing was changed.")
        self._edited = ""
        return bool(answer)

    def _edit(self, choices: "mlx_stack.setup.Choices") -> "mlx_stack.setup.Choices | None":
        """What is edited, which is asked for again if it can't be; None for the plan as it is."""
        self._edited = self._edited or _typed(
            "Edit: intent, budget, model or embedder", ("intent", "budget", "model", "embedder")
        )
        if self._edited == "model":
            question = "Serve only this model (a catalog ID or a Hub repo; Enter goes back)"
            model = str(click.prompt(question, default="", show_default=False, err=True)).strip()
            return msgspec.structs.replace(choices, model=model) if model else None
        planned = msgspec.structs.replace(choices, model=None)
        if self._edited == "embedder":
            self._edited = ""  # nothing is typed that could be typed otherwise
            # a plan of one model has no embedder, whatever was chosen before it
            embeds = choices.model is not None or not choices.embedder
            return msgspec.structs.replace(planned, embedder=embeds)
        if self._edited == "intent":
            self._output.say(
                "balanced: one person's chat and code. agent-fleet: many tool calls all day."
            )
            intent = mlx_recommend.Intent(_typed("Intent", tuple(INTENTS)))
            return msgspec.structs.replace(planned, intent=intent)
        pct = click.prompt(
            "Percent of the memory for models",
            type=click.IntRange(1, 100),
            default=choices.budget_pct or mlx_recommend.DEFAULT_BUDGET_PCT,
            err=True,
        )
        return msgspec.structs.replace(planned, budget_pct=int(pct))


def _typed(question: str, answers: tuple[str, ...]) -> str:
    """One of the answers, which may be shortened to what is clear."""
    while True:
        typed = (
            str(click.prompt(question, default="", show_default=False, err=True)).strip().lower()
        )
        meant = [each for each in answers if each.startswith(typed) and (typed or not each)]
        if typed in answers or len(meant) == 1:
            return typed if typed in answers else meant[0]


def _offer_to_install(context: Context, *, may_ask: bool) -> None:
    """Ask, on a Mac, whether the stack is to start at every login."""
    mac = autostart.mac.this_mac() if shutil.which("launchctl") else None
    if mac is None:
        context.output.say("`mlx-stack watch --daemon` restarts what crashes.")
    elif not may_ask:
        context.output.say("`mlx-stack install` starts it at every login.")
    elif autostart.status.read_install_status(context.home, mac).kind is None and click.confirm(
        "Start it at every login, and restart what crashes?", default=True, err=True
    ):
        report = autostart.install.install(context.opened, mac, system=False)
        context.output.say(("✓", "green"), f" The watchdog starts at login: {report.status.plist}")


class _Progress:
    """Shows a setup as it goes: a line a step, and below it what the step shows of itself."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._open = ExitStack()
        self._step = ""
        self._starting = StartingServices(output)
        self._show_pull = None
        self._show_install = install_progress(output)

    def close(self) -> None:
        """Stop whatever is being redrawn."""
        self._stop_bars()
        self._output.stop_spinning()

    def show(self, event: "mlx_stack.setup.SetupEvent") -> None:
        output = self._output
        match event:
            case StepStarted():
                self._step = event.name
                output.say((event.purpose, "bold"))
                if event.name == "start":
                    output.spin("Starting")
            case Step():
                self.close()
                self._show_step(event)
            case planning.init.Draft():
                show_draft(output, event)
            case engines.install.InstallEvent():
                self._show_install(event)
            case (
                services.service.ServiceOutcome()
                | mlx_procsup.WaitsForMemory()
                | mlx_procsup.Loading()
                | services.service.Listens()
            ):
                self._stop_bars()
                self._starting.show(event)
                self._say_what_answers(event)
            case _:
                if self._show_pull is None:
                    self._show_pull = self._open.enter_context(pull_progress(output))
                self._show_pull(event)

    def _stop_bars(self) -> None:
        self._open.close()
        self._show_pull = None

    def _say_what_answers(self, event: "services.service.ServiceEvent") -> None:
        """Point out, once, that something answers though the downloads go on."""
        if not isinstance(event, services.service.ServiceOutcome) or self._step != "models":
            return
        if event.name == "gateway" and event.outcome == "started":
            self._output.say(
                'It already answers: `mlx-stack ask "Hello"`. The rest is being downloaded.'
            )

    def _show_step(self, step: Step) -> None:
        if step.outcome == "skipped" or not step.detail:  # without one, an error says more
            return
        took = f" ({format_duration(step.seconds)})" if step.seconds >= _SHOWN_FROM_S else ""
        self._output.say("  ", _MARKS[step.outcome], f" {step.detail}{took}")


def _show(output: Output, result: "mlx_stack.setup.SetupResult") -> None:
    if not result.ok:
        output.say("`mlx-stack setup` tries again; `mlx-stack logs` says more.")
    elif result.steps[-1].outcome == "skipped":
        output.say("The stack is defined: `mlx-stack up` starts it.")
    else:
        output.say('Ready: `mlx-stack ask "Hello"`, or `mlx-stack connect` for clients.')
