"""Typed views of decoded JSON, for readers that must not trust what they read."""

from typing import cast


def as_object(value: object) -> dict[str, object]:
    """The value as a JSON object, or an empty one where it is something else."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def object_or_none(value: object) -> dict[str, object] | None:
    """The value as a JSON object, or None where it is something else."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def as_list(value: object) -> list[object]:
    """The value as a JSON array, or an empty one where it is something else."""
    return cast("list[object]", value) if isinstance(value, list) else []


def as_text(value: object) -> str:
    """The value as a string, or an empty one where it is something else."""
    return value if isinstance(value, str) else ""


def as_count(value: object) -> int | None:
    """The value as an integer of zero or more, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
