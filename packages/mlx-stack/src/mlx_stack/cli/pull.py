"""`mlx-stack pull`."""

import shlex
from typing import TYPE_CHECKING

import click

from mlx_catalog import Quant
from mlx_stack.cli.frame.completion import complete_models
from mlx_stack.cli.frame.context import Context, json_option, open_context, quiet_option
from mlx_stack.cli.frame.output import Output, write_error_document
from mlx_stack.cli.views.format import format_bytes, format_duration
from mlx_stack.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from mlx_stack.models.pull import PullResult


@click.command("pull")
@click.argument("model", shell_complete=complete_models)
@click.option("--quant", type=click.Choice(Quant, case_sensitive=False), help="Which precision.")
@click.option("--force", is_flag=True, help="Fetch everything anew, whatever is here.")
@click.option(
    "--allow-code",
    is_flag=True,
    help="Allow Python that comes with this model: it is fetched, and runs when it is served.",
)
@click.option("--bench", is_flag=True, help="Measure the model afterwards, as `bench` does.")
@click.option("--json-lines", is_flag=True, help="Write what happens as JSON, one event a line.")
@json_option
@quiet_option
def command(
    model: str,
    quant: Quant | None,
    *,
    force: bool,
    allow_code: bool,
    bench: bool,
    json_lines: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Download MODEL: a catalog id, or any Hub repository (OWNER/NAME, @REVISION, or its address).

    An interrupted pull continues where it stopped. Every file is compared with the size and the
    hash that the Hub gives before the model counts as present. HF_ENDPOINT, HF_TOKEN and
    HF_HUB_OFFLINE are honoured.
    """
    from mlx_stack.cli.views.pull import open_view
    from mlx_stack.models.pull import pull

    if json and json_lines:
        raise UsageError("--json and --json-lines exclude each other.")
    context = open_context(json=json or json_lines, quiet=quiet)
    output = context.output
    view = open_view(output, json_lines=json_lines)
    try:
        result = pull(
            context.home,
            model,
            quant=quant,
            is_forced=force,
            allows_code=allow_code,
            observer=view.show,
        )
    except (KeyboardInterrupt, Interrupted) as interruption:
        view.close()
        again = ["mlx-stack", "pull", model, *(("--quant", quant) if quant else ())]
        again += ["--force"] if force else []
        again += ["--allow-code"] if allow_code else []
        hint = f"`{shlex.join(again)}` continues where this stopped."
        if json_lines:
            write_error_document("interrupted", "The pull was interrupted.", hint)
        interruption.add_note(hint)
        raise
    finally:
        view.close()
    if not output.json:
        _summarize(output, result)
    measured = _measure(context, result) if bench else {}
    if json_lines:
        output.event({"event": "result", **to_document(result), **measured})
    elif json:
        output.document({**to_document(result), **measured})


def to_document(result: "PullResult") -> dict[str, object]:
    """The fields of a pull's answer."""
    return {
        "outcome": result.outcome,
        **result.model.to_document(),
        "downloaded_bytes": result.downloaded_bytes,
        "resumed_bytes": result.resumed_bytes,
        "linked_bytes": result.linked_bytes,
        "seconds": round(result.seconds, 3),
        "note": result.note or None,
    }


def _measure(context: Context, result: "PullResult") -> dict[str, object]:
    """Benchmark the model, show what came of it, and return its part of the answer."""
    from mlx_bench import Parameters
    from mlx_stack.bench.measure import bench
    from mlx_stack.cli.views.bench import open_progress, show_result

    with open_progress(context.output) as say:
        measured = bench(context.opened, str(result.path), Parameters(), on_progress=say)
    if not context.output.json:
        show_result(context.output, measured)
    return {"bench": measured.to_document()}


def _summarize(output: Output, result: "PullResult") -> None:
    """One line on stdout, with what it took; notes on stderr."""
    model = result.model
    what = f"{model.model or model.repo}"
    facts = [fact for fact in (model.quant, format_bytes(model.size_bytes)) if fact]
    took = {
        "present": "was here already",
        "linked": "is used from the Hugging Face cache",
        "downloaded": f"downloaded in {format_duration(result.seconds)}",
        "converted": f"downloaded and converted in {format_duration(result.seconds)}",
    }[result.outcome]
    if result.resumed_bytes:
        took += f", {format_bytes(result.resumed_bytes)} of it in an earlier pull"
    for note in filter(None, result.note.split("\n")):
        output.say(f"note: {note}")
    output.text(f"{what} ({', '.join(facts)}) {took}: {result.path}")
