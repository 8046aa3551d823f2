"""`mlx-stack demo`."""

from typing import TYPE_CHECKING

import click

from mlx_stack import exit_codes
from mlx_stack.cli.frame.context import json_option, open_context, quiet_option
from mlx_stack.cli.frame.output import Output

if TYPE_CHECKING:
    from rich.status import Status

    from mlx_stack.demo import DemoResult, Step
    from mlx_stack.services.status import StatusReport

_WIDEST_DETAIL = 60


@click.command("demo")
@click.option("--keep", is_flag=True, help="Leave the demo's folder for further use, stopped.")
@json_option
@quiet_option
def command(*, keep: bool, json: bool, quiet: bool) -> int:
    """See the whole stack work, from nothing, on an embedded model.

    Needs neither a Mac nor a GPU nor a model hub. The engines and a small real model come from
    Python packages (about 1 GB, kept in uv's cache) and go into a temporary folder.
    """
    from mlx_stack.demo import run_demo

    context = open_context(json=json, quiet=quiet)
    viewer = _Viewer(context.output)
    try:
        result = run_demo(viewer, keep=keep)
    finally:
        viewer.close()
    if context.output.json:
        context.output.document(result.to_document())
    else:
        _summarize(context.output, result, keep=keep)
    return exit_codes.DONE if all(step.ok for step in result.steps) else exit_codes.FAILED


def _summarize(output: Output, result: "DemoResult", *, keep: bool) -> None:
    from rich.text import Text

    total_s = sum(step.seconds for step in result.steps)
    output.say("")
    output.answer(Text.assemble(("Question  ", "bold"), result.question))
    output.answer(
        Text.assemble(("Answer    ", "bold"), result.answer.strip(), f"  ({result.model})")
    )
    fallback = result.fallback
    output.answer(
        Text.assemble(
            ("Fallback  ", "bold"),
            f"`{fallback.killed}` was killed, `{fallback.answered_by}` answered, and "
            f"`{fallback.killed}` was back after {fallback.restored_s:.1f} s",
        )
    )
    output.answer(
        Text.assemble(("Time      ", "bold"), f"{total_s:.0f} s in {len(result.steps)} steps")
    )
    if keep:
        output.answer(
            Text.assemble(("Kept      ", "bold"), f"MLX_STACK_HOME={result.home} mlx-stack up")
        )
    else:
        output.say("\nNothing of it remains running. Your own stack: `mlx-stack setup`.")


class _Viewer:
    """Shows the demo as it goes: a line a step, a spinner with what moves on a terminal."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._spinner: Status | None = None
        self._meaning = ""
        self._answer = ""

    def step_started(self, name: str, meaning: str) -> None:
        self._meaning = meaning
        self._answer = ""
        if self._output.is_live:
            self._spinner = self._output.talk.status(f"[bold]{name}[/]  {meaning}")
            self._spinner.start()
        else:
            self._output.say(f"… {name}: {meaning}")

    def progress(self, text: str) -> None:
        if self._spinner is not None:
            from rich.markup import escape

            self._spinner.update(
                f"{escape(self._meaning)}  [dim]{escape(text[:_WIDEST_DETAIL])}[/]"
            )

    def answer_piece(self, text: str) -> None:
        self._answer += text
        self.progress(self._answer)

    def status(self, report: "StatusReport") -> None:
        from mlx_stack.cli.views.status import service_table

        self._output.say(service_table(report.services))

    def step_finished(self, step: "Step") -> None:
        from rich.text import Text

        self.close()
        sign, colour = ("✓", "green") if step.ok else ("✗", "red")
        line = Text.assemble(
            (f"{sign} ", colour), (f"{step.name:<16}", "bold"), (f"{step.seconds:6.1f} s  ", "dim")
        )
        line.append(step.detail or self._meaning)
        self._output.say(line)

    def close(self) -> None:
        """Take the spinner away."""
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None
