"""`mlx-stack models`."""

import click

import mlx_catalog
from mlx_stack import exit_codes, models, planning
from mlx_stack.cli.frame.context import Context, with_context
from mlx_stack.cli.frame.options import completer, hardware_option
from mlx_stack.cli.frame.output import Column, Output, Span
from mlx_stack.cli.views.planning import short_speed
from mlx_stack.cli.views.progress import say_event
from mlx_stack.errors import UsageError
from mlx_stack.format import describe_hardware, format_bytes

_FITS = {True: "yes", False: "no", None: "?"}
_COLOURS = {"yes": "green", "no": "red"}
_WIDE = 110
"""Columns of a terminal from which there is room for what is merely good to know."""
_STYLES = {"ok": "green", "incomplete": "yellow", "damaged": "red"}

_complete_local_models = completer(
    lambda opened: (model.name for model in models.local.list_models(opened).models)
)


@click.command("models")
@click.option("--catalog", is_flag=True, help="The catalog, with figures for this machine.")
@click.option(
    "--available",
    "query",
    metavar="[QUERY]",
    is_flag=False,
    flag_value="",
    help="The Hub's MLX models that match QUERY, most downloaded first.",
)
@hardware_option
@click.option("--family", metavar="NAME", help="Only families whose name starts with NAME.")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="Only models with this tag.")
@click.option("--tool-calling", is_flag=True, help="Only models that call tools.")
@click.option("--verify", is_flag=True, help="Compare every byte of the local models.")
@click.option(
    "--remove",
    metavar="MODEL",
    help="Remove a local model.",
    shell_complete=_complete_local_models,
)
@click.option("--force", is_flag=True, help="Remove it even if a tier uses it.")
@with_context()
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
    """List models: those on this disk, the catalog's, or the Hub's.

    Without an option it lists the local models, with their integrity and the tiers that use
    them; --verify compares every byte with its hash first, and exits with 1 where one is damaged.

    --hardware gives the figures for another machine. The catalog includes your own entries, the
    YAML files in the folder `catalog` of the state folder.
    """
    output = context.output
    filters = family is not None or bool(tags) or tool_calling or hardware_spec is not None
    wants_catalog = catalog or (filters and query is None)
    if sum((wants_catalog, query is not None, verify, remove is not None)) > 1:
        raise UsageError("--catalog, --available, --verify and --remove can't be combined.")
    if force and remove is None:
        raise UsageError("--force needs --remove.")
    if remove is not None:
        _remove(context, remove, is_forced=force)
    elif query is not None:
        wanted = planning.listings.ModelFilter(family, tags, tool_calling)
        found = planning.listings.search_hub(
            context.opened, query, wanted, hardware_spec=hardware_spec
        )
        output.show(found, _show_available)
    elif wants_catalog:
        wanted = planning.listings.ModelFilter(family, tags, tool_calling)
        listing = planning.listings.list_catalog(
            context.opened, wanted, hardware_spec=hardware_spec
        )
        output.show(listing, _show_catalog)
    elif verify:
        listing = models.local.verify_models(context.opened, say_event(output))
        output.show(listing, _show_local)
        return exit_codes.DONE if listing.is_sound else exit_codes.FAILED
    else:
        output.show(models.local.list_models(context.opened), _show_local)
    return exit_codes.DONE


def _remove(context: Context, name: str, *, is_forced: bool) -> None:
    output = context.output
    removal = models.local.remove_model(
        context.opened, name, is_forced=is_forced, on_event=say_event(output)
    )
    output.show(removal, _show_removal)


def _show_removal(output: Output, removal: "models.local.Removal") -> None:
    name = removal.model.name
    output.text(f"Removed {name}: {format_bytes(removal.freed_bytes)} are free again.")
    for tier in removal.model.tiers:
        output.say(f"The tier {tier} has no model now: `mlx-stack pull {name}`.")


def _show_local(output: Output, listing: "models.local.LocalListing") -> None:
    if not listing.models:
        output.say(f"No models in {listing.model_dir} yet. `mlx-stack pull MODEL` downloads one;")
        output.say("`mlx-stack models --catalog` shows what there is.")
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
        output.say("`mlx-stack pull MODEL` fetches what is damaged again.")


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
            _abilities(model.entry.capabilities),
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
        "?" if longest is None else f"{longest // 1024}k" if longest else "",
        model.entry.license or "?",
    )


def _params(entry: mlx_catalog.CatalogEntry) -> str:
    """`27.8B`, or `36B/3B` with the active part of a mixture of experts."""
    whole, active = _billions(entry.params_b), entry.active_params_b
    return f"{whole}/{_billions(active)}" if active is not None and entry.is_moe else whole


def _billions(params_b: float) -> str:
    return f"{params_b:.0f}B" if params_b >= 10 else f"{params_b:.2g}B"


def _gigabytes(size_bytes: int | None) -> str:
    return "?" if size_bytes is None else f"{size_bytes / 1e9:.1f}"


def _abilities(able: mlx_catalog.Capabilities) -> str:
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
        lines.append(f"The pinned engine can't serve {', '.join(apart)}.")
    doubtful = [model.entry.id for model in listing.models if model.entry.confidence == "low"]
    if doubtful:
        lines.append(f"Figures are doubtful for {', '.join(doubtful)}.")
    return "\n".join(lines)
