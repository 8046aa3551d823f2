"""Checking every byte of a model that is here, and removing one."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import structs

from mlx_stack.models.disk import model_lock
from mlx_stack.models.disk.hf_cache import has_right_digest
from mlx_stack.models.disk.inventory import write_inventory
from mlx_stack.models.disk.layout import ModelPlaces
from mlx_stack.models.disk.local import LocalModel, compare
from mlx_stack.models.disk.manifest import Verification, read_manifest, write_manifest
from mlx_stack.models.events import Observer, ignore


def verify(
    model: LocalModel,
    on_file: Callable[[str, int], None] = lambda _path, _size: None,
    now: Callable[[], float] = time.time,
) -> LocalModel:
    """The model after comparing every byte with its hash; the manifest remembers the result.

    A folder without a manifest has no hashes to compare with and comes back as it is. Nothing is
    remembered in a folder that may not be written to.

    Args:
        model: What `list_local` or `find_local` gave.
        on_file: Called with the path and size of each file before it is read.
        now: The time that is remembered, in seconds since the epoch.

    Raises:
        InvalidFileError: The manifest is damaged.
    """
    manifest = read_manifest(model.path)
    if manifest is None:
        return model
    damaged: list[str] = []
    for file in manifest.files:
        path = model.path / file.path
        if path.is_file():
            on_file(file.path, file.size_bytes)
            if not has_right_digest(path, file):
                damaged.append(file.path)
    result = Verification(at=now(), damaged=tuple(damaged))
    checked = structs.replace(manifest, verification=result)
    if os.access(model.path, os.W_OK):
        write_manifest(model.path, checked)
    return compare(model.path, checked)


def remove(model_dir: Path, model: LocalModel, observer: Observer = ignore) -> int:
    """Remove a model of `model_dir`, unfinished downloads of it included; the bytes freed."""
    places = ModelPlaces(model_dir, model.path.name)
    with model_lock.hold(places, model.repo or model.path.name, observer):
        folders = [f for f in (places.published, places.staging, places.replaced) if f.exists()]
        freed = sum(_own_bytes(folder) for folder in folders)
        for folder in folders:
            discard(folder)
        write_inventory(model_dir)
    return freed


def discard(folder: Path) -> None:
    """Remove a folder; where it is a link, only that."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)


def _own_bytes(folder: Path) -> int:
    """What removing a folder frees: files that are linked from elsewhere stay there."""
    if folder.is_symlink():
        return 0
    statuses = (path.lstat() for path in folder.rglob("*") if not path.is_dir())
    return sum(status.st_blocks * 512 for status in statuses if status.st_nlink == 1)
