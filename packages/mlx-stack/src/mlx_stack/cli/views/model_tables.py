"""Listings of the catalog's and the Hub's models, as tables."""

import shutil
from collections.abc import Sequence

import mlx_catalog
from mlx_stack import planning
from mlx_stack.cli.frame.output import Column, Output, Part
from mlx_stack.cli.views.planning import short_speed
from mlx_stack.format import describe_hardware, format_bytes

_FITS = {True: "yes", False: "no", None: "?"}
_COLOURS = {"yes": "green", "no": "red"}
_WIDE = 110
"""Columns of a terminal from which there is room for what is merely good to know."""
_LEFT = frozenset({"Model", "Fits", "Can", "Quant", "Licence"})


def show_catalog(output: Output, listing: "planning.catalog.CatalogListing") -> None:
    """The catalog as a table; what doesn't fit is dim."""
    if not listing.models:
        output.say(f"None of the catalog's {listing.total} models meets these conditions.")
        return
    is_wide = shutil.get_terminal_size().columns >= _WIDE
    output.answer(f"On {describe_hardware(listing.hardware.to_document())}\n")
    more = ("Quant", "Prompt", "Context", "Licence") if is_wide else ()
    headings = ("Model", "Params", "GB", "Fits", "Tok/s", "Can", *more)
    rows: list[tuple[str, tuple[str, ...]]] = [("bold", headings)]
    for model in listing.models:
        expected = model.estimate
        is_usable = expected.fits and not model.fit.unservable_because
        cells = (
            model.entry.id,
            _params(model.entry),
            _gigabytes(expected.memory.total_bytes),
            _FITS[expected.fits],
            short_speed(expected.generation_tps),
            _abilities(model.entry.capabilities),
            *(_details(model) if is_wide else ()),
        )
        rows.append(("" if is_usable else "dim", cells))
    _show_columns(output, headings, rows)
    output.say(_catalog_footer(listing))


def show_available(output: Output, listing: "planning.hub.HubListing") -> None:
    """The Hub's models as a table, with the catalog's name where it has one."""
    if not listing.models:
        about = f" match {listing.query!r}" if listing.query else " meet these conditions"
        output.say(f"No MLX models at {listing.endpoint}{about}.")
        return
    output.answer(f"On {describe_hardware(listing.hardware.to_document())}\n")
    rows: list[list[Part]] = []
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
        *(Column(name, right=True) for name in ("Weights", "Downloads", "Memory")),
        Column("Fits"),
        Column("Tok/s", right=True),
    ]
    output.table(columns, rows)
    output.say("\n`mlx-stack pull REPOSITORY` downloads one.")


def _show_columns(
    output: Output, headings: Sequence[str], rows: Sequence[tuple[str, tuple[str, ...]]]
) -> None:
    """Rows of one line each: a tenth of the time that a table of a hundred rows takes."""
    widths = [max(len(cells[index]) for _, cells in rows) for index in range(len(headings))]
    lines: list[tuple[str, list[Part]]] = []
    for style, cells in rows:
        parts: list[Part] = []
        for heading, cell, width in zip(headings, cells, widths, strict=True):
            padded = cell.ljust(width) if heading in _LEFT else cell.rjust(width)
            parts += [(padded, _COLOURS.get(cell, "")), "  "]
        lines.append((style, parts))
    output.lines(lines)


def _details(model: "planning.catalog.CatalogModel") -> tuple[str, ...]:
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


def _catalog_footer(listing: "planning.catalog.CatalogListing") -> str:
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
