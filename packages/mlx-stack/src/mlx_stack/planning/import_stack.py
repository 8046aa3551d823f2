"""A stack file of mlx-stack 0.3, the earlier program of this name, read for what it still says.

Which model serves which tier is taken over; ports, parsers and engine flags are not: some of the
flags are unsafe for some models, and parsers follow from the catalog.
"""

from pathlib import Path

import msgspec

from mlx_stack import atomic_file, yaml_file
from mlx_stack.errors import InvalidFileError
from mlx_stack.home import Home
from mlx_stack.models.find import open_catalog
from mlx_stack.planning.init import Addition


class _ForeignTier(msgspec.Struct, frozen=True):
    name: str
    model: str
    source: str = ""


class _ForeignStack(msgspec.Struct, frozen=True):
    tiers: tuple[_ForeignTier, ...]


def read_foreign_stack(home: Home, path: Path) -> tuple[Addition, ...]:
    """The tiers of the file, each with a model that exists: its own, or what its id stands for.

    Args:
        home: Whose catalog entries count.
        path: The file.

    Raises:
        InvalidFileError: It is no such file.
    """
    try:
        foreign = yaml_file.read(path, _ForeignStack)
    except FileNotFoundError as error:
        raise InvalidFileError(path, "there is no such file") from error
    if not foreign.tiers:
        raise InvalidFileError(path, "it defines no tier")
    catalog = open_catalog(home)
    return tuple(
        Addition(tier.model if tier.model in catalog else tier.source or tier.model, tier.name)
        for tier in foreign.tiers
    )


def keep_copy(path: Path | None) -> None:
    """Copy an imported file beside itself, since the new stack may take its place.

    Raises:
        OSError: The copy can't be written.
    """
    if path is not None:
        copy = path.with_name(f"{path.name}.imported")
        atomic_file.write_text(copy, path.read_text(encoding="utf-8"))
