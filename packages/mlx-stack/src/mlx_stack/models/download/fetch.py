"""One model from the Hub into the models folder: staged, completed, checked, then published.

A model is fetched into a folder next to the published ones and takes its place by a rename, so that
what is published is always whole. What an interruption leaves there is continued next time.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from msgspec import structs

from mlx_catalog import Quant, UnreadableModelError, read_model
from mlx_catalog.hub import HubCommit
from mlx_stack.errors import InvalidFileError
from mlx_stack.models.disk.hf_cache import find_blob, link_or_copy
from mlx_stack.models.disk.layout import ModelPlaces, ensure_room, naming_disk
from mlx_stack.models.disk.local import LocalModel, discard, inspect_folder, write_inventory
from mlx_stack.models.disk.manifest import FileRecord, Manifest, read_manifest, write_manifest
from mlx_stack.models.disk.partial import SUFFIXES, PartialFile, allocated_bytes, discard_partial
from mlx_stack.models.download.hub_files import HubFiles
from mlx_stack.models.download.retries import TransferPolicy
from mlx_stack.models.download.transfer import Transfer
from mlx_stack.models.errors import OfflineError, TransientError
from mlx_stack.models.events import ModelEvent, Planned, Retrying
from mlx_stack.models.own_code import code_digest, is_allowed
from mlx_stack.steps import OnEvent, ignore

type RevisionGate = Callable[[LocalModel, LocalModel], Sequence[str]]
"""Compares the model that is here with a whole, newer one; both can be served.

It raises where that does worse, and gives what there is to say where it doesn't.
"""

CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class PullResult:
    """A model that is whole on this disk, and what it took.

    Attributes:
        outcome: `present` (nothing was fetched), `linked`, `downloaded` or `converted`.
        resumed_bytes: What an earlier, interrupted pull had left.
        linked_bytes: What was on this disk already: linked, or copied where the disk has no links.
    """

    outcome: Literal["present", "linked", "downloaded", "converted"]
    model: LocalModel
    downloaded_bytes: int = 0
    resumed_bytes: int = 0
    linked_bytes: int = 0
    seconds: float = 0.0
    note: str = ""

    @property
    def path(self) -> Path:
        """The folder that an engine can serve."""
        return self.model.path

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {
            "outcome": self.outcome,
            **self.model.to_document(),
            "downloaded_bytes": self.downloaded_bytes,
            "resumed_bytes": self.resumed_bytes,
            "linked_bytes": self.linked_bytes,
            "seconds": round(self.seconds, 3),
            "note": self.note or None,
        }


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How a model is fetched.

    Attributes:
        cache: huggingface_hub's cache, to use what is in it; None doesn't look.
        is_forced: Download everything again.
        config: The model's `config.json`, where that was downloaded and compared with its hash.
        gate: What a newer revision must pass before it takes the place of the one that is here;
            None lets everything through.
    """

    cache: Path | None = None
    model: str | None = None
    is_forced: bool = False
    allows_code: bool = False
    config: bytes | None = None
    gate: RevisionGate | None = None
    policy: TransferPolicy = field(default_factory=TransferPolicy)


def find_present(
    places: ModelPlaces,
    revision: str | None = None,
    *,
    allows_code: bool = False,
    borrowed: Iterable[FileRecord] = (),
) -> LocalModel | None:
    """The published model where it is whole (and of that revision); None otherwise.

    With `allows_code` only where that was recorded with it, with `borrowed` only where those files
    of another repository are with it.
    """
    model = inspect_folder(places.published)
    if model is None or not model.is_whole or revision not in (None, model.revision):
        return None
    manifest = _manifest_of(places.published)
    if not {*(manifest.files if manifest is not None else ())}.issuperset(borrowed):
        return None
    return model if not allows_code or is_allowed(model.path) else None


def fetch(
    commit: HubCommit,
    files: Sequence[FileRecord],
    source: HubFiles | None,
    places: ModelPlaces,
    options: FetchOptions,
    on_event: OnEvent[ModelEvent] = ignore,
) -> PullResult:
    """Have `files` of a commit whole in `places`, and say what it took.

    Args:
        source: Where their bytes come from; None where nothing may be downloaded.
        on_event: Called with everything that happens.

    Raises:
        OfflineError: Files are missing, and there is no source.
        PullError: It can't be completed; what was fetched is kept for the next time.
        OSError: The disk is broken, or may not be written to.
    """
    manifest = Manifest(
        repo=commit.repo,
        revision=commit.commit,
        quant=None,
        origin="downloaded",
        files=tuple(files),
        model=options.model,
        is_forced=options.is_forced,
    )
    with (
        naming_disk(places.model_dir, commit.repo),
        places.hold(commit.repo, on_event),
    ):
        _recover(places)
        if not options.is_forced:
            present = find_present(
                places,
                commit.commit,
                allows_code=options.allows_code,
                borrowed=[file for file in files if file.origin is not None],
            )
            if present is not None:
                return PullResult("present", present)
        while True:
            try:
                result = _fetch_locked(manifest, source, places, options, on_event)
                break
            except TransientError as error:  # remains of an earlier pull, which are gone now
                on_event(Retrying(commit.repo, error.reason, 0))
        write_inventory(places.model_dir)
    return result


def _fetch_locked(
    manifest: Manifest,
    source: HubFiles | None,
    places: ModelPlaces,
    options: FetchOptions,
    on_event: OnEvent[ModelEvent],
) -> PullResult:
    files, repo = manifest.files, manifest.repo
    finished = _prepare_staging(places.staging, manifest)
    linked = 0 if options.is_forced else _link_known(files, places, repo, options.cache)
    missing = [file for file in files if not (places.staging / file.path).exists()]
    if missing and source is None:
        raise OfflineError(f"{missing[0].path} of {repo} is not on this disk")
    # what is allocated already needs no room again
    here = sum(allocated_bytes(places.staging / file.path, file) for file in missing)
    ensure_room(places.model_dir, sum(file.size_bytes for file in missing) - here, repo)
    partials = [PartialFile(places.staging / file.path, file) for file in missing]
    resumed, received = sum(file.size_bytes for file in finished), 0
    try:
        resumed += sum(partial.resumed_bytes for partial in partials)
        _announce(manifest, partials, on_event)
        for partial in partials:
            if options.config is not None and partial.record.path == CONFIG:
                partial.fill(options.config)
                received = partial.record.size_bytes - partial.resumed_bytes
        if source is not None and partials:
            transfer = Transfer(partials, source, options.policy, on_event)
            transfer.run()
            received += transfer.received_bytes
    finally:
        for partial in partials:
            partial.close()
    model, note = publish(places, manifest, options)
    outcome = "downloaded" if partials or finished else "linked"
    return PullResult(outcome, model, received, resumed, linked, note=note)


def publish(
    places: ModelPlaces, manifest: Manifest, options: FetchOptions
) -> tuple[LocalModel, str]:
    """Give the staged model its place, with a manifest that knows its precision.

    A former model of that name is there until the new one is, which has to pass the gate first;
    what that had to say comes along. Where code is allowed, the manifest records it as allowed.
    """
    is_allowed_now = options.allows_code or manifest.allowed_code is not None
    described = structs.replace(
        manifest,
        quant=manifest.quant or _quant(places.staging),
        allowed_code=code_digest(places.staging) if is_allowed_now else None,
        is_forced=False,
        is_waiting=False,
    )
    _recover(places)
    note = _pass_gate(places, described, options.gate)
    write_manifest(places.staging, described)
    if os.path.lexists(places.published):
        places.published.rename(places.replaced)
    places.staging.rename(places.published)
    _recover(places)
    model = inspect_folder(places.published)
    assert model is not None
    return model, note


def _pass_gate(places: ModelPlaces, staged: Manifest, gate: RevisionGate | None) -> str:
    """What the gate says of a staged model that is to replace another one; it may refuse it."""
    before, former = _manifest_of(places.published), inspect_folder(places.published)
    if gate is None or before is None or former is None or not former.is_whole:
        return ""
    if staged.has_content_of(before):
        return ""
    write_manifest(places.staging, structs.replace(staged, is_waiting=True))
    newer = inspect_folder(places.staging)
    assert newer is not None
    return "\n".join(gate(former, newer))


def take_waiting(
    places: ModelPlaces,
    revision: str,
    options: FetchOptions,
    on_event: OnEvent[ModelEvent] = ignore,
) -> PullResult | None:
    """Give a model its place that is whole and waits for the gate; None where none does.

    It was fetched or converted by an earlier pull, which was interrupted then, or refused.
    """
    if not is_waiting(places):
        return None
    with places.hold(places.folder, on_event):
        staged, model = _manifest_of(places.staging), inspect_folder(places.staging)
        if staged is None or model is None or not (staged.is_waiting and model.is_whole):
            return None
        if staged.revision != revision or (options.allows_code and not is_allowed(model.path)):
            return None
        model, note = publish(places, staged, options)
        write_inventory(places.model_dir)
    return PullResult(staged.origin, model, resumed_bytes=staged.size_bytes, note=note)


def is_waiting(places: ModelPlaces) -> bool:
    """Whether a staged model is whole, and only has to pass the gate."""
    staged = _manifest_of(places.staging)
    return staged is not None and staged.is_waiting


def _recover(places: ModelPlaces) -> None:
    """Settle where a former model was moved aside: it goes, or comes back if there is no newer."""
    if not os.path.lexists(places.replaced):
        return
    if places.published.exists():
        discard(places.replaced)
    else:
        places.replaced.rename(places.published)


def _quant(folder: Path) -> Quant | None:
    """The precision; what can't be read of it never undoes a download."""
    for path in (folder, folder / CONFIG):
        with suppress(UnreadableModelError):
            return read_model(path).quant
    return None


def _prepare_staging(staging: Path, manifest: Manifest) -> list[FileRecord]:
    """Have a staging folder that holds nothing but remains of these very files.

    Returns those that are there already.
    """
    before = _manifest_of(staging)
    if manifest.is_forced and not (before is not None and before.is_forced):
        shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True, exist_ok=True)
    # files with their final name were checked or linked by an earlier pull of the same content
    known = {file.path: file for file in before.files} if before is not None else {}
    finished = [
        file
        for file in manifest.files
        if known.get(file.path) == file
        and (staging / file.path).is_file()
        and (staging / file.path).stat().st_size == file.size_bytes
    ]
    kept = {file.path for file in finished}
    kept |= {f"{file.path}{suffix}" for file in manifest.files for suffix in SUFFIXES}
    for path in sorted(staging.rglob("*"), reverse=True):
        name = path.relative_to(staging).as_posix()
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif name not in kept:
            path.unlink(missing_ok=True)  # a file that macOS laid next to another goes with it
    write_manifest(staging, manifest)
    return finished


def _manifest_of(folder: Path) -> Manifest | None:
    """What a folder should hold; None where nothing readable says so: it is fetched again."""
    try:
        return read_manifest(folder)
    except InvalidFileError:
        return None


def _link_known(
    files: Iterable[FileRecord], places: ModelPlaces, repo: str, cache: Path | None
) -> int:
    """Link or copy what is on this disk already: another revision, huggingface_hub's cache.

    Every candidate is hashed first. Returns the bytes that needn't be downloaded.
    """
    before = _manifest_of(places.published)
    published = {
        file.digest: places.published / file.path
        for file in (before.files if before is not None else ())
        if (places.published / file.path).is_file()
    }
    linked = 0
    for file in files:
        target = places.staging / file.path
        if target.exists():
            continue
        candidates = [published.get(file.digest)]
        if cache is not None:
            candidates.append(find_blob(cache, repo, file))
        for candidate in candidates:
            if candidate is not None and file.matches(candidate):
                target.unlink(missing_ok=True)  # a dangling link
                link_or_copy(candidate, target)
                if not target.samefile(candidate) and not file.matches(target):
                    target.unlink()  # it was changed while it was copied
                    continue
                discard_partial(target)
                linked += file.size_bytes
                break
    return linked


def _announce(
    manifest: Manifest, partials: Iterable[PartialFile], on_event: OnEvent[ModelEvent]
) -> None:
    unfinished = sum(p.record.size_bytes - p.present_bytes for p in partials)
    on_event(
        Planned(
            repo=manifest.repo,
            revision=manifest.revision,
            total_bytes=manifest.size_bytes,
            present_bytes=manifest.size_bytes - unfinished,
            files=tuple((file.path, file.size_bytes) for file in manifest.files),
        )
    )
