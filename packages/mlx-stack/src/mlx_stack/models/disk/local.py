"""The models on this disk: which there are, where, whether they are whole (decision 0052).

`integrity` compares names and sizes with what the Hub said, which finds whatever an interruption
leaves; `verify` compares every byte.
"""

import json
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msgspec import structs

from mlx_catalog import Quant, UnreadableModelError
from mlx_catalog.model_files import describe, load_config
from mlx_catalog.safetensors import Tensor, missing_shards, read_header, weight_files
from mlx_stack import atomic_file
from mlx_stack.errors import InvalidFileError
from mlx_stack.models.disk.layout import INVENTORY_NAME, REPLACED_SUFFIX, ModelPlaces, incoming
from mlx_stack.models.disk.manifest import (
    Manifest,
    Origin,
    Verification,
    read_manifest,
    write_manifest,
)
from mlx_stack.models.disk.partial import noted_bytes
from mlx_stack.models.events import Checking, ModelEvent
from mlx_stack.steps import OnEvent, ignore

_INVENTORY_VERSION = 1

type Integrity = Literal["ok", "incomplete", "damaged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """One model folder.

    Attributes:
        path: The folder that an engine can serve, absolute where the models folder is.
        repo: The Hub repository of the weights; None for a folder that mlx-stack didn't make.
        quant: The precision of the weights; None where `config.json` doesn't tell.
        origin: How it came here; None for a folder that mlx-stack didn't make.
        size_bytes: What the files should weigh, as far as that is known, or what they do weigh.
        present_bytes: What is there of it.
        wrong: What is damaged, a sentence each.
        missing: What isn't there, a sentence each.
    """

    path: Path
    repo: str | None = None
    model: str | None = None
    quant: Quant | None
    revision: str | None = None
    origin: Origin | None = None
    size_bytes: int
    present_bytes: int
    wrong: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def integrity(self) -> Integrity:
        """Whether it is whole."""
        return "damaged" if self.wrong else "incomplete" if self.missing else "ok"

    @property
    def is_whole(self) -> bool:
        """Whether it can be served."""
        return self.integrity == "ok"

    def may_be(self, quant: Quant | None) -> bool:
        """Whether its files say nothing against weights of this format; None is any."""
        return quant is None or self.quant is None or self.quant.read_as == quant.read_as

    @property
    def problems(self) -> tuple[str, ...]:
        """What is missing or wrong, a sentence each."""
        return (*self.wrong, *self.missing)

    @property
    def condition(self) -> str:
        """What is wrong with a model that isn't whole: `in /models/x is incomplete: …`."""
        return f"in {self.path} is {self.integrity}: {'; '.join(self.problems)}"

    @property
    def cure(self) -> str:
        """What makes a model whole again that isn't, or does away with it."""
        remove = f"`mlx-stack models rm {shlex.quote(self.path.name)}` removes it."
        if self.repo is None:
            return f"Put the original files back; {remove}"
        return f"`mlx-stack pull {shlex.quote(self.repo)}` completes it; {remove}"

    def to_document(self) -> dict[str, object]:
        """The model as JSON, in answers and in the inventory."""
        return {
            "model": self.model,
            "repo": self.repo,
            "quant": self.quant,
            "revision": self.revision,
            "origin": self.origin,
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "present_bytes": self.present_bytes,
            "integrity": self.integrity,
            "problems": list(self.problems),
        }


def find_local(model_dir: Path, name: str, quant: Quant | None = None) -> LocalModel | None:
    """The local folder of a model, whole or not; None where nothing of it is here.

    Args:
        name: A Hub repository, a catalog id that was pulled, a folder's name in `model_dir`, or
            the absolute path of a model folder anywhere.
        quant: Only a model of this precision, where several share the name; a path names one.
    """
    if Path(name).is_absolute():
        return inspect_folder(Path(name))
    found = [
        model
        for model in list_local(model_dir)
        if name in (model.repo, model.model, model.path.name) and model.may_be(quant)
    ]
    return min(found, key=lambda model: (not model.is_whole, model.path), default=None)


def list_local(model_dir: Path) -> tuple[LocalModel, ...]:
    """Every model folder in `model_dir`, then the unfinished ones, by name."""
    # the unfinished first: a model that is published meanwhile is then found twice, not lost
    begun = [
        model
        for path in model_folders(incoming(model_dir))
        if path.suffix != REPLACED_SUFFIX and (model := _inspect_unfinished(path))
    ]
    published = [model for path in model_folders(model_dir) if (model := inspect_folder(path))]
    names = {model.path.name for model in published}
    unfinished = [model for model in begun if model.path.name not in names]
    return (*published, *unfinished)


def model_folders(directory: Path) -> tuple[Path, ...]:
    """The folders in `directory` that may be models, by name.

    Without those that a disk has of its own, which often may not be read: `.Trashes`, `lost+found`.
    """
    try:
        entries = sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return tuple(
        entry
        for entry in entries
        if not entry.name.startswith((".", "_"))
        and entry.is_dir()
        and os.access(entry, os.R_OK | os.X_OK)
    )


def inspect_folder(path: Path) -> LocalModel | None:
    """What a folder holds; None where it isn't a model (no `config.json`, no manifest)."""
    try:
        manifest = read_manifest(path)
    except InvalidFileError as error:
        return _foreign(path, error.message)
    except PermissionError as error:
        wrong = (f"it can't be read: {error.strerror}",)
        return LocalModel(path=path, quant=None, size_bytes=0, present_bytes=0, wrong=wrong)
    if manifest is not None:
        return _compare(path, manifest)
    return _foreign(path) if (path / "config.json").is_file() else None


def own_files(folder: Path) -> Iterator[Path]:
    """Every file in a model folder and below it, in order.

    Without those that macOS lays next to others where a disk has no extended attributes.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("._"):
            yield path


def verify(
    model: LocalModel, on_event: OnEvent[ModelEvent] = ignore, now: Callable[[], float] = time.time
) -> LocalModel:
    """The model after comparing every byte with its hash; the manifest remembers the result.

    A folder without a manifest has no hashes to compare with and comes back as it is. Nothing is
    remembered in a folder that may not be written to.

    Args:
        model: What `list_local` or `find_local` gave.
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
            if not file.matches(path):
                damaged.append(file.path)
    result = Verification(at=now(), damaged=tuple(damaged))
    checked = structs.replace(manifest, verification=result)
    if os.access(model.path, os.W_OK):
        write_manifest(model.path, checked)
    return _compare(model.path, checked)


def _compare(path: Path, manifest: Manifest) -> LocalModel:
    """What a folder holds of what its manifest names."""
    present, missing, wrong = 0, list[str](), list[str]()
    for file in manifest.files:
        size = file_size(path / file.path)
        if size is None:
            missing.append(f"{file.path} is missing")
            continue
        present += min(size, file.size_bytes)
        if size != file.size_bytes:
            wrong.append(f"{file.path} has {size} bytes instead of {file.size_bytes}")
    if manifest.verification is not None:
        wrong += [f"{name} differs from its hash" for name in manifest.verification.damaged]
    return _described(path, manifest, present, wrong, missing)


def write_inventory(model_dir: Path) -> None:
    """List the models of `model_dir`, which must exist, in its inventory.

    It is written after every change, for people and other programs, and never read back.
    """
    models = [model.to_document() for model in list_local(model_dir)]
    text = json.dumps({"schema_version": _INVENTORY_VERSION, "models": models}, indent=2)
    atomic_file.write_text(model_dir / INVENTORY_NAME, text + "\n")


def remove(model_dir: Path, model: LocalModel, on_event: OnEvent[ModelEvent] = ignore) -> int:
    """Remove a model of `model_dir`, unfinished downloads of it included; the bytes freed."""
    places = ModelPlaces(model_dir, model.path.name)
    with places.hold(model.repo or model.path.name, on_event):
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


def _inspect_unfinished(path: Path) -> LocalModel | None:
    """A download that was interrupted: the manifest is written before the first byte."""
    try:
        manifest = read_manifest(path)
    except InvalidFileError as error:
        return _foreign(path, error.message)
    if manifest is None:
        return None
    present = sum(
        min(file_size(path / file.path) or noted_bytes(path / file.path, file), file.size_bytes)
        for file in manifest.files
    )
    unfinished = "the download is not finished; `mlx-stack pull` continues it"
    return _described(path, manifest, present, missing=[unfinished])


def _described(
    path: Path,
    manifest: Manifest,
    present_bytes: int,
    wrong: Sequence[str] = (),
    missing: Sequence[str] = (),
) -> LocalModel:
    return LocalModel(
        path=path,
        repo=manifest.repo,
        model=manifest.model,
        quant=manifest.quant,
        revision=manifest.revision,
        origin=manifest.origin,
        size_bytes=manifest.size_bytes,
        present_bytes=present_bytes,
        wrong=tuple(wrong),
        missing=tuple(missing),
    )


def _foreign(path: Path, *problems: str) -> LocalModel:
    """A folder without a (readable) manifest, judged by what its files say of themselves."""
    own = list(own_files(path))
    here = weight_files(file.name for file in own if file.parent == path)
    quant, wrong, tensors = None, list(problems), dict[str, Tensor]()
    for name in here:
        try:
            tensors |= read_header(path / name)
        except UnreadableModelError as error:
            wrong.append(f"{name} is damaged: {error.reason}")
    if (path / "config.json").is_file():
        try:
            quant = describe(path.name, load_config(path / "config.json"), tensors).quant
        except UnreadableModelError as error:
            wrong.append(f"config.json is damaged: {error.reason}")
    missing = [f"{name} is missing" for name in missing_shards(here)]
    if not here:
        missing.append("there are no safetensors weights")
    size = sum(file_size(file) or 0 for file in own)
    return LocalModel(
        path=path,
        quant=quant,
        size_bytes=size,
        present_bytes=size,
        wrong=tuple(wrong),
        missing=tuple(missing),
    )


def file_size(path: Path) -> int | None:
    """The size of a file, through links; None where there is none, a dangling link included."""
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None
