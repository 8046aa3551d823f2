"""`mlx-stack pull`."""

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

import mlx_bench
from mlx_catalog import Quant
from mlx_stack import bench, models, planning
from mlx_stack.cli.frame.context import Context, confirm_or_stop, examples, with_context
from mlx_stack.cli.frame.options import complete_models
from mlx_stack.cli.frame.output import Output, write_error_document
from mlx_stack.cli.frame.quant_option import quant_option
from mlx_stack.cli.views.planning import show_benchmark
from mlx_stack.cli.views.progress import pull_progress
from mlx_stack.errors import Interrupted
from mlx_stack.format import format_bytes, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlx_stack.models.disk.local import LocalModel
    from mlx_stack.models.download.fetch import PullResult


@dataclass(frozen=True, slots=True)
class _Pulled:
    """A pulled model, and with `--bench` how fast it is."""

    result: "PullResult"
    benchmark: "bench.measure.BenchResult | None"

    def to_document(self) -> dict[str, object]:
        measured = {"bench": self.benchmark.to_document()} if self.benchmark else {}
        return {**self.result.to_document(), **measured}


@click.command("pull")
@click.argument("model", shell_complete=complete_models)
@quant_option("Which format.")
@click.option(
    "--force",
    is_flag=True,
    help="Download everything again; or use a newer revision that was refused.",
)
@click.option(
    "--allow-code",
    is_flag=True,
    help="Allow this model's own Python code: download it, and run it when the model is served.",
)
@click.option(
    "--bench", "is_measured", is_flag=True, help="Measure the model too, as `bench` does."
)
@with_context(json_lines=True)
@examples("mlx-stack pull qwen3-8b", "mlx-stack pull mlx-community/Qwen3-8B-4bit --bench")
def command(
    context: Context,
    model: str,
    quant: Quant | None,
    *,
    force: bool,
    allow_code: bool,
    is_measured: bool,
) -> None:
    """Download MODEL: a catalog id or a Hub repository (OWNER/NAME, with @REVISION, or its URL).

    An interrupted pull continues where it stopped. Every file is compared with the size and the
    hash that the Hub gives before the model counts as present. HF_ENDPOINT, HF_TOKEN and
    HF_HUB_OFFLINE are honoured.

    A newer revision of a model that a tier serves is first served next to the one in use. Unless
    the check, the greedy answers, the speed and the peak memory are as good, the former stays.
    """
    output = context.output
    try:
        with pull_progress(output) as show:

            def on_event(event: "models.events.ModelEvent") -> None:
                if isinstance(event, models.events.Planned):
                    _mind_the_memory(context, model, quant, event)
                show(event)

            def gate(former: "LocalModel", newer: "LocalModel") -> list[str]:
                return _compare(context, model, former, newer, on_event)

            result = models.pull.pull(
                context.opened,
                model,
                quant=quant,
                is_forced=force,
                allows_code=allow_code,
                gate=gate,
                on_event=on_event,
            )
    except (KeyboardInterrupt, Interrupted) as interruption:
        again = ["mlx-stack", "pull", model, *(("--quant", quant) if quant else ())]
        again += ["--force"] if force else []
        again += ["--allow-code"] if allow_code else []
        hint = f"`{shlex.join(again)}` continues where this stopped."
        if output.json_lines:
            write_error_document("interrupted", "The pull was interrupted.", hint)
        interruption.add_note(hint)
        raise
    _summarize(output, result)
    measured = _measure(context, result) if is_measured else None
    output.show(_Pulled(result, measured), _show_benchmark, event="result")


def _compare(
    context: Context,
    name: str,
    former: "LocalModel",
    newer: "LocalModel",
    on_event: "Callable[[models.events.ModelEvent], None]",
) -> list[str]:
    """What the tiers that serve the former revision do with the newer one, a line each.

    Raises:
        ModelWorseError: One does worse; it names the figures.
    """
    tiers = bench.certify.certify_revision(
        context.opened,
        former,
        newer,
        on_tier=lambda tier: on_event(models.events.Comparing(tier)),
    )
    worse = bench.certify.worse_in_words(tiers)
    if worse:
        raise models.errors.ModelWorseError(former.repo or name, worse, name)
    return [
        f"{each.tier} was not compared: {each.skipped}."
        if each.skipped is not None
        else f"{each.tier} does as well as with the former revision ({each.verdict})."
        for each in tiers
    ]


def _mind_the_memory(
    context: Context, model: str, quant: Quant | None, planned: "models.events.Planned"
) -> None:
    """Warn of a model that is too large; on a terminal, ask about one that can't run at all."""
    warning, is_hopeless = planning.room.download_warning(context.opened, model, quant, planned)
    if warning:
        context.output.say(("warning: ", "yellow"), warning)
    if is_hopeless and context.may_ask:
        confirm_or_stop("Download it anyway?", default=False)


def _measure(context: Context, result: "PullResult") -> "bench.measure.BenchResult":
    with context.output.waiting("Measuring") as show:
        return bench.measure.bench(
            context.opened, str(result.path), mlx_bench.Parameters(), on_progress=show
        )


def _show_benchmark(output: Output, pulled: _Pulled) -> None:
    if pulled.benchmark is not None:
        show_benchmark(output, pulled.benchmark)


def _summarize(output: Output, result: "PullResult") -> None:
    """One line on stdout, with what it took; notes on stderr."""
    model = result.model
    facts = [fact for fact in (model.quant, format_bytes(model.size_bytes)) if fact]
    took = {
        "present": "is already downloaded",
        "linked": "is used from the Hugging Face cache",
        "downloaded": f"downloaded in {format_duration(result.seconds)}",
        "converted": f"downloaded and converted in {format_duration(result.seconds)}",
    }[result.outcome]
    if result.resumed_bytes:
        took += f", {format_bytes(result.resumed_bytes)} of it in an earlier pull"
    for note in filter(None, result.note.split("\n")):
        output.say(f"note: {note}")
    output.text(f"{model.model or model.repo} ({', '.join(facts)}) {took}: {result.path}")
