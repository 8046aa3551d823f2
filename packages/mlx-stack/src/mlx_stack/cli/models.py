"""`mlx-stack models`."""

import click

from mlx_stack import exit_codes, models, planning
from mlx_stack.cli.frame.context import Context, with_context
from mlx_stack.cli.frame.options import completer, hardware_option
from mlx_stack.cli.frame.output import Column, Output, Part
from mlx_stack.cli.views.model_tables import show_available, show_catalog
from mlx_stack.cli.views.pull import say_event
from mlx_stack.errors import UsageError
from mlx_stack.format import format_bytes

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
@click.option("--family", metavar="NAME", help="Only families whose name starts so.")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="Only models with this tag.")
@click.option("--tool-calling", is_flag=True, help="Only models that call tools.")
@click.option("--verify", is_flag=True, help="Compare every byte of the local models.")
@click.option(
    "--remove",
    metavar="MODEL",
    help="Remove a local model.",
    shell_complete=_complete_local_models,
)
@click.option("--force", is_flag=True, help="Remove it though a tier uses it.")
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
        raise UsageError("--catalog, --available, --verify and --remove exclude each other.")
    if force and remove is None:
        raise UsageError("--force belongs to --remove.")
    if remove is not None:
        _remove(context, remove, is_forced=force)
    elif query is not None:
        wanted = planning.catalog.ModelFilter(family, tags, tool_calling)
        found = planning.hub.search_hub(context.opened, query, wanted, hardware_spec=hardware_spec)
        output.show(found, show_available)
    elif wants_catalog:
        wanted = planning.catalog.ModelFilter(family, tags, tool_calling)
        listing = planning.catalog.list_catalog(context.opened, wanted, hardware_spec=hardware_spec)
        output.show(listing, show_catalog)
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
        context.opened, name, is_forced=is_forced, observer=say_event(output)
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


def _row(model: "models.local.ListedModel") -> list[Part]:
    local = model.local
    size = format_bytes(local.size_bytes)
    if local.integrity == "incomplete":
        size = f"{format_bytes(local.present_bytes)} of {size}"
    integrity = (local.integrity, _STYLES[local.integrity])
    return [model.name, local.quant or "?", size, integrity, ", ".join(model.tiers) or "-"]
