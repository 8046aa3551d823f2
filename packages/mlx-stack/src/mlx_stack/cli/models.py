"""`mlx-stack models`."""

from collections.abc import Callable

import click

import mlx_catalog
from mlx_stack import exit_codes, models, planning
from mlx_stack.cli.frame.commands import OrderedGroup
from mlx_stack.cli.frame.context import Context, examples, open_group, with_context
from mlx_stack.cli.frame.options import complete_models, completer, hardware_option
from mlx_stack.cli.frame.output import Column, Output, Span
from mlx_stack.cli.views.planning import short_speed, show_estimate
from mlx_stack.cli.views.progress import say_event
from mlx_stack.errors import UsageError
from mlx_stack.format import describe_hardware, format_bytes

_FITS = {True: "yes", False: "no", None: "?"}
_ROLES = [role.value for role in mlx_catalog.ModelRole]
_COLOURS = {"yes": "green", "no": "red"}
_WIDE = 110
"""Columns of a terminal from which there is room for what is merely good to know."""
_STYLES = {"ok": "green", "incomplete": "yellow", "damaged": "red"}

_complete_local_models = completer(
    lambda opened: (model.name for model in models.local.list_models(opened).models)
)


def _hardware_and_filters(command: Callable[..., object]) -> Callable[..., object]:
    """The options of what lists models that aren't here yet."""
    options = (
        hardware_option,
        click.option("--family", metavar="NAME", help="Only families whose name starts with NAME."),
        click.option("--tag", "tags", metavar="TAG", multiple=True, help="Only models with TAG."),
        click.option("--tool-calling", is_flag=True, help="Only models that call tools."),
        click.option("--role", type=click.Choice(_ROLES), help="Only models with this role."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _hidden(command: Callable[..., object]) -> Callable[..., object]:
    """The flags that the subcommands replace, as version 0.1 had them."""
    flags = (
        click.option("--catalog", is_flag=True, hidden=True),
        click.option("--available", "query", is_flag=False, flag_value="", hidden=True),
        click.option("--hardware", "hardware_spec", hidden=True),
        click.option("--family", hidden=True),
        click.option("--tag", "tags", multiple=True, hidden=True),
        click.option("--tool-calling", is_flag=True, hidden=True),
        click.option("--verify", is_flag=True, hidden=True),
        click.option("--remove", hidden=True),
        click.option("--force", is_flag=True, hidden=True),
    )
    for flag in flags:
        command = flag(command)
    return command


@click.group("models", cls=OrderedGroup, invoke_without_command=True)
@_hidden
@with_context()
@examples("mlx-stack models", "mlx-stack models list --catalog", "mlx-stack models show qwen3-8b")
def command(
    context: Context,
    query: str | None,
    hardware_spec: str | None,
    family: str | None,
    tags: tuple[str, ...],
    remove: str | None,
    *,
    catalog: bool,
    tool_calling: bool,
    verify: bool,
    force: bool,
) -> int:
    """List, search, show, check and remove models; without a COMMAND, list those on this disk."""
    filters = family is not None or bool(tags) or tool_calling or hardware_spec is not None
    wants_catalog = catalog or (filters and query is None)
    asked = sum((wants_catalog, query is not None, verify, remove is not None))
    if open_group(context, is_used=bool(asked or force)):
        return exit_codes.DONE
    if asked > 1:
        raise UsageError("--catalog, --available, --verify and --remove can't be combined.")
    if force and remove is None:
        raise UsageError("--force needs --remove.")
    if remove is not None:
        return _remove(context, remove, is_forced=force)
    if verify:
        return _verify(context)
    if not asked:
        return _list(context)
    wanted = planning.listings.ModelFilter(family, tags, tool_calling)
    if query is not None:
        return _search(context, query, wanted, hardware_spec)
    return _list_catalog(context, wanted, hardware_spec)


@command.command("list", short_help="List the models on this disk, or in the catalog.")
@click.option("--catalog", is_flag=True, help="List the catalog, with figures for this machine.")
@_hardware_and_filters
@with_context()
@examples("mlx-stack models list", "mlx-stack models list --catalog --tool-calling")
def list_command(
    context: Context,
    hardware_spec: str | None,
    family: str | None,
    tags: tuple[str, ...],
    role: str | None,
    *,
    catalog: bool,
    tool_calling: bool,
) -> int:
    """List the models on this disk, with their integrity and the tiers that use them.

    With --catalog, or with a filter, it lists the catalog instead. That
    includes your own entries, the YAML files in the folder `catalog` of the state folder.
    """
    if not (catalog or family or tags or tool_calling or role or hardware_spec):
        return _list(context)
    wanted = planning.listings.ModelFilter(family, tags, tool_calling, _role(role))
    return _list_catalog(context, wanted, hardware_spec)


@command.command("search", short_help="Search the Hub for MLX models.")
@click.argument("query", default="")
@_hardware_and_filters
@with_context()
@examples("mlx-stack models search coder", "mlx-stack models search qwen3 --tool-calling")
def search_command(
    context: Context,
    query: str,
    hardware_spec: str | None,
    family: str | None,
    tags: tuple[str, ...],
    role: str | None,
    *,
    tool_calling: bool,
) -> int:
    """Search the Hub for MLX models that match QUERY, sorted by downloads.

    With --role, it lists only those that the catalog knows.
    """
    wanted = planning.listings.ModelFilter(family, tags, tool_calling, _role(role))
    return _search(context, query, wanted, hardware_spec)


@command.command("show", short_help="Show details of a model.")
@click.argument("model", shell_complete=complete_models)
@hardware_option
@with_context()
@examples("mlx-stack models show qwen3-8b", "mlx-stack models show ./my-model")
def show_command(context: Context, model: str, hardware_spec: str | None) -> None:
    """Show details of MODEL: what it can do, where it is on this disk, and how it would run.

    MODEL is a catalog ID, a Hub repository or a model folder.
    """
    shown = planning.show.show_model(context.opened, model, hardware_spec=hardware_spec)
    context.output.show(shown, _show_model)


@command.command("rm", short_help="Remove a model from this disk.")
@click.argument("model", shell_complete=_complete_local_models)
@click.option("--force", is_flag=True, help="Remove it even if a tier uses it.")
@with_context()
@examples("mlx-stack models rm qwen3-8b", "mlx-stack models rm mlx-community/Qwen3-8B-4bit --force")
def rm_command(context: Context, model: str, *, force: bool) -> int:
    """Remove MODEL from this disk."""
    return _remove(context, model, is_forced=force)


@command.command("verify", short_help="Compare every byte of the local models with its hash.")
@with_context()
@examples("mlx-stack models verify", "mlx-stack models verify --json")
def verify_command(context: Context) -> int:
    """Compare every byte of the local models with its hash. Exits with 1 if one is damaged."""
    return _verify(context)


def _role(name: str | None) -> mlx_catalog.ModelRole | None:
    return mlx_catalog.ModelRole(name) if name is not None else None


def _list(context: Context) -> int:
    context.output.show(models.local.list_models(context.opened), _show_local)
    return exit_codes.DONE


def _list_catalog(
    context: Context, wanted: "planning.listings.ModelFilter", hardware_spec: str | None
) -> int:
    listing = planning.listings.list_catalog(context.opened, wanted, hardware_spec=hardware_spec)
    context.output.show(listing, _show_catalog)
    return exit_codes.DONE


def _search(
    context: Context,
    query: str,
    wanted: "planning.listings.ModelFilter",
    hardware_spec: str | None,
) -> int:
    with context.output.waiting("Asking the Hub"):
        found = planning.listings.search_hub(
            context.opened, query, wanted, hardware_spec=hardware_spec
        )
    context.output.show(found, _show_available)
    return exit_codes.DONE


def _verify(context: Context) -> int:
    listing = models.local.verify_models(context.opened, say_event(context.output))
    context.output.show(listing, _show_local)
    return exit_codes.DONE if listing.is_sound else exit_codes.FAILED


def _remove(context: Context, name: str, *, is_forced: bool) -> int:
    output = context.output
    removal = models.local.remove_model(
        context.opened, name, is_forced=is_forced, on_event=say_event(output)
    )
    output.show(removal, _show_removal)
    return exit_codes.DONE


def _show_model(output: Output, shown: "planning.show.ShownModel") -> None:
    """The facts, the files, then the estimate as `estimate` gives it."""
    entry = shown.entry
    if entry is not None:
        rows = [
            ("Name", entry.name),
            *([("Role", entry.role)] if entry.role is not mlx_catalog.ModelRole.CHAT else []),
            ("Parameters", _params(entry)),
            ("Architecture", entry.architecture),
            *_context(entry),
            ("Can", _abilities(entry) or "chat"),
            *_vectors(entry),
            ("Licence", f"{entry.license or '?'}{', gated' if entry.gated else ''}"),
        ]
        output.answer((entry.id, "bold"))
        output.facts(rows)
        output.answer("")
    for model in shown.local:
        output.answer(("On disk", "bold"), f"  {model.local.path}")
        quant, size, integrity, tiers = _row(model)[1:]
        output.facts([("Quant", quant), ("Size", size), ("Integrity", integrity), ("Tiers", tiers)])
        output.answer("")
    show_estimate(output, shown.expected)
    if not shown.local:
        output.say(f"\nIt isn't on this disk: `mlx-stack pull {shown.expected.model.name}`.")


def _show_removal(output: Output, removal: "models.local.Removal") -> None:
    name = removal.model.name
    output.text(f"Removed {name}: {format_bytes(removal.freed_bytes)} are free again.")
    for tier in removal.model.tiers:
        output.say(f"The tier {tier} has no model now: `mlx-stack pull {name}`.")


def _show_local(output: Output, listing: "models.local.LocalListing") -> None:
    if not listing.models:
        _say_kept(output, listing)
        output.say(f"No models in {listing.model_dir} yet. `mlx-stack pull MODEL` downloads one;")
        output.say("`mlx-stack models list --catalog` shows the available models.")
        return
    columns = [
        Column("Model", folds=True),
        Column("Quant"),
        Column("Size", right=True),
        Column("Integrity"),
        Column("Tiers", folds=True),
    ]
    output.table(columns, [_row(model) for model in listing.models])
    for model in listing.models:
        for problem in model.local.problems:
            output.say(f"{model.name}: {problem}")
    if not listing.is_sound:
        output.say("`mlx-stack pull MODEL` downloads damaged files again.")
    _say_kept(output, listing)


def _say_kept(output: Output, listing: "models.local.LocalListing") -> None:
    for kept in listing.kept:
        conversations = f"{kept.conversations} conversation{'s' * (kept.conversations != 1)}"
        size = format_bytes(kept.size_bytes)
        output.answer(f"The tier {kept.tier} keeps {conversations} on disk: {size}.")


def _row(model: "models.local.ListedModel") -> list[Span]:
    local = model.local
    size = format_bytes(local.size_bytes)
    if local.integrity == "incomplete":
        size = f"{format_bytes(local.present_bytes)} of {size}"
    integrity = (local.integrity, _STYLES[local.integrity])
    return [model.name, local.quant or "?", size, integrity, ", ".join(model.tiers) or "-"]


def _show_catalog(output: Output, listing: "planning.listings.CatalogListing") -> None:
    """The catalog as a table; what doesn't fit is dim."""
    if not listing.models:
        output.say(f"None of the catalog's {listing.total} models meets these conditions.")
        return
    is_wide = output.width >= _WIDE
    output.answer(f"On {describe_hardware(listing.hardware.to_document())}\n")
    columns = [Column("Model", is_kept=True), *_numbers("Params", "GB"), Column("Fits")]
    columns += [*_numbers("Tok/s"), Column("Can")]
    if is_wide:
        columns += [Column("Quant"), *_numbers("Prompt", "Context"), Column("Licence")]
    rows: list[list[Span]] = []
    for model in listing.models:
        expected = model.estimate
        cells = [
            model.entry.id,
            _params(model.entry),
            _gigabytes(expected.memory.total_bytes),
            _FITS[expected.fits],
            short_speed(expected.generation_tps),
            _abilities(model.entry),
            *(_details(model) if is_wide else ()),
        ]
        is_usable = expected.fits and not model.fit.unservable_because
        dim = "" if is_usable else "dim"
        rows.append([(cell, _COLOURS.get(cell, dim)) for cell in cells])
    output.table(columns, rows)
    output.say(_catalog_footer(listing))


def _show_available(output: Output, listing: "planning.listings.HubListing") -> None:
    """The Hub's models as a table, with the catalog's name where it has one."""
    if not listing.models:
        about = f" match {listing.query!r}" if listing.query else " meet these conditions"
        output.say(f"No MLX models at {listing.endpoint}{about}.")
        return
    output.answer(f"On {describe_hardware(listing.hardware.to_document())}\n")
    rows: list[list[Span]] = []
    for model in listing.models:
        expected = model.estimate
        fits = _FITS[expected.fits if expected else None]
        known = f"\n  {model.entry.id} in the catalog" if model.entry else ""
        if model.role is not None and not model.role.chats:
            known += f"\n  role: {model.role}"
        rows.append(
            [
                model.listed.repo + known,
                format_bytes(model.size_bytes),
                "?" if model.listed.downloads is None else f"{model.listed.downloads:,}",
                format_bytes(expected.memory.total_bytes if expected else None),
                (fits, _COLOURS.get(fits, "")),
                short_speed(expected.generation_tps if expected else None),
            ]
        )
    columns = [
        Column("Repository", folds=True),  # for copying: folded where it must be, never cut
        *_numbers("Weights", "Downloads", "Memory"),
        Column("Fits"),
        *_numbers("Tok/s"),
    ]
    output.table(columns, rows)
    output.say("\n`mlx-stack pull REPOSITORY` downloads one.")


def _numbers(*headings: str) -> list[Column]:
    return [Column(heading, right=True) for heading in headings]


def _details(model: "planning.listings.CatalogModel") -> tuple[str, ...]:
    longest = model.estimate.max_context_tokens
    return (
        model.quant,
        short_speed(model.estimate.prompt_tps),
        _short_context(longest),
        model.entry.license or "?",
    )


def _short_context(tokens: int | None) -> str:
    if tokens is None:
        return "?"
    return f"{tokens // 1024}k" if tokens >= 1024 else str(tokens or "")


def _params(entry: mlx_catalog.CatalogEntry) -> str:
    """`27.8B`, or `36B/3B` with the active part of a mixture of experts."""
    whole, active = _billions(entry.params_b), entry.active_params_b
    return f"{whole}/{_billions(active)}" if active is not None and entry.is_moe else whole


def _billions(params_b: float) -> str:
    return f"{params_b:.0f}B" if params_b >= 10 else f"{params_b:.2g}B"


def _gigabytes(size_bytes: int | None) -> str:
    return "?" if size_bytes is None else f"{size_bytes / 1e9:.1f}"


def _context(entry: mlx_catalog.CatalogEntry) -> list[tuple[str, str]]:
    longest = entry.max_context_tokens
    return [] if longest is None else [("Context", f"{longest:,} tokens")]


def _vectors(entry: mlx_catalog.CatalogEntry) -> list[tuple[str, str]]:
    """How long an embedder's vectors are; nothing for other models."""
    if entry.role is not mlx_catalog.ModelRole.EMBEDDING:
        return []
    values = f"{entry.dimensions:,} values" if entry.dimensions is not None else "?"
    return [("Vectors", f"{values}, or fewer on request" if entry.matryoshka else values)]


_DOES = {
    mlx_catalog.ModelRole.EMBEDDING: "embed",
    mlx_catalog.ModelRole.RERANK: "rerank",
    mlx_catalog.ModelRole.SPEECH_TO_TEXT: "hear",
    mlx_catalog.ModelRole.TEXT_TO_SPEECH: "speak",
}
"""What a model can that doesn't chat, in a word."""


def _abilities(entry: mlx_catalog.CatalogEntry) -> str:
    if not entry.role.chats:
        return _DOES[entry.role]
    able = entry.capabilities
    named = {"tools": able.tool_calling, "think": able.thinking, "see": able.vision}
    return " ".join(name for name, has in named.items() if has)


def _catalog_footer(listing: "planning.listings.CatalogListing") -> str:
    fitting = sum(1 for model in listing.models if model.estimate.fits)
    about = f"\n{fitting} of {len(listing.models)} fit. Memory is for 8,192 tokens of context;"
    lines = [
        f"{about} ~ is an estimate.",
        "`mlx-stack estimate MODEL` says more, `mlx-stack pull MODEL` downloads one.",
    ]
    apart = [model.entry.id for model in listing.models if model.fit.unservable_because]
    if apart:
        lines.append(f"No pinned engine can serve {', '.join(apart)}.")
    doubtful = [model.entry.id for model in listing.models if model.entry.confidence == "low"]
    if doubtful:
        lines.append(f"Figures are uncertain for {', '.join(doubtful)}.")
    return "\n".join(lines)
