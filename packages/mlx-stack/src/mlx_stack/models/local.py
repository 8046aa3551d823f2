"""The models on this disk, and the tiers that use them: listed, checked, removed."""

from dataclasses import dataclass, replace
from pathlib import Path

from mlx_stack.engines.kept_prompts import KeptOfTier, list_kept
from mlx_stack.errors import StackError, UsageError
from mlx_stack.models.disk.local import LocalModel, list_local, remove, verify
from mlx_stack.models.errors import ModelInUseError
from mlx_stack.models.events import ModelEvent
from mlx_stack.models.find import find, local_model_of, local_models
from mlx_stack.open_stack import OpenStack
from mlx_stack.steps import OnEvent, ignore


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A local model, and the tiers that serve it.

    Attributes:
        tiers: The names of the tiers whose source it is.
    """

    local: LocalModel
    tiers: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the model is called in commands: the catalog id, the repository, or the folder."""
        return self.local.model or self.local.repo or self.local.path.name

    def to_document(self) -> dict[str, object]:
        """The model as JSON."""
        return {"id": self.name, **self.local.to_document(), "tiers": list(self.tiers)}


@dataclass(frozen=True, slots=True)
class LocalListing:
    """What is on this disk.

    Attributes:
        models: By name, the unfinished ones last.
        kept: What engines keep of conversations, by tier.
    """

    model_dir: Path
    models: tuple[ListedModel, ...]
    kept: tuple[KeptOfTier, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether nothing in it is damaged."""
        return all(model.local.integrity != "damaged" for model in self.models)

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        models = [model.to_document() for model in self.models]
        kept = [each.to_document() for each in self.kept]
        return {"model_dir": str(self.model_dir), "models": models, "kept_prompts": kept}


@dataclass(frozen=True, slots=True)
class Removal:
    """A model that is gone."""

    model: ListedModel
    freed_bytes: int

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {"removed": self.model.to_document(), "freed_bytes": self.freed_bytes}


def list_models(opened: OpenStack) -> LocalListing:
    """The local models, whole or not. Reads names and sizes only, and writes nothing.

    Raises:
        InvalidFileError: When the configuration or the stack file is damaged.
    """
    model_dir, users = opened.config.model_dir, _users(opened)
    models = (ListedModel(model, users.get(model.path, ())) for model in list_local(model_dir))
    return LocalListing(model_dir, tuple(models), list_kept(opened.home.kept_prompts))


def verify_models(opened: OpenStack, on_event: OnEvent[ModelEvent] = ignore) -> LocalListing:
    """The local models after comparing every byte with its hash."""
    listing = list_models(opened)
    checked = (
        replace(model, local=verify(model.local, on_event))
        if model.local.path.parent == listing.model_dir
        else model
        for model in listing.models
    )
    return replace(listing, models=tuple(checked))


def remove_model(
    opened: OpenStack, name: str, *, is_forced: bool, on_event: OnEvent[ModelEvent] = ignore
) -> Removal:
    """Remove a model from this disk, unfinished downloads of it included.

    Args:
        name: Its catalog id, repository or folder, however it is written.

    Raises:
        UnknownModelError: When there is no such name.
        StackError: When there is no such model here.
        UsageError: When several have the name.
        ModelInUseError: When a tier uses it.
    """
    listing = list_models(opened)
    paths = {model.path.resolve() for model in local_models(opened, find(opened, name))}
    found = [model for model in listing.models if model.local.path.resolve() in paths]
    if not found:
        raise StackError(
            f"There is no model {name!r} in {listing.model_dir}.",
            hint="`mlx-stack models` lists what is there.",
        )
    if len(found) > 1:
        folders = ", ".join(model.local.path.name for model in found)
        raise UsageError(f"{name!r} names several models.", hint=f"Name one folder: {folders}.")
    (model,) = found
    if model.tiers and not is_forced:
        tiers = ", ".join(model.tiers)
        raise ModelInUseError(
            f"{model.name} is used by {'tier' if len(model.tiers) == 1 else 'tiers'} {tiers}.",
            hint="`mlx-stack init --remove TIER` removes a tier from the stack; `--force` removes "
            "the model anyway.",
        )
    return Removal(model, remove(listing.model_dir, model.local, on_event))


def _users(opened: OpenStack) -> dict[Path, tuple[str, ...]]:
    """The tiers of the stack by the folder that each serves."""
    users: dict[Path, tuple[str, ...]] = {}
    for tier in opened.defined_stack.tiers if opened.defined_stack is not None else ():
        model = local_model_of(opened, tier)
        if model is not None:
            users[model.path] = (*users.get(model.path, ()), tier.name)
    return users
