"""Which model a name means: a catalog entry, files on this disk, or a repository on the Hub."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_catalog import Catalog, CatalogEntry, Quant, load_catalog, read_model
from mlx_catalog.geometry import load_config as load_model_config
from mlx_recommend import ModelShape, shape_of_config, shape_of_entry
from mlx_stack.errors import MissingError
from mlx_stack.home import Home
from mlx_stack.models.disk import find_local
from mlx_stack.models.hub.environment import read_environment

if TYPE_CHECKING:
    from mlx_catalog.hub import RepoReading

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

type HubReader = Callable[[str], "RepoReading"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedModel:
    """The model that a name means.

    Attributes:
        name: The catalog id, the repository, or the path.
        quant: The precision asked for, or what the files have.
        shape: What memory and speed follow from; None where the files don't tell enough.
        entry: The catalog's entry, where it has one.
        note: What the user should know about the name, or "".
    """

    name: str
    quant: str
    shape: ModelShape | None
    entry: CatalogEntry | None = None
    note: str = ""


def open_catalog(home: Home) -> Catalog:
    """The shipped catalog with the user's own entries over it.

    Raises:
        InvalidCatalogError: An entry breaks the schema.
    """
    return load_catalog(home.catalog)


def find_model(
    home: Home,
    name: str,
    *,
    model_dir: Path,
    quant: Quant | None,
    default_quant: Quant,
    read_hub: HubReader,
) -> NamedModel:
    """The model that `name` means.

    The catalog's ids, aliases and repositories come first; then models that are here, by path (a
    folder or a `config.json`) or by the name they were pulled as; then `owner/name` on the Hub.

    Args:
        home: For the user's own catalog entries.
        name: What the user typed.
        model_dir: Where pulled models are.
        quant: The precision asked for, or None.
        default_quant: What a catalog entry is estimated at otherwise.
        read_hub: Asks the Hub, only where nothing else answers.

    Raises:
        UnknownModelError: It is none of these; with the nearest names of the catalog.
        UnreadableModelError: The local files are damaged.
        HubError: The Hub doesn't answer, or has no such repository.
    """
    catalog = open_catalog(home)
    if name in catalog:
        found = catalog.resolve(name)
        return _of_entry(found.entry, quant or default_quant, note=found.note)
    entry = catalog.by_repo(name)
    if entry is not None:
        return _of_entry(entry, quant or _quant_of_repo(entry, name) or default_quant)
    path = Path(name).expanduser()
    is_repo = _REPO.fullmatch(name) is not None
    if path.exists() or (os.sep in name and not is_repo):
        return _of_files(path, str(path), quant)
    local = find_local(model_dir, name, quant)
    if local is not None and local.is_whole:
        return _of_files(local.path, name, quant)
    if is_repo:
        return _of_repo(read_hub(name), quant)
    return _of_entry(catalog.get(name), quant or default_quant)  # raises, with the nearest names


def read_from_hub(repo: str) -> "RepoReading":
    """What the Hub says of a repository, with the user's endpoint and token.

    Raises:
        MissingError: When `HF_HUB_OFFLINE` forbids asking.
        StackError: When it doesn't answer, or has no such repository.
    """
    from mlx_stack.models.hub.client import open_hub

    environment = read_environment()
    if environment.is_offline:
        raise MissingError(
            f"{repo} is not in the catalog, and HF_HUB_OFFLINE forbids asking the Hub.",
            hint="Unset HF_HUB_OFFLINE, or name a local folder.",
        )
    with open_hub(environment.ready(), repo) as hub:
        return hub.read(repo)


def _of_entry(entry: CatalogEntry, quant: Quant, note: str = "") -> NamedModel:
    shape = shape_of_entry(entry, quant)
    return NamedModel(name=entry.id, quant=quant, shape=shape, entry=entry, note=note)


def _quant_of_repo(entry: CatalogEntry, repo: str) -> Quant | None:
    for quant, source in entry.sources.items():
        if source.hf_repo is not None and source.hf_repo.lower() == repo.lower():
            return quant
    return "bf16" if (entry.hf_base_repo or "").lower() == repo.lower() else None


def shape_of_folder(path: Path, quant: Quant | None = None) -> ModelShape | None:
    """The shape of the model in a folder, or of a `config.json` alone; None where it isn't told.

    Raises:
        UnreadableModelError: The files are damaged.
    """
    reading = read_model(path)
    config = load_model_config(path / "config.json" if path.is_dir() else path)
    return shape_of_config(
        path.name,
        config,
        quant=quant,
        weights_bytes=reading.weights_bytes,
        params=reading.params,
    )


def _of_files(path: Path, name: str, quant: Quant | None) -> NamedModel:
    reading, shape = read_model(path), shape_of_folder(path, quant)
    return _named(name, quant or reading.quant or reading.quantization, shape, reading.notes)


def _of_repo(reading: "RepoReading", quant: Quant | None) -> NamedModel:
    shape = shape_of_config(
        reading.repo, reading.config, quant=quant, weights_bytes=reading.weights_bytes or None
    )
    said = quant or reading.model.quant or reading.model.quantization
    return _named(reading.repo, said, shape, reading.model.notes)


def _named(name: str, quant: str, shape: ModelShape | None, notes: tuple[str, ...]) -> NamedModel:
    note = "; ".join(notes)
    if (shape is None or shape.weights_bytes is None) and not note:
        note = "its configuration doesn't tell how many parameters it has"
    if shape is not None:
        quant = shape.quant
    return NamedModel(name=name, quant=quant, shape=shape, note=note)
