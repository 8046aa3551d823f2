"""Entries by id and alias, and the questions asked of them (decision 0036)."""

import difflib
import functools
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from mlx_catalog.bounded_file import MAX_YAML_BYTES, read_bounded
from mlx_catalog.errors import (
    InvalidCatalogError,
    Problem,
    UnknownModelError,
    UnreadableCatalogError,
)
from mlx_catalog.mismatches import Violation
from mlx_catalog.parse import locate, parse_entry
from mlx_catalog.roles import ModelRole
from mlx_catalog.schema import CatalogEntry
from mlx_catalog.yaml12 import KeyPath

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
        return isinstance(name, str) and (
            (key := _key(name)) in self._entries or key in self._aliases
        )

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
        key = _key(name)
        if key in self._entries:
            return Resolution(self._entries[key], name, "")
        if key in self._aliases:
            entry = self._aliases[key]
            return Resolution(entry, name, entry.alias_notes.get(key, ""))
        raise UnknownModelError(name, self.close_matches(key))

    def close_matches(self, name: str, limit: int = 3) -> tuple[str, ...]:
        """The names most like `name`, best first; none of those that only explain themselves."""
        aliases = (name for name, entry in self._aliases.items() if name not in entry.alias_notes)
        names = [*self._entries, *aliases]
        similar = difflib.get_close_matches(name, names, n=limit, cutoff=0.6)
        containing = (each for each in names if name and name in each)
        return tuple(dict.fromkeys([*similar, *containing]))[:limit]

    def by_repo(self, hf_repo: str) -> CatalogEntry | None:
        """The entry whose weights, in any quantization, or whose base model `hf_repo` is."""
        return next((entry for entry in self if entry.quant_of(hf_repo) is not None), None)

    def by_repo_name(self, name: str, model_type: str) -> CatalogEntry | None:
        """The entry of that type whose weights, or base model, are in a repository `OWNER/name`."""
        wanted = name.lower()
        for entry in self:
            repos = [entry.hf_base_repo, *(source.hf_repo for _, source in entry.sources.items())]
            names = {(repo or "").lower().partition("/")[2] for repo in repos}
            if entry.model_type == model_type and wanted in names:
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
        role: ModelRole | None = None,
        min_params_b: float | None = None,
        max_params_b: float | None = None,
    ) -> "Catalog":
        """The entries that meet every condition given; what is unknown of one meets none on it.

        `family` may be the start of a family's name: "qwen" finds all of them.
        """
        wanted = frozenset(tag.lower() for tag in tags)

        def meets(entry: CatalogEntry) -> bool:
            able = entry.capabilities
            return (
                (family is None or entry.family.startswith(family.lower()))
                and wanted <= set(entry.tags)
                and (tool_calling is None or able.tool_calling is tool_calling)
                and (thinking is None or able.thinking is thinking)
                and (vision is None or able.vision is vision)
                and (role is None or entry.role is role)
                and (min_params_b is None or entry.params_b >= min_params_b)
                and (max_params_b is None or entry.params_b <= max_params_b)
            )

        return Catalog(entry for entry in self if meets(entry))

    def overridden_by(self, others: Iterable[CatalogEntry]) -> "Catalog":
        """This catalog with `others` added; an id or alias that both have is the other's."""
        others = tuple(others)
        ids = {entry.id for entry in others}
        names = ids.union(*(entry.aliases for entry in others))
        kept = (_without_aliases(entry, names) for entry in self if entry.id not in ids)
        return Catalog([*kept, *others])


def _key(name: str) -> str:
    """`name` as ids and aliases are written."""
    return name.strip().lower()


def _without_aliases(entry: CatalogEntry, names: AbstractSet[str]) -> CatalogEntry:
    if names.isdisjoint(entry.aliases):
        return entry
    aliases = tuple(alias for alias in entry.aliases if alias not in names)
    notes = {alias: note for alias, note in entry.alias_notes.items() if alias in aliases}
    return structs.replace(entry, aliases=aliases, alias_notes=notes)


def load_catalog(*folders: Path) -> Catalog:
    """The shipped entries, overridden by id by those in each of `folders`, the last folder winning.

    A folder that doesn't exist has no entries.

    Raises:
        InvalidCatalogError: with every problem of every file.
        UnreadableCatalogError: if a file can't be read.
    """
    catalog = _shipped()
    for folder in folders:
        if folder.is_dir():
            catalog = catalog.overridden_by(load_entries(folder))
    return catalog


@functools.cache
def _shipped() -> Catalog:
    """The entries in the package, which don't change while it runs."""
    return Catalog(load_entries(SHIPPED_MODELS))


def load_entries(*paths: Path) -> tuple[CatalogEntry, ...]:
    """The entries in the files `paths`, and in the `*.yaml` files of the folders among them.

    Raises:
        InvalidCatalogError: with every problem of every file; two that share a name have one.
        UnreadableCatalogError: if a file can't be read.
    """
    loaded: list[_Loaded] = []
    problems: list[Problem] = []
    for path in _files(paths):
        text = _text(path)
        parsed = parse_entry(text, str(path))
        problems += parsed.problems
        if parsed.entry is not None:
            loaded.append(_Loaded(path, text, parsed.entry))
    problems += _name_problems(loaded)
    if problems:
        raise InvalidCatalogError(tuple(problems))
    return tuple(each.entry for each in loaded)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """An entry with the file that it is from."""

    path: Path
    text: str
    entry: CatalogEntry

    def problem(self, path: KeyPath, expected: str, got: str) -> Problem:
        return locate(self.text, str(self.path), [Violation(path, expected, got)])[0]


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(each for each in path.iterdir() if each.suffix in (".yaml", ".yml"))
        else:
            yield path


def _text(path: Path) -> str:
    try:
        return read_bounded(path, MAX_YAML_BYTES).decode()
    except OSError as error:
        raise UnreadableCatalogError(path, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise UnreadableCatalogError(path, f"no UTF-8 text: {error.reason}") from error


def _name_problems(loaded: Iterable[_Loaded]) -> Iterator[Problem]:
    """Ids that aren't their files', and names that two entries have."""
    loaded = tuple(loaded)
    owners: dict[str, Path] = {}
    for each in loaded:
        if each.path.stem != each.entry.id:
            expected = f"{each.path.stem!r}, as the file is named"
            yield each.problem(("id",), expected, repr(each.entry.id))
        if each.entry.id in owners:
            yield each.problem(("id",), "a unique name", f"that of {owners[each.entry.id]}")
        owners.setdefault(each.entry.id, each.path)
    for each in loaded:
        for index, alias in enumerate(each.entry.aliases):
            if alias in owners:
                path = ("aliases", index)
                yield each.problem(path, "a unique name", f"{alias!r}, as in {owners[alias]}")
            owners.setdefault(alias, each.path)
