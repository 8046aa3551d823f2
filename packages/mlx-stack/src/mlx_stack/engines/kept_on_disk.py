"""Lets conversations that the engine keeps outlive it, in a folder of the tier that asked for it.

The pinned engine's `--ssd-cache-dir` writes only what memory has no room for, and gives a window's
cache back as one that holds every key, which changes answers. Here the caches that `checkpoints.py`
keeps are written as they are, once a conversation has rested, when memory needs its room, and when
the engine ends; the next engine looks for the beginning of a prompt among them (decision 0106).

Each conversation is one safetensors file that is called by its own hash: what is damaged or isn't
ours is removed, never loaded. `guard.py` applies this in the engine's own process, so this file
imports nothing but the standard library, and no file of the engine is changed.
"""

import base64
import fcntl
import hashlib
import json
import logging
import os
import plistlib
import re
import shutil
import stat
import subprocess
import sys
import threading
import time
import weakref
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, cast

VARIABLE = "MLX_ENGINE_KEPT"
"""Names the folder and its bounds, see `DiskBounds`; nothing is written where it isn't set."""
FILE = re.compile(r"([0-9a-f]{64})\.safetensors")
KEPT_DAYS = 14
"""A conversation that nobody went on with for so long is removed."""
LARGEST_SHARE = 10
"""All files together are never more than one part in so many of the free disk."""

_REST_S = 300.0
"""An agent's turns follow each other in seconds, and each would write the whole conversation."""
_LOOK_S = 5.0
_SWEEP_EVERY_S = 3600.0
_END_WITHIN_S = 5.0
"""A stop may take ten seconds, and the engine needs its own."""
_LEAST_GAIN_TOKENS = 64
"""Fewer aren't worth reading a file for."""
_LONGEST_HEADER_BYTES = 2**25
_BLOCK_BYTES = 2**20
_SAMPLES, _SAMPLE_BYTES = 64, 2**16
_WRITING = "writing.part"
_FORMAT = 1
_CACHES = "mlx_lm.models.cache"
_KINDS = frozenset({"KVCache", "RotatingKVCache", "ArraysCache", "CacheList"})
_PACKAGES = ("vllm-mlx", "mlx", "mlx-lm", "mlx-vlm", "transformers")
_OF_NO_MATTER = frozenset(
    {
        *("--served-model-name", "--host", "--port", "--offline", "--enable-metrics", "--timeout"),
        *("--max-tokens", "--max-request-tokens", "--enable-auto-tool-choice"),
        *("--tool-call-parser", "--reasoning-parser", "--continuous-batching", "--max-num-seqs"),
        *("--cache-memory-mb", "--prefill-step-size", "--prefill-batch-size", "--stream-interval"),
        *("--completion-batch-size", "--default-temperature", "--default-top-p"),
        *("--default-top-k", "--default-min-p", "--rate-limit"),
    }
)
"""Flags that don't change what a cache of a prompt holds; any other makes it another cache."""
_FAULTS = (
    *(ArithmeticError, AttributeError, LookupError, MemoryError),
    *(OSError, RuntimeError, TypeError, ValueError),
)
"""What a file or a cache of an unforeseen kind may raise; the request goes on without it."""

_log = logging.getLogger("vllm_mlx.kept_on_disk")


@dataclass(frozen=True, slots=True)
class DiskBounds:
    """Where conversations are written, and how many.

    Attributes:
        most_bytes: What all files may have together.
        rest_s: How long a conversation has gone without a turn when it is written.
    """

    folder: Path
    most_bytes: int
    rest_s: float = _REST_S

    def render(self) -> str:
        """As it stands in the environment."""
        return json.dumps([str(self.folder), self.most_bytes, self.rest_s])


def parse(text: str) -> DiskBounds:
    """What `render` has written."""
    folder, most_bytes, rest_s = json.loads(text)
    return DiskBounds(Path(folder), most_bytes, rest_s)


def allowed_bytes(most_bytes: int, free_bytes: int, own_bytes: int) -> int:
    """What all files may have together: the tier's own bound, and a share of the free disk."""
    return min(most_bytes, (free_bytes + own_bytes) // LARGEST_SHARE)


def apply() -> None:
    """Let the engine's batching half keep conversations on disk, where it is told to."""
    given = os.environ.pop(VARIABLE, "")
    if not given or find_spec("vllm_mlx") is None or find_spec("vllm_mlx.scheduler") is None:
        return
    scheduler: Any = import_module("vllm_mlx.scheduler").Scheduler
    begin, end = scheduler.__init__, scheduler.close_ssd_tier

    def begin_with_disk(self: Any, *args: Any, **more: Any) -> None:
        begin(self, *args, **more)
        store = self.memory_aware_cache
        if not hasattr(store, "adopt"):  # nothing is kept, or by the engine's own rules
            return
        try:
            disk = _open(parse(given), self.has_requests)
        except _FAULTS as error:
            _log.warning("no conversation is kept on disk: %s", error)
            return
        kind = store.__class__
        store.__class__ = type("KeptOnDisk", (KeptOnDisk, kind), {})
        store.disk = disk
        disk.start(store)

    def end_with_disk(self: Any) -> None:
        disk = getattr(self.memory_aware_cache, "disk", None)
        if disk is not None:
            disk.end(self.memory_aware_cache)
        end(self)

    scheduler.__init__, scheduler.close_ssd_tier = begin_with_disk, end_with_disk


class KeptOnDisk:
    """What the store of kept prompts, the other base of its class, does with a disk.

    Attributes:
        disk: What is there.
    """

    disk: "Disk"

    def fetch(self: Any, tokens: Sequence[int]) -> Any:
        """As without a disk, after what it holds of the prompt was brought to memory."""
        self.disk.bring(self, tokens)
        return _without_disk(self).fetch(tokens)

    def parting(self: Any, tokens: Sequence[int]) -> int:
        """Where the prompt parts from what is kept and most alike."""
        return max(_without_disk(self).parting(tokens), self.disk.parting(self, tokens))

    def clear(self: Any) -> None:
        """Forget everything, on disk as well."""
        _without_disk(self).clear()
        self.disk.clear()

    def _evict_lru(self: Any) -> None:
        entry = next(iter(self._entries.values()), None)
        _without_disk(self)._evict_lru()  # noqa: SLF001 - which it calls itself
        if entry is not None:
            self.disk.offer(entry)


def _without_disk(store: Any) -> Any:
    return super(KeptOnDisk, store)


# what is there


@dataclass(frozen=True, slots=True)
class Kept:
    """A conversation on disk.

    Attributes:
        name: Of its file.
        offsets: Its checkpoints.
        is_cuttable: Whether it needs none.
    """

    name: str
    size_bytes: int
    tokens: Sequence[int]
    offsets: tuple[int, ...]
    is_cuttable: bool

    def usable(self, store: Any, tokens: Sequence[int]) -> int:
        """How many of a prompt's tokens its cache can be put together for."""
        alike = min(store.shared(self.tokens, tokens), len(tokens) - 1)
        return store.usable(alike, len(self.tokens), self.offsets, is_cuttable=self.is_cuttable)


class Disk:
    """The conversations of a tier on disk.

    Args:
        identity: What else than its tokens a cache depends on.
        is_busy: Whether a request is running.
    """

    def __init__(
        self, bounds: DiskBounds, identity: str, lock: BinaryIO, is_busy: Callable[[], bool]
    ) -> None:
        self._bounds, self._identity, self._is_busy = bounds, identity, is_busy
        self._locked_by = lock
        self._known: dict[str, Kept] = {}
        self._guard = threading.RLock()
        self._changed = threading.Event()
        self._evicted: tuple[Any, int] | None = None
        self._forgotten = 0
        self._too_large: set[str] = set()
        self._swept_at = time.monotonic()
        self._deadline: float | None = None
        self._ended = False
        self._writer: threading.Thread | None = None
        for name in sorted(os.listdir(bounds.folder)):  # noqa: PTH208 - names are all it takes
            self._look_at(name)
        self._make_room(0)

    def start(self, store: Any) -> None:
        """Write what rests from now on, in a thread of its own."""
        size_bytes = sum(each.size_bytes for each in self._known.values())
        _log.info("conversations on disk: %d, %d MB", len(self._known), size_bytes // 2**20)
        self._writer = threading.Thread(
            target=self._write_what_rests, args=(store,), name="kept-on-disk", daemon=True
        )
        self._writer.start()

    def parting(self, store: Any, tokens: Sequence[int]) -> int:
        """Where a prompt parts from what is on disk and most alike."""
        with self._guard:
            return max(
                (store.shared(each.tokens, tokens) for each in self._known.values()), default=0
            )

    def bring(self, store: Any, tokens: Sequence[int]) -> None:
        """Have in memory what holds more of the prompt than what is there."""
        with self._guard:
            gains = {
                name: each.usable(store, tokens)
                for name, each in self._known.items()
                if name not in self._too_large
            }
            least = store.best(tokens)[1] + _LEAST_GAIN_TOKENS
            for name in sorted(gains, key=gains.__getitem__, reverse=True):
                if gains[name] < least or self._load(store, name):
                    return

    def _load(self, store: Any, name: str) -> bool:
        """Whether a file is whole; it is in memory then, or too large for it."""
        path = self._path(name)
        try:
            cache, checkpoints = _read(path, name)
        except _FAULTS as error:
            _log.warning("a conversation on disk is damaged: %s", type(error).__name__)
            self._remove(name)
            return False
        entry = store.adopt(tuple(self._known[name].tokens), cache, checkpoints)
        if entry is None:
            self._too_large.add(name)
        else:
            entry.name_on_disk = name
            with suppress(OSError):
                os.utime(path)
        return True

    def offer(self, entry: Any) -> None:
        """Write what memory has no room for any more, unless another is being written."""
        if self._evicted is None and not self._is_kept(entry):
            self._evicted = entry, self._forgotten
            self._changed.set()

    def clear(self) -> None:
        """Remove every file; not those of an engine that has ended, which only empties itself."""
        with self._guard:
            if self._ended:
                return
            self._forgotten += 1
            self._evicted = None
            for name in list(self._known):
                self._remove(name)

    def end(self, store: Any) -> None:
        """Write what isn't there yet, the latest first, as far as the time allows."""
        with self._guard:
            if self._ended:
                return
            self._deadline, self._ended = time.monotonic() + _END_WITHIN_S, True
        self._changed.set()
        if self._writer is not None:
            self._writer.join(_END_WITHIN_S)
        for entry in reversed(_entries_of(store)):
            if time.monotonic() > self._deadline:
                break
            self._write(store, entry, self._forgotten)
        self._locked_by.close()

    # writing

    def _write_what_rests(self, store: Any) -> None:
        seen: dict[int, tuple[weakref.ref[Any], float]] = {}
        while not self._ended:
            self._changed.wait(_LOOK_S)
            self._changed.clear()
            evicted = self._evicted
            if evicted is not None:
                self._write(store, *evicted)
                evicted = self._evicted = None
            seen = self._write_those_seen(store, seen)
            if time.monotonic() - self._swept_at > _SWEEP_EVERY_S:
                self._swept_at = time.monotonic()
                self._make_room(0)

    def _write_those_seen(
        self, store: Any, seen: dict[int, tuple[weakref.ref[Any], float]]
    ) -> dict[int, tuple[weakref.ref[Any], float]]:
        """Write what has rested; since when each is known comes back, with nothing held by it."""
        now, forgotten = time.monotonic(), self._forgotten
        known: dict[int, tuple[weakref.ref[Any], float]] = {}
        for entry in _entries_of(store):
            before = seen.get(id(entry))
            is_known = before is not None and before[0]() is entry
            known[id(entry)] = before if before and is_known else (weakref.ref(entry), now)
        entry = None
        for reference, since in known.values():
            if self._ended or self._evicted is not None or self._is_busy():
                break
            entry = reference()
            # one that memory had no room for meanwhile comes by `offer`
            if now - since >= self._bounds.rest_s and any(
                each is entry for each in _entries_of(store)
            ):
                self._write(store, entry, forgotten)
            entry = None
        return known

    def _is_kept(self, entry: Any) -> bool:
        name = getattr(entry, "name_on_disk", None)
        return name is not None and (name == "" or name in self._known)

    def _write(self, store: Any, entry: Any, forgotten: int) -> None:
        """One conversation; afterwards those that it goes on with are gone.

        Args:
            forgotten: How often everything was to be forgotten when it was still to be kept.
        """
        if self._is_kept(entry):
            return
        part = self._bounds.folder / _WRITING
        try:
            arrays, said = packed(entry.tokens, entry.cache, getattr(entry, "checkpoints", {}))
            size_bytes = sum(each.nbytes for each in arrays.values())
            if not self._make_room(size_bytes):
                return
            with _created(part) as file:
                output = _Output(file, lambda: self._deadline)
                said |= {"identity": self._identity}
                metadata = {name: json.dumps(each) for name, each in said.items()}
                import_module("mlx.core").save_safetensors(output, arrays, metadata)
            name = f"{output.digest.hexdigest()}.safetensors"
            with self._guard:
                if forgotten != self._forgotten:
                    part.unlink()
                    return
                part.rename(self._path(name))
                self._look_at(name)
        except _FAULTS as error:
            _log.warning("a conversation isn't kept on disk: %s", type(error).__name__)
            part.unlink(missing_ok=True)
            entry.name_on_disk = ""  # not again
            return
        entry.name_on_disk = name
        with self._guard:
            for each in list(self._known.values()):
                needed = len(each.tokens) if each.is_cuttable else max(each.offsets, default=0)
                alike = store.shared(each.tokens, entry.tokens)
                if each.name != name and alike >= (needed or len(each.tokens)):
                    self._remove(each.name)

    def _make_room(self, new_bytes: int) -> bool:
        """Remove what is old and, the longest unused first, what is too much."""
        with self._guard:
            ages = sorted((self._unused_since(name), name) for name in self._known)
            for unused_since, name in ages:
                if time.time() - unused_since > KEPT_DAYS * 86_400:
                    self._remove(name)
            own_bytes = sum(each.size_bytes for each in self._known.values())
            free_bytes = shutil.disk_usage(self._bounds.folder).free
            allowed = allowed_bytes(self._bounds.most_bytes, free_bytes, own_bytes)
            if new_bytes > allowed:
                return False
            for _, name in ages:
                if own_bytes + new_bytes <= allowed:
                    break
                if name in self._known:
                    own_bytes -= self._known[name].size_bytes
                    self._remove(name)
            return True

    # files

    def _path(self, name: str) -> Path:
        return self._bounds.folder / name

    def _unused_since(self, name: str) -> float:
        try:
            return self._path(name).lstat().st_mtime
        except OSError:
            return 0.0

    def _look_at(self, name: str) -> None:
        """Know a file, or remove it if it isn't one of ours; its bytes are compared when needed."""
        path = self._path(name)
        try:
            if FILE.fullmatch(name) is None:
                raise ValueError(name)
            with _opened(path) as file:
                kept = parse_header(name, file)
            if kept[0] != self._identity:
                raise ValueError(name)
        except _FAULTS:
            self._remove(name)
            return
        with self._guard:
            self._known[name] = kept[1]

    def _remove(self, name: str) -> None:
        self._known.pop(name, None)
        with suppress(OSError):  # a folder isn't ours, and stays
            self._path(name).unlink()


def _entries_of(store: Any) -> list[Any]:
    with store._memory_lock:  # noqa: SLF001 - which the engine's own thread holds to change them
        return list(store._entries.values())  # noqa: SLF001


# one file


class _Output:
    """A file that is hashed on its way, and given up at the deadline."""

    def __init__(self, file: BinaryIO, deadline: Callable[[], float | None]) -> None:
        self._file, self._deadline = file, deadline
        self.digest = hashlib.sha256()

    def write(self, block: Any) -> int:
        """As a file does."""
        view = memoryview(block)
        for begin in range(0, len(view), _BLOCK_BYTES):
            deadline = self._deadline()
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError
            piece = view[begin : begin + _BLOCK_BYTES]
            self.digest.update(piece)
            self._file.write(piece)
        return len(view)

    # what MLX asks of a file before it writes to it

    closed = False

    def readable(self) -> bool:
        """Never."""
        return False

    def writable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """As MLX wants it."""
        return True

    def tell(self) -> int:
        """How far it is."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        """Elsewhere in the file."""
        return self._file.seek(offset, whence)


def packed(
    tokens: Sequence[int], cache: Sequence[Any], checkpoints: Mapping[int, Sequence[Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of an entry by name, and what else makes it up.

    Raises:
        TypeError: A layer's cache is of a kind that isn't known.
    """
    arrays: dict[str, Any] = {}
    whole, known = _tree(list(cache), arrays), {at: list(each) for at, each in checkpoints.items()}
    marks = {at: None if at == len(tokens) else _tree(each, arrays) for at, each in known.items()}
    said = {
        "tokens": base64.b64encode(array("I", tokens).tobytes()).decode(),
        "cache": whole,
        "checkpoints": {str(at): each for at, each in marks.items()},
        "is_cuttable": all(type(each).__name__ == "KVCache" for each in cache),
    }
    return arrays, said


def _tree(value: Any, arrays: dict[str, Any]) -> Any:
    """A value as JSON: a layer by its attributes, an array by its name among `arrays`."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_tree(each, arrays) for each in cast("Sequence[Any]", value)]}
    if isinstance(value, import_module("mlx.core").array):
        name = str(len(arrays))
        arrays[name] = value
        return {"array": name}
    kind = cast("type[object]", type(value))
    if kind.__module__ != _CACHES or kind.__name__ not in _KINDS:
        raise TypeError(kind.__name__)
    fields = {
        name: _tree(each, arrays) for name, each in cast("dict[str, Any]", vars(value)).items()
    }
    return {"layer": kind.__name__, "fields": fields}


def _value(tree: Any, arrays: Mapping[str, Any]) -> Any:
    """What `_tree` was made of.

    Raises:
        ValueError: It isn't such a tree.
    """
    if tree is None or isinstance(tree, bool | int):
        return tree
    match cast("dict[str, Any]", tree):
        case {"list": values}:
            return [_value(each, arrays) for each in values]
        case {"tuple": values}:
            return tuple(_value(each, arrays) for each in values)
        case {"array": name}:
            return arrays[name]
        case {"layer": name, "fields": fields} if name in _KINDS:
            kind = getattr(import_module(_CACHES), name)
            layer = kind.__new__(kind)
            for field, each in fields.items():
                setattr(layer, field, _value(each, arrays))
            return layer
        case _:
            raise ValueError("not a cache")


def parse_header(name: str, file: BinaryIO) -> tuple[str, Kept]:
    """What a file says of itself: the identity it was written for, and what it holds.

    Raises:
        ValueError: It is no file of ours, or its end is missing.
    """
    header = _header(file)
    said = header.pop("__metadata__")
    end = max((each["data_offsets"][1] for each in header.values()), default=0)
    size_bytes = os.fstat(file.fileno()).st_size
    if file.tell() + end != size_bytes:
        raise ValueError("cut off")
    tokens = array("I", base64.b64decode(json.loads(said["tokens"]), validate=True))
    offsets = tuple(sorted(map(int, json.loads(said["checkpoints"]))))
    if not tokens or any(not 0 < each <= len(tokens) for each in offsets):
        raise ValueError("no tokens")
    is_cuttable = json.loads(said["is_cuttable"]) is True
    return json.loads(said["identity"]), Kept(name, size_bytes, tokens, offsets, is_cuttable)


def _header(file: BinaryIO) -> dict[str, Any]:
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= _LONGEST_HEADER_BYTES:
        raise ValueError("no header")
    return json.loads(file.read(length))


def _read(path: Path, name: str) -> tuple[list[Any], dict[int, list[Any]]]:
    """A file's cache and its checkpoints.

    Raises:
        ValueError: Its bytes aren't those that were written.
    """
    with _opened(path) as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != name.partition(".")[0]:
            raise ValueError("damaged")
    mx: Any = import_module("mlx.core")
    arrays, said = mx.load(str(path), return_metadata=True)
    mx.eval(list(arrays.values()))
    cache: list[Any] = _value(json.loads(said["cache"]), arrays)
    checkpoints: dict[int, list[Any]] = {}
    for at, tree in json.loads(said["checkpoints"]).items():
        layers = _value(tree, arrays)
        if layers is None:  # its end, where what can't be cut stands as it is
            layers = [None if type(each).__name__ == "KVCache" else each for each in cache]
        checkpoints[int(at)] = layers
    return cache, checkpoints


def _opened(path: Path) -> BufferedReader:
    """A file of ours to read.

    Raises:
        OSError: It isn't there, or is a link.
        ValueError: It is no file, or belongs to somebody else.
    """
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
        file.close()
        raise ValueError("not a file of ours")
    return file


def _created(path: Path) -> BinaryIO:
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o600), "wb")


# the folder


def _open(bounds: DiskBounds, is_busy: Callable[[], bool]) -> Disk:
    """The folder, made if it isn't there, for this engine alone.

    Raises:
        ValueError: It is a link, or somebody else's.
        OSError: It can't be made, or another engine has it.
    """
    for folder in (bounds.folder.parent, bounds.folder):
        own_folder(folder)
    exclude_from_backups(bounds.folder)
    lock = _created_or_opened(bounds.folder.with_suffix(".lock"))
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    identity = identify(Path(sys.argv[2]), sys.argv[3:])
    return Disk(bounds, identity, lock, is_busy)


def own_folder(path: Path) -> None:
    """Make a folder that only this user can look into.

    Raises:
        ValueError: What is there is no folder of this user's.
    """
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise ValueError(f"{path} is not a folder of this user")
    if status.st_mode & 0o077:
        path.chmod(0o700)


def exclude_from_backups(folder: Path) -> None:
    """Have Time Machine leave a folder out, where there is one."""
    program = shutil.which("xattr", path="/usr/bin")
    if program is None:
        return
    value = plistlib.dumps("com.apple.backupd", fmt=plistlib.FMT_BINARY).hex()
    attribute = "com.apple.metadata:com_apple_backup_excludeItem"
    done = subprocess.run(
        [program, "-wx", attribute, value, str(folder)], check=False, capture_output=True
    )
    if done.returncode != 0:
        raise OSError("the folder can't be excluded from Time Machine")


def _created_or_opened(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b")


def identify(model: Path, flags: Sequence[str]) -> str:
    """A digest of what a cache depends on besides the prompt: model, engine, and how it is served.

    Small files count by their content; of weights, it is their size, their time and samples.
    """
    digest = hashlib.sha256(f"{_FORMAT}\n".encode())
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            digest.update(f"{package} {version(package)}\n".encode())
    for words in sorted(_that_matter(flags)):
        digest.update(f"{words}\n".encode())
    for path in sorted(each for each in model.rglob("*") if each.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(model)} {size}\n".encode())
        with path.open("rb") as file:
            if size > 2 * _SAMPLES * _SAMPLE_BYTES:
                digest.update(f"{path.stat().st_mtime_ns}\n".encode())
            for begin, length in _pieces(size):
                file.seek(begin)
                digest.update(file.read(length))
    return digest.hexdigest()


def _pieces(size: int) -> Iterator[tuple[int, int]]:
    if size <= 2 * _SAMPLES * _SAMPLE_BYTES:
        yield 0, size
        return
    for number in range(_SAMPLES):
        yield number * (size - _SAMPLE_BYTES) // (_SAMPLES - 1), _SAMPLE_BYTES


def _that_matter(flags: Sequence[str]) -> Iterator[str]:
    """`["--port", "1", "--a", "--b", "2"]` → `--a`, `--b 2`."""
    whole: list[list[str]] = []
    for word in flags:
        if word.startswith("--"):
            whole.append([word])
        elif whole:
            whole[-1].append(word)
    return (" ".join(each) for each in whole if each[0] not in _OF_NO_MATTER)
