"""Entries by id and alias, and the questions asked of them."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlx_catalog.errors import (
    InvalidCatalogError,
    Problem,
    UnknownModelError,
    UnreadableCatalogError,
)
from mlx_catalog.parse import parse_entry
from mlx_catalog.schema import CatalogEntry

SHIPPED_MODELS = Path(__file__).parent / "data" / "models"


@dataclass(frozen=True, slots=True)
class Resolution:
    """The entry that answers to a name, and what to tell the user about the name."""

    entry: CatalogEntry
    requested: str
    note: str
    """Why `entry` answers to an alias that is no model's name; "" if there is nothing to say."""


class Catalog:
    """A set of entries with unique ids. Iterating yields them by family and size."""

    def __init__(self, entries: Iterable[CatalogEntry]) -> None:
        ordered = sorted(entries, key=lambda entry: (entry.family, entry.params_b, entry.id))
        self._entries = {entry.id: entry for entry in ordered}
        self._aliases = {
            alias: entry
            for entry in ordered
            for alias in entry.aliases
            if alias not in self._entries
        }

    def __iter__(self) -> Iterator[CatalogEntry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._aliases

    @property
    def aliases(self) -> dict[str, str]:
        """Every alias with the id that it stands for."""
        return {alias: entry.id for alias, entry in self._aliases.items()}

    def get(self, name: str) -> CatalogEntry:
        """The entry with the id or alias `name`, in any case.

        Raises:
            UnknownModelError: with the nearest names.
        """
        return self.resolve(name).entry

    def resolve(self, name: str) -> Resolution:
        """The entry that answers to `name`, with the note that an alias carries.

        Raises:
            UnknownModelError: with the nearest names.
        """
        key = name.strip().lower()
        if key in self._entries:
            return Resolution(self._entries[key], name, "")
        if key in self._aliases:
            entry = self._aliases[key]
            return Resolution(entry, name, entry.alias_notes.get(key, ""))
        raise UnknownModelError(name, self.close_matches(key))

    def close_matches(self, name: str, limit: int = 3) -> tuple[str, ...]:
        """The ids and aliases most like `name`, best first."""
        names = [*self._entries, *self._aliases]
        containing = [each for each in names if name and name in each]
        similar = difflib.get_close_matches(name, names, n=limit, cutoff=0.6)
        return tuple(dict.fromkeys([*similar, *containing]))[:limit]

    def by_repo(self, hf_repo: str) -> CatalogEntry | None:
        """The entry whose weights, in any quantization, or whose base model `hf_repo` is."""
        wanted = hf_repo.lower()
        for entry in self:
            repos = [entry.hf_base_repo, *(source.hf_repo for _, source in entry.sources.items())]
            if any(repo is not None and repo.lower() == wanted for repo in repos):
                return entry
        return None

    def filter(
        self,
        *,
        family: str | None = None,
        tags: Iterable[str] = (),
        tool_calling: bool | None = None,
        thinking: bool | None = None,
        vision: bool | None = None,
        min_params_b: float | None = None,
        max_params_b: float | None = None,
    ) -> "Catalog":
        """The entries that meet every condition given; what is unknown of one meets none on it."""
        wanted = frozenset(tag.lower() for tag in tags)

        def meets(entry: CatalogEntry) -> bool:
            able = entry.capabilities
            return (
                (family is None or entry.family == family.lower())
                and wanted <= set(entry.tags)
                and (tool_calling is None or able.tool_calling is tool_calling)
                and (thinking is None or able.thinking is thinking)
                and (vision is None or able.vision is vision)
                and (min_params_b is None or entry.params_b >= min_params_b)
                and (max_params_b is None or entry.params_b <= max_params_b)
            )

        return Catalog(entry for entry in self if meets(entry))

    def overridden_by(self, others: Iterable[CatalogEntry]) -> "Catalog":
        """This catalog with `others` added; an id or alias that both have is the other's."""
        others = tuple(others)
        taken = {entry.id for entry in others}
        return Catalog([*(entry for entry in self if entry.id not in taken), *others])


def load_catalog(*folders: Path) -> Catalog:
    """The shipped entries, overridden by id by those in each of `folders`, the last folder winning.

    A folder that doesn't exist has no entries.

    Raises:
        InvalidCatalogError: with every problem of every file.
        UnreadableCatalogError: if a file can't be read.
    """
    catalog = Catalog(load_entries(SHIPPED_MODELS))
    for folder in folders:
        if folder.is_dir():
            catalog = catalog.overridden_by(load_entries(folder))
    return catalog


def load_entries(*paths: Path) -> tuple[CatalogEntry, ...]:
    """The entries in the files `paths`, and in the `*.yaml` files of the folders among them.

    Raises:
        InvalidCatalogError: with every problem of every file; also where two files share an id or
        an alias. UnreadableCatalogError: if a file can't be read.
    """
    entries: dict[str, tuple[CatalogEntry, str]] = {}
    problems: list[Problem] = []
    for path in _files(paths):
        parsed = parse_entry(_text(path), str(path))
        problems += parsed.problems
        entry = parsed.entry
        if entry is None:
            continue
        if path.stem != entry.id:
            problems.append(
                Problem(str(path), 0, "id", f"{path.stem!r}, as the file is named", repr(entry.id))
            )
        if entry.id in entries:
            problems.append(
                Problem(str(path), 0, "id", "an id of its own", f"that of {entries[entry.id][1]}")
            )
        entries[entry.id] = (entry, str(path))
    problems += _shared_names(entries)
    if problems:
        raise InvalidCatalogError(tuple(problems))
    return tuple(entry for entry, _ in entries.values())


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(each for each in path.iterdir() if each.suffix in (".yaml", ".yml"))
        else:
            yield path


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UnreadableCatalogError(path, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise UnreadableCatalogError(path, f"no UTF-8 text: {error.reason}") from error


def _shared_names(entries: dict[str, tuple[CatalogEntry, str]]) -> Iterator[Problem]:
    owners: dict[str, str] = {}
    for entry, file in entries.values():
        for index, alias in enumerate(entry.aliases):
            if alias in entries:
                owner = entries[alias][1]
            elif alias in owners:
                owner = owners[alias]
            else:
                owners[alias] = file
                continue
            yield Problem(
                file, 0, f"aliases[{index}]", "a name of its own", f"{alias!r}, that of {owner}"
            )
