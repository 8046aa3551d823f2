"""Where things are inside the models folder, and the lock of each model in it (decision 0052)."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from mlx_procsup import LockOwner, acquire_lock
from mlx_stack.models.events import Event, Unlocked, Waiting
from mlx_stack.steps import OnEvent

MANIFEST_NAME = ".mlx-stack.json"
INVENTORY_NAME = "inventory.json"
REPLACED_SUFFIX = ".replaced"
_INCOMING = ".incoming"


@dataclass(frozen=True, slots=True)
class ModelPlaces:
    """The paths that belong to one model folder.

    Attributes:
        model_dir: The models folder.
        folder: The model's folder name in it.
    """

    model_dir: Path
    folder: str

    @property
    def published(self) -> Path:
        """The whole model, as engines serve it."""
        return self.model_dir / self.folder

    @property
    def staging(self) -> Path:
        """The model while it is downloaded or converted; on the same file system."""
        return self.model_dir / _INCOMING / self.folder

    @property
    def replaced(self) -> Path:
        """The former model, for the moment in which a newer one takes its place."""
        return self.model_dir / _INCOMING / f"{self.folder}{REPLACED_SUFFIX}"

    @property
    def lock(self) -> Path:
        """Held by whoever downloads, converts or removes this model."""
        return self.model_dir / _INCOMING / f"{self.folder}.lock"

    def hold(self, repo: str, on_event: OnEvent[Event]) -> AbstractContextManager[LockOwner]:
        """The lock, as soon as it is free; on a disk without locks nothing is locked.

        Args:
            repo: What to call the model.
            on_event: Gets `Waiting` if another pull has the lock, `Unlocked` if there is none.
        """
        return acquire_lock(
            self.lock,
            "pull",
            on_wait=lambda _: on_event(Waiting(repo)),
            on_unsupported=lambda _: on_event(Unlocked(str(self.model_dir))),
            remove=True,
        )


def places_of(model_dir: Path, repo: str, converted_to: str | None = None) -> ModelPlaces:
    """Where a repository's weights are, or will be.

    The folder is `owner--name`, as the Hub's own cache writes it. Weights converted here have the
    precision behind it (`owner--name--int4`), since one repository can be converted to several.
    """
    name = repo.replace("/", "--")
    return ModelPlaces(model_dir, name if converted_to is None else f"{name}--{converted_to}")


def incoming(model_dir: Path) -> Path:
    """The folder of unfinished models."""
    return model_dir / _INCOMING
