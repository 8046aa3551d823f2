"""Where things are inside the models folder. Pure: names and paths, nothing is read or made."""

from dataclasses import dataclass
from pathlib import Path

MANIFEST_NAME = ".mlx-stack.json"
INVENTORY_NAME = "inventory.json"
REPLACED_SUFFIX = ".replaced"
_INCOMING = ".incoming"


def folder_name(repo: str, converted_to: str | None = None) -> str:
    """The folder of a repository's weights: `owner--name`, as the Hub's own cache writes it.

    Weights converted here have the quantization behind it (`owner--name--int4`), since one
    repository can be converted to several.
    """
    name = repo.replace("/", "--")
    return name if converted_to is None else f"{name}--{converted_to}"


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


def incoming(model_dir: Path) -> Path:
    """The folder of unfinished models."""
    return model_dir / _INCOMING
