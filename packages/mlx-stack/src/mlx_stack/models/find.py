"""Which model a name means on this machine: one order for every command (decision 0057).

The form of the name decides first (`parse`). A word is the catalog's, then a model's in the models
folder, then a folder's here; `owner/name` is a repository, unless only a folder here is called so.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlx_catalog import PRECISIONS, CatalogEntry, CatalogError, Quant, UnknownModelError
from mlx_stack.errors import StackError, UsageError
from mlx_stack.models.disk.local import LocalModel, find_local, inspect_folder, list_local
from mlx_stack.models.errors import ModelNotFoundError
from mlx_stack.models.hub.environment import read_environment
from mlx_stack.models.name import CatalogName, Folder, HubRepo, parse
from mlx_stack.open_stack import OpenStack
from mlx_stack.stack import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModel:
    """What a name means: an entry of the catalog, a repository, or files; one of them at least.

    Attributes:
        name: What the model is called: the catalog id, the repository, or the path.
        path: The model folder, or the `config.json`, where one was named.
    """

    name: str
    entry: CatalogEntry | None = None
    repo: HubRepo | None = None
    path: Path | None = None
    note: str = ""

    @property
    def folder(self) -> Path | None:
        """The model folder that was named, absolute."""
        if self.path is None:
            return None
        folder = self.path.parent if self.path.is_file() else self.path
        return folder.resolve() if ".." in folder.parts else folder.absolute()

    @property
    def source(self) -> str | None:
        """What a stack file says of where the weights are: the repository or folder named."""
        if self.repo is not None:
            return self.repo.repo
        return str(self.folder) if self.folder is not None else None

    def is_served_by(self, tier: Tier) -> bool:
        """Whether a tier serves this model."""
        is_entry = self.entry is not None and self.entry.id == tier.model
        return is_entry or tier.source == self.source


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where the weights of a model come from.

    Attributes:
        quant: The precision that was asked for; None takes what the repository holds.
        is_converted: Whether the repository's weights must be converted to `quant`.
        processor_repo: The repository of the tokenizer and the processor that the weights need,
            where theirs lacks them.
    """

    origin: HubRepo
    quant: Quant | None
    is_converted: bool = False
    model: str | None = None
    note: str = ""
    processor_repo: str | None = None


def find(opened: OpenStack, text: str) -> FoundModel:
    """The model that `text` means on this machine. Makes no request.

    Raises:
        UnknownModelError: When nothing is called so; with the nearest names of the catalog.
        UsageError: When it is a web address, but none of a model.
        StackError: When it is a path, and nothing is there.
    """
    match parse(text, read_environment().endpoint):
        case CatalogName(name):
            return _find_word(opened, name)
        case HubRepo() as repo:
            return _find_repo(opened, repo, text)
        case Folder(path):
            return _find_path(opened, path)


def local_models(
    opened: OpenStack, found: FoundModel, quant: Quant | None = None
) -> tuple[LocalModel, ...]:
    """The folders on this disk that hold a model, whole ones first.

    Args:
        quant: Only weights of this precision, where a repository has several.
    """
    if found.folder is not None:
        model = inspect_folder(found.folder)
        return (model,) if model is not None else ()
    models = [model for model in list_local(opened.config.model_dir) if model.may_be(quant)]
    if found.repo is not None:
        models = [model for model in models if _is_of(model, found.repo)]
    elif found.entry is not None:
        entry = found.entry
        named = [model for model in models if entry.id in (model.model, model.path.name)]
        models = named or [m for m in models if m.repo and entry.quant_of(m.repo) is not None]
    return tuple(sorted(models, key=lambda model: (not model.is_whole, model.path)))


def local_model_of(opened: OpenStack, tier: Tier) -> LocalModel | None:
    """The folder of a tier's model, whole or not; None where nothing of it is here."""
    return find_local(opened.config.model_dir, tier.source, tier.quant)


def is_present(opened: OpenStack, tier: Tier) -> bool:
    """Whether all of a tier's model is here."""
    model = local_model_of(opened, tier)
    return model is not None and model.is_whole


def pull_name(opened: OpenStack, tier: Tier) -> str | None:
    """What `pull` needs for a tier's weights, as a user types it; None where they are a folder's.

    That is the catalog's name where it brings these weights by default, else the repository, or the
    name with `--quant` where they are converted.
    """
    name, quant = pull_request(opened, tier)
    if Path(name).is_absolute():
        return None
    return name if quant is None else f"{name} --quant {quant}"


def pull_request(opened: OpenStack, tier: Tier) -> tuple[str, Quant | None]:
    """The name of a tier's weights, with the precision where the name alone brings another one."""
    try:
        catalog = opened.catalog
    except CatalogError:
        return tier.source, None  # who asks speaks of the model; its repository is a name too
    if tier.model not in catalog:
        return tier.source, None
    entry = catalog.get(tier.model)
    usual = offered(entry, opened.config.default_quant)
    wanted = tier.quant or usual
    weights = entry.sources.get(wanted)
    if weights is None or tier.source != (weights.hf_repo or weights.convert_from):
        return tier.source, None
    if wanted == usual:
        return tier.model, None
    is_converted = weights_of(entry, wanted)[1]
    return (tier.model, wanted) if is_converted else (tier.source, None)


def source_of(found: FoundModel, quant: Quant | None, default_quant: Quant) -> ModelSource:
    """Where a model's weights are downloaded from.

    A repository keeps its own precision (decision 0055); an entry has a source for each.

    Raises:
        UsageError: When the entry has no such weights, or the model is a folder of unknown origin.
    """
    if found.repo is not None:
        return ModelSource(found.repo, quant)
    if found.entry is not None:
        wanted = quant or offered(found.entry, default_quant)
        repo, is_converted = weights_of(found.entry, wanted)
        return ModelSource(HubRepo(repo), wanted, is_converted, found.entry.id, found.note)
    local = inspect_folder(found.folder) if found.folder is not None else None
    if local is None or local.repo is None:
        raise UsageError(
            f"{found.name} is a folder on this disk: there is nothing to download.",
            hint="For the repository of the same name, write OWNER/NAME@main.",
        )
    own = local.quant if local.origin == "converted" else None
    return ModelSource(HubRepo(local.repo), quant or own)


def offered(entry: CatalogEntry, default: Quant) -> Quant:
    """`default`, or the format of a model that is published in none of the three precisions."""
    known: list[Quant] = [quant for quant, _ in entry.sources.items()]
    if default not in known and not entry.role.chats and known:
        return known[0]  # small models that are published in few formats
    return default if not known or set(known) & set(PRECISIONS) else known[0]


def weights_of(entry: CatalogEntry, quant: Quant) -> tuple[str, bool]:
    """The repository of an entry's weights, and whether they must be converted.

    Raises:
        UsageError: When the catalog knows none of that precision.
    """
    source = entry.sources.get(quant)
    repo = (source.hf_repo or source.convert_from) if source is not None else None
    if source is None or repo is None:
        known = [each for each, _ in entry.sources.items()]
        key = ", or the key `default-quant`" if set(known) & set(PRECISIONS) else ""
        hint = f"Available: {', '.join(known)}; choose with `--quant`{key}."
        raise UsageError(
            f"No {quant} weights of {entry.id} are known.", hint=hint if known else None
        )
    # 16-bit weights are served as they were published: there is nothing to convert
    return repo, source.hf_repo is None and quant != Quant.BF16


def near_names(opened: OpenStack, name: str) -> str:
    """A question about the catalog's names that are most like `name`, or ""."""
    near = opened.catalog.close_matches(name.lower())
    return f"Did you mean {' or '.join(near)}? " if near else ""


@contextmanager
def guessing(opened: OpenStack, repo: HubRepo) -> Generator[None]:
    """Where the Hub doesn't know `repo`, the catalog's names that are most like it come along."""
    try:
        yield
    except ModelNotFoundError as error:
        error.hint = f"{near_names(opened, Path(repo.repo).name)}{error.hint or ''}" or None
        raise


def _find_word(opened: OpenStack, name: str) -> FoundModel:
    catalog = opened.catalog
    if name in catalog:
        resolution = catalog.resolve(name)
        return FoundModel(name=resolution.entry.id, entry=resolution.entry, note=resolution.note)
    for model in list_local(opened.config.model_dir):
        if name in (model.path.name, model.model):
            return FoundModel(name=name, path=model.path)
    if _is_model_folder(Path(name)):
        return FoundModel(name=name, path=Path(name))
    raise UnknownModelError(name, catalog.close_matches(name.lower()))


def _find_repo(opened: OpenStack, repo: HubRepo, text: str) -> FoundModel:
    found = FoundModel(name=repo.repo, entry=opened.catalog.by_repo(repo.repo), repo=repo)
    is_plain = text.strip().removesuffix("/") == repo.repo
    if (
        is_plain
        and _is_model_folder(Path(repo.repo))
        and found.entry is None
        and not local_models(opened, found)
    ):
        return FoundModel(name=repo.repo, path=Path(repo.repo))
    return found


def _find_path(opened: OpenStack, path: Path) -> FoundModel:
    try:
        place = path.expanduser()
        place.stat()
    except (OSError, RuntimeError) as error:  # RuntimeError: `~nobody`
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StackError(
            f"There is no model in {path}: {reason}.",
            hint=f"{near_names(opened, path.name)}A Hub repository is OWNER/NAME; "
            "`mlx-stack models` lists the models on this disk.",
        ) from error
    return FoundModel(name=str(place), path=place)


def _is_model_folder(path: Path) -> bool:
    return (path / "config.json").is_file()


def _is_of(model: LocalModel, repo: HubRepo) -> bool:
    is_same = model.repo is not None and model.repo.lower() == repo.repo.lower()
    return is_same and repo.commit in (None, model.revision)
