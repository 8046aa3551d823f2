"""`mlx-stack models`."""

from typing import TYPE_CHECKING

import click

from mlx_stack import exit_codes
from mlx_stack.cli.frame.completion import complete_local_models
from mlx_stack.cli.frame.context import Context, json_option, open_context, quiet_option
from mlx_stack.cli.options.planning import hardware_option

if TYPE_CHECKING:
    from mlx_stack.planning.catalog import ModelFilter


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
    shell_complete=complete_local_models,
)
@click.option("--force", is_flag=True, help="Remove it though a tier uses it.")
@json_option
@quiet_option
def command(
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
    json: bool,
    quiet: bool,
) -> int:
    """List models: those on this disk, the catalog's, or the Hub's.

    Without an option it lists the local models, with their integrity and the tiers that use
    them; --verify compares every byte with its hash first, and exits with 1 where one is damaged.

    --hardware gives the figures for another machine. The catalog includes your own entries, the
    YAML files in the folder `catalog` of the state folder.
    """
    from mlx_stack.errors import UsageError

    filters = family is not None or bool(tags) or tool_calling or hardware_spec is not None
    wants_catalog = catalog or (filters and query is None)
    if sum((wants_catalog, query is not None, verify, remove is not None)) > 1:
        raise UsageError("--catalog, --available, --verify and --remove exclude each other.")
    if force and remove is None:
        raise UsageError("--force belongs to --remove.")
    context = open_context(json=json, quiet=quiet)
    if remove is not None:
        from mlx_stack.cli.views.local_models import remove_local

        return remove_local(context, remove, is_forced=force)
    if query is None and not wants_catalog:
        from mlx_stack.cli.views.local_models import show_local

        return show_local(context, is_verified=verify)
    from mlx_stack.planning.catalog import ModelFilter

    wanted = ModelFilter(family, tags, tool_calling)
    if query is not None:
        _show_available(context, query, wanted, hardware_spec)
    else:
        _show_catalog(context, wanted, hardware_spec)
    return exit_codes.DONE


def _show_catalog(context: Context, wanted: "ModelFilter", hardware_spec: str | None) -> None:
    from mlx_stack.planning.catalog import list_catalog

    listing = list_catalog(context.home, wanted, hardware_spec=hardware_spec)
    if context.output.json:
        from mlx_stack.cli.views.model_documents import catalog_document

        context.output.document(catalog_document(listing))
    else:
        from mlx_stack.cli.views.model_tables import show_catalog

        show_catalog(context.output, listing)


def _show_available(
    context: Context, query: str, wanted: "ModelFilter", hardware_spec: str | None
) -> None:
    from mlx_stack.planning.hub import search_hub

    listing = search_hub(context.home, query, wanted, hardware_spec=hardware_spec)
    if context.output.json:
        from mlx_stack.cli.views.model_documents import available_document

        context.output.document(available_document(listing, query))
    else:
        from mlx_stack.cli.views.model_tables import show_available

        show_available(context.output, listing, query)
