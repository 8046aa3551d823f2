"""Listings of the catalog's and the Hub's models, as JSON fields."""

from typing import TYPE_CHECKING

import msgspec

from mlx_stack.cli.views.estimates import estimate_fields

if TYPE_CHECKING:
    from mlx_catalog import CatalogEntry
    from mlx_recommend import Estimate
    from mlx_stack.planning.catalog import CatalogListing, CatalogModel
    from mlx_stack.planning.hub import AvailableModel, HubListing

_ENTRY_FIELDS = (
    "id",
    "aliases",
    "alias_notes",
    "name",
    "family",
    "params_b",
    "active_params_b",
    "architecture",
    "license",
    "gated",
    "max_context_tokens",
    "capabilities",
    "tags",
    "confidence",
    "notes",
)


_SCORES = ("overall", "coding", "reasoning", "instruction_following")
_UNKNOWN_QUALITY: dict[str, object] = {"source": {}, **dict.fromkeys(_SCORES)}


def catalog_document(listing: "CatalogListing") -> dict[str, object]:
    """The fields of `models --catalog --json`."""
    return {
        "hardware": listing.hardware.to_json(),
        "models": [_catalog_fields(model) for model in listing.models],
    }


def available_document(listing: "HubListing", query: str) -> dict[str, object]:
    """The fields of `models --available --json`."""
    return {
        "query": query,
        "endpoint": listing.endpoint,
        "hardware": listing.hardware.to_json(),
        "models": [_available_fields(model) for model in listing.models],
    }


def _catalog_fields(model: "CatalogModel") -> dict[str, object]:
    entry = model.entry
    plain = msgspec.to_builtins(entry)
    return {
        **{name: plain[name] for name in _ENTRY_FIELDS},
        "quality": plain["quality"] or _UNKNOWN_QUALITY,
        "sources": {quant: source for quant, source in plain["sources"].items() if source},
        "unservable_because": model.fit.unservable_because or None,
        "estimate": _estimate_fields(model.estimate),
    }


def _available_fields(model: "AvailableModel") -> dict[str, object]:
    listed, reading = model.listed, model.reading
    return {
        "repo": listed.repo,
        "catalog_id": model.entry.id if model.entry else None,
        "downloads": listed.downloads,
        "likes": listed.likes,
        "gated": listed.gated,
        "last_modified": listed.last_modified or None,
        "size_bytes": model.size_bytes,
        "model_type": reading.model.model_type if reading else _entry_type(model.entry),
        "quantization": reading.model.quantization if reading else None,
        "note": model.note or None,
        "estimate": _estimate_fields(model.estimate) if model.estimate else None,
    }


def _entry_type(entry: "CatalogEntry | None") -> str | None:
    return entry.model_type if entry is not None else None


def _estimate_fields(expected: "Estimate") -> dict[str, object]:
    return {
        "quant": expected.shape.quant or None,
        "context_tokens": expected.workload.context_tokens,
        "concurrency": expected.workload.concurrency,
        **estimate_fields(expected),
    }
