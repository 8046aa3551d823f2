"""How a setup looks while it runs: a line a step, and below it what the step shows of itself."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from mlx_stack.cli.frame.output import Output
from mlx_stack.cli.options.planning import confirm_or_stop
from mlx_stack.cli.views.drafts import show_draft
from mlx_stack.cli.views.engines import InstallProgress
from mlx_stack.cli.views.format import format_duration
from mlx_stack.cli.views.pull import View, open_view
from mlx_stack.cli.views.services import show_outcome
from mlx_stack.services.outcomes import ServiceOutcome
from mlx_stack.setup import Listeners, Step, StepName

if TYPE_CHECKING:
    from mlx_stack.engines.install import InstallEvent
    from mlx_stack.models.events import Event
    from mlx_stack.planning.init import Draft

_TITLES = {
    "profile": "Looking at the machine",
    "stack": "Defining the stack",
    "engines": "Installing vllm-mlx and LiteLLM",
    "models": "Downloading the models",
    "start": "Starting the services",
}
_MARKS = {"done": "[green]✓[/green]", "already": "[green]✓[/green]", "failed": "[red]✗[/red]"}
_SHOWN_FROM_S = 1.0


class SetupView:
    """Shows one setup; a context manager, so that the terminal is left as it was."""

    def __init__(self, output: Output, *, asks: bool) -> None:
        self._output = output
        self._asks = asks
        self._open = ExitStack()
        self._pull: View | None = None
        self._install: InstallProgress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop whatever is being redrawn."""
        self._open.close()
        self._pull = self._install = None

    @property
    def listeners(self) -> Listeners:
        """What the operation tells to this view."""
        return Listeners(
            on_begin=self._begin,
            on_step=self._end,
            on_draft=self._draft,
            on_pull=self._pulling,
            on_install=self._installing,
            on_service=self._service,
        )

    def _begin(self, name: StepName) -> None:
        self._output.say(f"[bold]{_TITLES[name]}[/bold]")
        if name == "start":
            self._open.enter_context(self._output.waiting("Starting"))

    def _end(self, step: Step) -> None:
        self.close()
        if step.outcome == "skipped":
            return
        took = f" ({format_duration(step.seconds)})" if step.seconds >= _SHOWN_FROM_S else ""
        self._output.say(f"  {_MARKS[step.outcome]} {step.detail}{took}")

    def _draft(self, draft: "Draft") -> None:
        if self._output.json:
            return
        show_draft(self._output, draft)
        if self._asks:
            confirm_or_stop("Set this up?")

    def _pulling(self, event: "Event") -> None:
        if self._pull is None:
            self._pull = open_view(self._output, json_lines=False)
            self._open.callback(self._pull.close)
        self._pull.show(event)

    def _installing(self, event: "InstallEvent") -> None:
        if self._install is None:
            self._install = self._open.enter_context(InstallProgress(self._output))
        self._install.show(event)

    def _service(self, outcome: ServiceOutcome) -> None:
        if not self._output.json:
            show_outcome(self._output, outcome)
