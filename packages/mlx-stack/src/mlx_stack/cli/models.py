"""`mlx-stack models`."""

from typing import TYPE_CHECKING

import click

from mlx_stack.cli._context import Context, json_option, open_context
from mlx_stack.cli._planning import hardware_option

if TYPE_CHECKING:
    from mlx_stack.operations.catalog_models import ModelFilter


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
@json_option
def command(
    query: str | None,
    hardware_spec: str | None,
    family: str | None,
    tags: tuple[str, ...],
    *,
    catalog: bool,
    tool_calling: bool,
    json: bool,
) -> None:
    """List models: the catalog's, with what each would do here, or the Hub's.

    --hardware gives the figures for another machine. The catalog includes your own entries, the
    YAML files in the folder `catalog` of the state folder.
    """
    from mlx_stack.errors import UsageError
    from mlx_stack.operations.catalog_models import ModelFilter

    if catalog and query is not None:
        raise UsageError("--catalog and --available exclude each other.")
    context = open_context(json=json)
    wanted = ModelFilter(family, tags, tool_calling)
    if query is not None:
        _show_available(context, query, wanted, hardware_spec)
    else:
        _show_catalog(context, wanted, hardware_spec)


def _show_catalog(context: Context, wanted: "ModelFilter", hardware_spec: str | None) -> None:
    from mlx_stack.operations.catalog_models import list_catalog

    listing = list_catalog(context.home, wanted, hardware_spec=hardware_spec)
    if context.output.json:
        from mlx_stack.cli._model_documents import catalog_document

        context.output.document(catalog_document(listing))
    else:
        from mlx_stack.cli._model_tables import show_catalog

        show_catalog(context.output, listing)


def _show_available(
    context: Context, query: str, wanted: "ModelFilter", hardware_spec: str | None
) -> None:
    from mlx_stack.operations.hub_models import search_hub

    listing = search_hub(context.home, query, wanted, hardware_spec=hardware_spec)
    if context.output.json:
        from mlx_stack.cli._model_documents import available_document

        context.output.document(available_document(listing, query))
    else:
        from mlx_stack.cli._model_tables import show_available

        show_available(context.output, listing, query)
