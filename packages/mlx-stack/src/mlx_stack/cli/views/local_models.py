"""The models on this disk, shown as a table or as JSON."""

from typing import TYPE_CHECKING

from mlx_stack import exit_codes
from mlx_stack.cli.views.format import format_bytes
from mlx_stack.cli.views.pull import describe as describe_event

if TYPE_CHECKING:
    from mlx_stack.cli.frame.context import Context
    from mlx_stack.models.events import Event
    from mlx_stack.models.local import ListedModel, LocalListing

_WORTH_A_LINE_BYTES = 10_000_000
_STYLES = {"ok": "green", "incomplete": "yellow", "damaged": "red"}


def show_local(context: "Context", *, is_verified: bool) -> int:
    """Answer `models` and `models --verify`; 1 where a check found damage."""
    from mlx_stack.models.local import list_models, verify_models

    output = context.output

    def tell(path: str, size_bytes: int) -> None:
        if size_bytes >= _WORTH_A_LINE_BYTES:
            output.say(f"checking {path} ({format_bytes(size_bytes)})")

    listing = verify_models(context.home, tell) if is_verified else list_models(context.home)
    if output.json:
        models = [local_fields(model) for model in listing.models]
        output.document({"model_dir": str(listing.model_dir), "models": models})
    else:
        _show_table(context, listing)
    return exit_codes.DONE if listing.is_sound or not is_verified else exit_codes.FAILED


def remove_local(context: "Context", name: str, *, is_forced: bool) -> int:
    """Answer `models --remove`."""
    from mlx_stack.models.local import remove_model

    output = context.output

    def show(event: "Event") -> None:
        line = describe_event(event)
        if line is not None:
            output.say(line)

    removal = remove_model(context.home, name, is_forced=is_forced, observer=show)
    if output.json:
        fields = local_fields(removal.model)
        output.document({"removed": fields, "freed_bytes": removal.freed_bytes})
        return exit_codes.DONE
    output.text(
        f"Removed {removal.model.name}: {format_bytes(removal.freed_bytes)} are free again."
    )
    for tier in removal.model.tiers:
        output.say(f"The tier {tier} has no model now: `mlx-stack pull {removal.model.name}`.")
    return exit_codes.DONE


def local_fields(model: "ListedModel") -> dict[str, object]:
    """The fields of one model of `models --json`."""
    return {"id": model.name, **model.local.to_document(), "tiers": list(model.tiers)}


def _show_table(context: "Context", listing: "LocalListing") -> None:
    from rich.markup import escape
    from rich.table import Table

    output = context.output
    if not listing.models:
        output.say(f"No models in {listing.model_dir} yet. `mlx-stack pull MODEL` downloads one;")
        output.say("`mlx-stack models --catalog` shows what there is.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Model", overflow="fold")
    table.add_column("Quant")
    table.add_column("Size", justify="right", no_wrap=True)
    table.add_column("Integrity")
    table.add_column("Tiers")
    for model in listing.models:
        local = model.local
        size = format_bytes(local.size_bytes)
        if local.integrity == "incomplete":
            size = f"{format_bytes(local.present_bytes)} of {size}"
        style = _STYLES[local.integrity]
        integrity = f"[{style}]{local.integrity}[/{style}]"
        tiers = ", ".join(model.tiers) or "-"
        table.add_row(escape(model.name), local.quant or "?", size, integrity, tiers)
    output.answer(table)
    for model in listing.models:
        for problem in model.local.problems:
            output.say(f"{model.name}: {problem}")
    if not listing.is_sound:
        output.say("`mlx-stack pull MODEL` fetches what is damaged again.")
