"""Where things are inside the models folder, their locks, and room for more (decision 0052)."""

import errno
import shutil
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlx_procsup import LockOwner, acquire_lock
from mlx_stack.models.errors import DiskSpaceError
from mlx_stack.models.events import ModelEvent, Unlocked, Waiting
from mlx_stack.steps import OnEvent

MANIFEST_NAME = ".mlx-stack.json"
INVENTORY_NAME = "inventory.json"
REPLACED_SUFFIX = ".replaced"
_INCOMING = ".incoming"
_LARGEST_RESERVE_BYTES = 1 << 30
_RESERVE_PART = 50
GB = 1_000_000_000
_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class ModelPlaces:
    """The paths that belong to one model folder.

    Attributes:
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

    def hold(self, repo: str, on_event: OnEvent[ModelEvent]) -> AbstractContextManager[LockOwner]:
        """The lock, as soon as it is free; on a disk without locks nothing is locked.

        Args:
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


def reserve_bytes(total_bytes: int) -> int:
    """What is left free on a disk of this size: a fiftieth of it, at most 1 GiB."""
    return min(_LARGEST_RESERVE_BYTES, total_bytes // _RESERVE_PART)


def free_bytes(folder: Path) -> int:
    """What models may still take on the disk of `folder`, which needn't exist yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    usage = shutil.disk_usage(there)
    return usage.free - reserve_bytes(usage.total)


def ensure_room(folder: Path, needed_bytes: int, what: str) -> None:
    """Return where `needed_bytes` more fit on the disk of `folder`, which must exist.

    Raises:
        DiskSpaceError: They don't; the message says how much is missing.
    """
    free = free_bytes(folder)
    if needed_bytes > free:
        raise DiskSpaceError(
            f"{what} needs {_amount(needed_bytes)} more, but the disk of {folder} has "
            f"only {_amount(max(free, 0))} free.",
            hint=f"Free {_amount(needed_bytes - free)} (`mlx-stack models rm MODEL`), "
            "or put the models on another disk: `mlx-stack config set model-dir PATH`.",
        )


@contextmanager
def naming_disk(folder: Path, what: str) -> Generator[None]:
    """Have every error of the disk in the `with` statement name a path; a full one helps itself.

    Raises:
        DiskSpaceError: When the disk fills up.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskSpaceError(
                f"The disk of {folder} is full. The downloaded part of {what} is kept.",
                hint="Free some space (`mlx-stack models rm MODEL`) and pull again.",
            ) from error
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(folder)) from error


def _amount(count: int) -> str:
    return f"{count / GB:.1f} GB" if count >= GB else f"{count / _MB:.1f} MB"
