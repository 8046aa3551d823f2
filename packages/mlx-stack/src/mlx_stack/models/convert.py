"""Converting a repository's weights with mlx-lm, in the engine's environment.

mlx-lm reads the original folder shard by shard and writes another one, quantized; this starts it,
watches it, and leaves either a whole staged model or nothing.
"""

import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlx_catalog import Quant
from mlx_stack.models.disk.layout import GB, ModelPlaces, ensure_room
from mlx_stack.models.disk.local import LocalModel, inspect_folder, own_files, write_inventory
from mlx_stack.models.disk.manifest import FileRecord, Manifest, record_of
from mlx_stack.models.download.fetch import (
    FetchOptions,
    PullResult,
    find_present,
    is_waiting,
    publish,
)
from mlx_stack.models.errors import ConversionError
from mlx_stack.models.events import Converting, ModelEvent
from mlx_stack.steps import OnEvent, ignore

_LARGEST_SHARD_BYTES = 5 << 30  # `mlx_lm.utils.MAX_FILE_SIZE_GB`
_RUNTIME_BYTES = 1 << 30
_KEPT_LINES = 20
_TICK_S = 0.5
_UNKNOWN = 3
_IS_KNOWN = f"""
import importlib.util, sys
from mlx_lm import utils
name = utils.MODEL_REMAPPING.get(sys.argv[1], sys.argv[1])
sys.exit(0 if importlib.util.find_spec("mlx_lm.models." + name) else {_UNKNOWN})
"""
"""What `mlx_lm.utils` does to find a model's class, without loading it."""


@dataclass(frozen=True, slots=True)
class Converter:
    """What a conversion runs with.

    Attributes:
        python: The interpreter of the engine's environment, which has mlx-lm.
    """

    python: Path
    available_memory_bytes: int
    environment: Mapping[str, str]


def expected_bytes(original_bytes: int, quant: Quant) -> int:
    """What weights of 16 bits come to when they are quantized, scales and biases included."""
    return int(original_bytes * quant.bits_per_weight / Quant.BF16.bits)


def needed_memory_bytes(original_bytes: int) -> int:
    """What mlx-lm needs at once: it holds one shard as it was and as it becomes."""
    return 2 * min(original_bytes, _LARGEST_SHARD_BYTES) + _RUNTIME_BYTES


def convert(
    original: LocalModel,
    quant: Quant,
    places: ModelPlaces,
    converter: Converter,
    options: FetchOptions,
    on_event: OnEvent[ModelEvent] = ignore,
) -> PullResult:
    """Have the weights of `original` quantized and published in `places`.

    Args:
        original: A whole model folder with 16-bit weights, of a known repository and commit.
        quant: A format that mlx-lm makes.
        options: How the original was fetched: forced, it is converted again.
        on_event: Called with what mlx-lm says and how far it is.

    Raises:
        ConversionError: mlx-lm failed; nothing of the attempt is left.
    """
    assert original.repo is not None
    assert original.revision is not None
    repo = original.repo
    with places.hold(repo, on_event):
        present = find_present(places, original.revision, allows_code=options.allows_code)
        if present is not None and not options.is_forced:
            return PullResult("present", present)
        size = expected_bytes(original.size_bytes, quant)
        with _removed_on_failure(places):
            command = _command(converter.python, original.path, quant, places.staging)

            def tell(line: str) -> None:
                on_event(Converting(line, _size(places.staging), size))

            _run(command, places.staging.parent, converter.environment, repo, tell)
            manifest = Manifest(
                repo=repo,
                revision=original.revision,
                quant=quant,
                origin="converted",
                files=_records(places.staging, repo),
                model=options.model,
            )
            converted, note = publish(places, manifest, options)
        write_inventory(places.model_dir)
    return PullResult("converted", converted, note=note)


def _command(python: Path, original: Path, quant: Quant, target: Path) -> tuple[str, ...]:
    places = ("--hf-path", str(original.absolute()), "--mlx-path", str(target.absolute()))
    size = ("--q-bits", str(quant.bits), "--q-group-size", str(quant.group_size))
    size += ("--q-mode", quant.mode) if quant.mode != "affine" else ()
    return (str(python), "-I", "-m", "mlx_lm", "convert", *places, "--quantize", *size)


def ensure_convertible(repo: str, config: Mapping[str, object], converter: Converter) -> None:
    """Return where mlx-lm knows the model's type; asked before anything large is downloaded.

    Raises:
        ConversionError: When mlx-lm doesn't know the type, or can't be asked.
    """
    if config.get("model_file"):
        return  # the model brings its own code along
    model_type = str(config.get("model_type"))
    asked = subprocess.run(
        (str(converter.python), "-I", "-c", _IS_KNOWN, model_type),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env=dict(converter.environment),
        check=False,
    )
    if asked.returncode == _UNKNOWN:
        raise ConversionError(
            f"mlx-lm can't convert {repo}: it doesn't know the model type {model_type!r}.",
            hint="Nothing was downloaded. Look for ready MLX weights: "
            "`mlx-stack models search NAME`.",
        )
    if asked.returncode != 0:
        said = asked.stderr.strip().rpartition("\n")[2] or f"exit code {asked.returncode}"
        raise ConversionError(
            f"mlx-lm can't convert {repo}: {said}.",
            hint="Nothing was downloaded. `mlx-stack doctor --fix` reinstalls an engine that "
            "isn't intact.",
        )


def ensure_feasible(
    repo: str,
    quant: Quant,
    original_bytes: int,
    present_bytes: int,
    model_dir: Path,
    converter: Converter,
) -> None:
    """Return where disk and memory suffice to download the rest of a model and convert it.

    Raises:
        DiskSpaceError: The original and the result don't fit on the disk together.
        ConversionError: There is too little memory.
    """
    rest = original_bytes - present_bytes
    wanted = rest + expected_bytes(original_bytes, quant)
    ensure_room(model_dir, wanted, f"Converting {repo}")
    needed = needed_memory_bytes(original_bytes)
    if needed > converter.available_memory_bytes:
        raise ConversionError(
            f"Converting {repo} takes {needed / GB:.1f} GB of memory, and "
            f"{converter.available_memory_bytes / GB:.1f} GB are free.",
            hint="Stop the stack (`mlx-stack down`) or close other programs, and pull again.",
        )


@contextmanager
def _removed_on_failure(places: ModelPlaces) -> Generator[None]:
    """Leave nothing of a staged folder behind where anything goes wrong before it is whole."""
    staging = places.staging
    shutil.rmtree(staging, ignore_errors=True)
    staging.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if not is_waiting(places):
            shutil.rmtree(staging, ignore_errors=True)
        raise


def _run(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    repo: str,
    tell: Callable[[str], None],
) -> None:
    """Run mlx-lm to its end, telling every line and, in between, that time passes.

    Raises:
        ConversionError: It failed; the message holds the end of what it said.
    """
    last: deque[str] = deque(maxlen=_KEPT_LINES)
    with subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=dict(environment),
    ) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=last.extend, args=(process.stdout,), daemon=True)
        reader.start()
        try:
            while reader.is_alive():
                reader.join(_TICK_S)
                tell(last[-1].strip() if last else "")
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        said = "".join(last).strip() or f"it ended with exit code {process.returncode}"
        raise ConversionError(
            f"mlx-lm could not convert {repo}.",
            hint=f"It said: {said}\nThe original weights are kept, the attempt is removed.",
        )


def _records(folder: Path, repo: str) -> tuple[FileRecord, ...]:
    """The files of a conversion with their hashes, brought to the disk.

    Raises:
        ConversionError: The model isn't complete, whatever mlx-lm said.
    """
    model = inspect_folder(folder)
    if model is None or not model.is_whole:
        problems = "; ".join(model.problems) if model is not None else "config.json is missing"
        raise ConversionError(f"The conversion of {repo} is incomplete: {problems}.")
    return tuple(record_of(folder, path, is_synced=True) for path in own_files(folder))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*"))
