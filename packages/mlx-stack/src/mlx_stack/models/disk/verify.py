"""Comparing every byte of a model that is here with its hash."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import structs

from mlx_stack.models.disk.local import LocalModel, compare
from mlx_stack.models.disk.manifest import (
    FileRecord,
    Verification,
    read_manifest,
    write_manifest,
)
from mlx_stack.models.events import Checking, Event
from mlx_stack.steps import OnEvent, ignore

_BLOCK_BYTES = 1 << 20


def verify(
    model: LocalModel,
    on_event: OnEvent[Event] = ignore,
    now: Callable[[], float] = time.time,
) -> LocalModel:
    """The model after comparing every byte with its hash; the manifest remembers the result.

    A folder without a manifest has no hashes to compare with and comes back as it is. Nothing is
    remembered in a folder that may not be written to.

    Args:
        model: What `list_local` or `find_local` gave.
        on_event: Gets each file before it is read.
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
            on_event(Checking(file.path, file.size_bytes))
            if not has_right_digest(path, file):
                damaged.append(file.path)
    result = Verification(at=now(), damaged=tuple(damaged))
    checked = structs.replace(manifest, verification=result)
    if os.access(model.path, os.W_OK):
        write_manifest(model.path, checked)
    return compare(model.path, checked)


def has_right_digest(path: Path, file: FileRecord) -> bool:
    """Whether the content of `path` has the size and hash of `file`; all of it is read."""
    if path.stat().st_size != file.size_bytes:
        return False
    hasher = file.hasher()
    with path.open("rb", buffering=0) as content:
        while block := content.read(_BLOCK_BYTES):
            hasher.update(block)
    return hasher.hexdigest() == file.digest
