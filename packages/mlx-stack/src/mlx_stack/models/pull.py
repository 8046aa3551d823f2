"""Have a model on this disk: found, downloaded or converted, and checked (decision 0056)."""

import re
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from mlx_catalog import Quant, UnreadableModelError
from mlx_catalog.hub import MAX_ANSWER_BYTES, Hub, HubCommit, HubFile
from mlx_catalog.model_files import describe, parse_config
from mlx_stack.child_environment import inherited_environment
from mlx_stack.engines.environment import EngineName, require_environment
from mlx_stack.errors import UsageError
from mlx_stack.home import Home
from mlx_stack.models.convert import Converter, convert, ensure_convertible, ensure_feasible
from mlx_stack.models.disk.hf_cache import find_blob, find_snapshot
from mlx_stack.models.disk.layout import places_of
from mlx_stack.models.disk.local import find_local, remove
from mlx_stack.models.disk.manifest import FileOrigin, FileRecord, is_safe_path, read_manifest
from mlx_stack.models.download.fetch import (
    CONFIG,
    FetchOptions,
    PullResult,
    RevisionGate,
    fetch,
    find_present,
    is_waiting,
    take_waiting,
)
from mlx_stack.models.download.hub_files import HubFiles
from mlx_stack.models.download.selection import (
    PROCESSOR_FILES,
    lacks_processor,
    select_files,
    select_processor,
)
from mlx_stack.models.errors import HubUnreachableError, OfflineError, PullError, WrongContentError
from mlx_stack.models.events import ModelEvent
from mlx_stack.models.find import ModelSource, find, guessing, local_models, source_of
from mlx_stack.models.hub.client import gated, open_hub
from mlx_stack.models.hub.environment import HubEnvironment, read_environment
from mlx_stack.models.own_code import ensure_no_code, ensure_no_code_in
from mlx_stack.open_stack import OpenStack
from mlx_stack.steps import OnEvent, ignore

_LONGEST_WAIT_S = 300.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


def pull(
    opened: OpenStack,
    name: str,
    *,
    quant: Quant | None = None,
    is_forced: bool = False,
    allows_code: bool = False,
    gate: RevisionGate | None = None,
    on_event: OnEvent[ModelEvent] = ignore,
) -> PullResult:
    """Have the model `name` whole on this disk.

    Args:
        name: A catalog id, an alias, or a Hub repository, however it is written.
        quant: The precision; None takes the configured one, or whatever the repository holds.
        is_forced: Download everything again, whatever is here; but use a newer revision that was
            refused, if it is here.
        allows_code: The user allows this model's own Python: it is fetched, and may run.
        gate: What a newer revision must pass before it replaces what is here, unless forced.
        on_event: Called with everything that happens, from this thread.

    Raises:
        UnknownModelError: When it isn't a repository, and the catalog doesn't have it.
        UsageError: When it is a folder, or a variable that says how to reach the Hub is wrong.
        ModelCodeError: When it brings Python code that wasn't allowed.
        ModelWorseError: When a newer revision does worse than the one that is here.
        PullError: When it can't be completed; what was fetched is kept for the next time.
    """
    began = time.monotonic()
    home, model_dir = opened.home, opened.config.model_dir
    source = source_of(find(opened, name), quant, opened.config.default_quant)
    entry = opened.catalog.by_repo(source.origin.repo)
    if entry is not None and entry.processor_repo != source.origin.repo:
        source = replace(source, processor_repo=entry.processor_repo)
    home.create()
    model_dir.mkdir(parents=True, exist_ok=True)
    environment = read_environment()
    if not environment.is_offline:
        environment = environment.ready()
    puller = _Puller(
        home,
        model_dir,
        environment,
        is_forced=is_forced,
        allows_code=allows_code,
        gate=None if is_forced else gate,
        on_event=on_event,
    )
    with guessing(opened, source.origin):
        result = puller.have(source)
    note = "\n".join(filter(None, (source.note, result.note)))
    return replace(result, seconds=time.monotonic() - began, note=note)


def whole_here(opened: OpenStack, name: str, quant: Quant | None) -> PullResult | None:
    """The model `name` where all of it is on this disk, whatever the Hub has by now."""
    whole = (each for each in local_models(opened, find(opened, name), quant) if each.is_whole)
    found = next(whole, None)
    return PullResult("present", found) if found is not None else None


@dataclass(frozen=True, slots=True)
class _Puller:
    """What the steps of one pull share."""

    home: Home
    model_dir: Path
    environment: HubEnvironment
    is_forced: bool
    allows_code: bool
    gate: RevisionGate | None
    on_event: OnEvent[ModelEvent]

    def have(self, source: ModelSource) -> PullResult:
        """The model of `source`, fetched where it must be."""
        if self.environment.is_offline:
            return self._have_offline(source)
        where = (source.origin.repo, source.origin.revision or "main")
        try:
            with self._open_hub(*where) as hub:
                commit = hub.look_up(*where)
                present = None if self.is_forced else self._present(source, commit.commit)
                if present is not None and self._has_newest_processor(present.path):
                    return present
                files = self._list_files(hub, commit)
                config = self._config(commit, files, hub)
            files += self._processor_files(source, files)
        except HubUnreachableError as error:
            present = None if self.is_forced else self._present(source, source.origin.commit)
            if present is None:
                raise
            note = f"{error.message} The local model was not compared with it."
            return replace(present, note=note)
        with HubFiles(self.environment, commit) as origin:
            return self._fetch(source, commit, files, config, origin)

    def _have_offline(self, source: ModelSource) -> PullResult:
        repo = source.origin.repo
        if self.is_forced:
            raise OfflineError(f"{repo} should be downloaded again")
        present = self._present(source, source.origin.commit)
        if present is not None:
            note = "HF_HUB_OFFLINE is set: the Hub was not asked for a newer version."
            return replace(present, note=note)
        cached = find_snapshot(self.environment.cache, repo, source.origin.revision or "main")
        if cached is None:
            raise OfflineError(f"{repo} is not on this disk")
        commit, every = cached
        files = select_files(repo, every, allows_code=self.allows_code)
        files += self._processor_files(source, files)
        return self._fetch(source, commit, files, self._config(commit, files, None), None)

    def _list_files(self, hub: Hub, commit: HubCommit) -> tuple[FileRecord, ...]:
        """The files of a commit that MLX needs, each with its size and hash."""
        files = self._list_every(hub, commit)
        return select_files(commit.repo, files, allows_code=self.allows_code)

    def _list_every(self, hub: Hub, commit: HubCommit) -> tuple[FileRecord, ...]:
        """The files of a commit, each with its size and hash.

        Raises:
            GatedModelError: When they need a token and there is none.
            PullError: When a file has no hash, or a path that leads out of its folder.
        """
        if commit.is_gated and self.environment.token is None:
            raise gated(self.environment.shown_endpoint, commit.repo)
        return tuple(_record(file, commit.repo) for file in hub.list_files(commit))

    def _processor_files(
        self, source: ModelSource, own: tuple[FileRecord, ...]
    ) -> tuple[FileRecord, ...]:
        """The files of the tokenizer and the processor that the weights need and come without.

        Raises:
            PullError: They can't be had.
        """
        repo = source.processor_repo
        if repo is None or not lacks_processor(own):
            return ()
        try:
            commit, files = self._other_repository(repo)
            return select_processor(FileOrigin(repo, commit.commit), files, own)
        except PullError as error:
            need = f"{source.origin.repo} comes without its tokenizer and processor."
            error.message = f"{need} {error.message}"
            raise

    def _other_repository(self, repo: str) -> tuple[HubCommit, tuple[FileRecord, ...]]:
        """The newest commit of a repository with its files; of the cache, where that must do."""
        if self.environment.is_offline:
            cached = find_snapshot(self.environment.cache, repo, "main", needed=PROCESSOR_FILES)
            if cached is None:
                raise OfflineError(f"{repo} is not on this disk")
            return cached
        with self._open_hub(repo) as hub:
            commit = hub.look_up(repo)
            return commit, self._list_every(hub, commit)

    def _has_newest_processor(self, folder: Path) -> bool:
        """Whether the files that a model has from another repository are of its newest commit."""
        manifest = read_manifest(folder)
        for origin in {file.origin for file in (manifest.files if manifest is not None else ())}:
            if origin is not None:
                with self._open_hub(origin.repo) as hub:
                    if hub.look_up(origin.repo).commit != origin.revision:
                        return False
        return True

    def _open_hub(self, repo: str, revision: str = "main") -> AbstractContextManager[Hub]:
        return open_hub(
            self.environment, repo, revision, attempts=5, longest_wait_s=_LONGEST_WAIT_S
        )

    def _present(self, source: ModelSource, revision: str | None) -> PullResult | None:
        """The model where it is here already, whole and of that commit."""
        candidates = [places_of(self.model_dir, source.origin.repo, source.quant)]
        if not source.is_converted:
            candidates.insert(0, places_of(self.model_dir, source.origin.repo))
        for places in candidates:
            model = find_present(places, revision, allows_code=self.allows_code)
            if model is not None and (source.model or source.quant in (None, model.quant)):
                manifest = read_manifest(model.path)
                if source.processor_repo and manifest and lacks_processor(manifest.files):
                    continue
                ensure_no_code(model.path)
                return PullResult("present", model)
        return None

    def _config(self, commit: HubCommit, files: tuple[FileRecord, ...], hub: Hub | None) -> bytes:
        """The `config.json` of a commit, which says what the rest of it is before it comes."""
        repo, record = commit.repo, next(file for file in files if file.path == CONFIG)
        places = places_of(self.model_dir, repo)
        cached = find_blob(self.environment.cache, repo, record)
        here = (places.staging / CONFIG, places.published / CONFIG, cached)
        for path in () if self.is_forced else here:
            if path is not None and path.is_file() and record.matches(path):
                return path.read_bytes()
        if hub is None:
            raise OfflineError(f"{CONFIG} of {repo} is not on this disk")
        if record.size_bytes > MAX_ANSWER_BYTES:
            raise WrongContentError(
                f"{CONFIG} of {repo} has {record.size_bytes} bytes: too many to be read."
            )
        content, hasher = hub.read_config(commit), record.hasher()
        hasher.update(content)
        if hasher.hexdigest() != record.digest:
            raise WrongContentError(f"{repo}: {CONFIG} differs from its hash.")
        return content

    def _fetch(
        self,
        source: ModelSource,
        commit: HubCommit,
        files: tuple[FileRecord, ...],
        config: bytes,
        origin: HubFiles | None,
    ) -> PullResult:
        """The model of a commit; without an `origin` it must all be in huggingface_hub's cache."""
        fields, quant = _read_configuration(config, commit.repo), source.quant
        if not self.allows_code:
            ensure_no_code_in(fields, commit.repo)
        options = FetchOptions(
            cache=self.environment.cache,
            model=source.model,
            is_forced=self.is_forced,
            allows_code=self.allows_code,
            config=config,
            gate=self.gate,
        )
        if quant is not None and (
            source.is_converted
            or (source.model is None and _must_convert(commit.repo, fields, quant))
        ):
            places = places_of(self.model_dir, commit.repo, quant)
            waiting = take_waiting(places, commit.commit, options, self.on_event)
            if waiting is not None:
                return waiting
            converter = _converter(self.home)
            ensure_convertible(commit.repo, fields, converter)
            return self._convert(quant, converter, commit, files, origin, options)
        places = places_of(self.model_dir, commit.repo)
        waiting = take_waiting(places, commit.commit, options, self.on_event)
        return waiting or fetch(commit, files, origin, places, options, self.on_event)

    def _convert(
        self,
        quant: Quant,
        converter: Converter,
        commit: HubCommit,
        files: tuple[FileRecord, ...],
        origin: HubFiles | None,
        options: FetchOptions,
    ) -> PullResult:
        """Download the original, have it converted, and let it go again."""
        base = places_of(self.model_dir, commit.repo)
        had_base = find_present(base) is not None
        size = sum(file.size_bytes for file in files)
        here = find_local(self.model_dir, base.folder)
        ensure_feasible(
            commit.repo, quant, size, here.present_bytes if here else 0, self.model_dir, converter
        )
        as_base = replace(options, model=None, gate=None)
        original = fetch(commit, files, origin, base, as_base, self.on_event)
        places = places_of(self.model_dir, commit.repo, quant)
        try:
            converted = convert(original.model, quant, places, converter, options, self.on_event)
        except BaseException:
            if not had_base and is_waiting(places):
                remove(self.model_dir, original.model)
            raise
        if not had_base:
            remove(self.model_dir, original.model)
        return replace(
            original, outcome=converted.outcome, model=converted.model, note=converted.note
        )


def _read_configuration(content: bytes, repo: str) -> dict[str, object]:
    """The `config.json` of a repository.

    Raises:
        WrongContentError: It describes no model.
    """
    try:
        return parse_config(content, f"{CONFIG} of {repo}")
    except UnreadableModelError as error:
        problem = f"{error.model} is not what MLX expects: {error.reason}."
        raise WrongContentError(problem) from error


def _must_convert(repo: str, config: Mapping[str, object], quant: Quant) -> bool:
    """Whether a repository holds plain weights, and others are asked for.

    Raises:
        UsageError: It holds weights that can't become what is asked.
    """
    model = describe(repo, config)
    if model.quant == quant:
        return False
    if model.is_plain and quant.is_made_here:
        return True
    held = model.quant or model.quantization or "unusually quantized"
    raise UsageError(
        f"{repo} contains {held} weights, which can't be converted to {quant}.",
        hint="Pull it without --quant, or look for another conversion with "
        "`mlx-stack models search NAME`.",
    )


def _record(file: HubFile, repo: str) -> FileRecord:
    if not is_safe_path(file.path):
        raise PullError(f"{repo} names a file outside its folder: {file.path!r}.")
    if not (_SHA256.fullmatch(file.digest) if file.algorithm == "sha256" else file.digest):
        raise PullError(f"The Hub gives no hash for {file.path}.")
    return FileRecord(
        path=file.path, size_bytes=file.size_bytes, algorithm=file.algorithm, digest=file.digest
    )


def _converter(home: Home) -> Converter:
    return Converter(
        python=require_environment(home.engines, EngineName.VLLM_MLX).python,
        available_memory_bytes=psutil.virtual_memory().available,
        environment={
            **inherited_environment(),
            "HOME": "/dev/null",
            "HF_HOME": str(home.engines / "huggingface"),
            "HF_HUB_OFFLINE": "1",
        },
    )
