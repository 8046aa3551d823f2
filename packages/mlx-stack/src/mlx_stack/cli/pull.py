"""`mlx-stack pull`."""

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

import mlx_bench
from mlx_catalog import Quant
from mlx_stack import bench, exit_codes, models, nodes, planning
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
    from mlx_stack.stack import Host


@dataclass(frozen=True, slots=True)
class _Pulled:
    """A pulled model, with `--bench` how fast it is, and with `--nodes` where it was copied to."""

    result: "PullResult"
    benchmark: "bench.measure.BenchResult | None"
    copies: "tuple[nodes.copy_model.CopiedModel, ...] | None"

    def to_document(self) -> dict[str, object]:
        document = self.result.to_document()
        if self.benchmark is not None:
            document["bench"] = self.benchmark.to_document()
        if self.copies is not None:
            document["nodes"] = [each.to_document() for each in self.copies]
        return document


@click.command("pull")
@click.argument("model", shell_complete=complete_models)
@quant_option("The format of the weights.")
@click.option(
    "--force",
    is_flag=True,
    help="Download everything again, or use a newer revision that was rejected.",
)
@click.option(
    "--allow-code",
    is_flag=True,
    help="Allow this model's own Python code: download it, and run it when the model is served.",
)
@click.option(
    "--bench", "is_measured", is_flag=True, help="Measure the model too, as `bench` does."
)
@click.option(
    "--nodes",
    "is_copied",
    is_flag=True,
    help="Copy the model to the Macs in `hosts` of its tiers, and verify the copies.",
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
    is_copied: bool,
) -> int:
    """Download MODEL: a catalog ID or a Hub repository (OWNER/NAME, with @REVISION, or its URL).

    An interrupted pull continues where it stopped. The size and hash of every file are compared
    with those on the Hub before the model counts as downloaded. HF_ENDPOINT, HF_TOKEN and
    HF_HUB_OFFLINE are honoured.

    If a tier serves the model, a newer revision is first tested next to the one in use. It is only
    used if the check, the greedy answers, the speed and the peak memory are as good.

    With --nodes, a model that is already on this Mac isn't looked for on the Hub. It is copied over
    SSH into the state folders of the other Macs. An interrupted copy continues where it stopped,
    and every file is compared with its hash on the other Mac.
    """
    output = context.output
    hosts = _hosts(context, model) if is_copied else ()
    here = models.pull.whole_here(context.opened, model, quant) if is_copied and not force else None
    copies: tuple[nodes.copy_model.CopiedModel, ...] | None = None
    try:
        with pull_progress(output) as show:

            def on_event(event: "models.events.ModelEvent") -> None:
                if isinstance(event, models.events.Planned):
                    _mind_the_memory(context, model, quant, event)
                show(event)

            def gate(former: "LocalModel", newer: "LocalModel") -> list[str]:
                return _compare(context, model, former, newer, on_event)

            result = here or models.pull.pull(
                context.opened,
                model,
                quant=quant,
                is_forced=force,
                allows_code=allow_code,
                gate=gate,
                on_event=on_event,
            )
            if is_copied:
                copies = nodes.copy_model.copy_model(
                    context.opened, result.model, hosts, on_event=show
                )
    except (KeyboardInterrupt, Interrupted) as interruption:
        again = ["mlx-stack", "pull", model, *(("--quant", quant) if quant else ())]
        again += ["--force"] if force else []
        again += ["--allow-code"] if allow_code else []
        again += ["--nodes"] if is_copied else []
        hint = f"`{shlex.join(again)}` continues where this stopped."
        if output.json_lines:
            write_error_document("interrupted", "The pull was interrupted.", hint)
        interruption.add_note(hint)
        raise
    _summarize(output, result)
    measured = _measure(context, result) if is_measured else None
    output.show(_Pulled(result, measured, copies), _show_rest, event="result")
    has_failed = any(each.outcome == "failed" for each in copies or ())
    return exit_codes.FAILED if has_failed else exit_codes.DONE


def _hosts(context: Context, name: str) -> "tuple[Host, ...]":
    """The Macs that a model is to be copied to, before anything is downloaded."""
    opened = context.opened
    found = models.find.find(opened, name)
    tiers = tuple(tier for tier in opened.stack.tiers if found.is_served_by(tier))
    return nodes.copy_model.hosts_of(tiers, name)


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
    tiers = bench.certify.certify_revision(context.opened, former, newer, on_event=on_event)
    worse = bench.certify.worse_in_words(tiers)
    if worse:
        raise models.errors.ModelWorseError(former.repo or name, worse, name)
    return [
        f"{each.tier} was not compared: {each.skipped}."
        if each.skipped is not None
        else f"{each.tier} performs as well as with the former revision ({each.verdict})."
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


def _show_rest(output: Output, pulled: _Pulled) -> None:
    if pulled.benchmark is not None:
        show_benchmark(output, pulled.benchmark)
    for each in pulled.copies or ():
        if each.problem is None:
            did = "was there already" if each.outcome == "present" else "was copied there"
            output.item("✓", f"{each.host}: it {did}, and every hash is right", colour="green")
            continue
        output.item("✗", f"{each.host}: {each.problem}", colour="red")
        if each.hint:
            output.item("→", each.hint, indent=2)


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
