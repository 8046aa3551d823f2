"""Which files of a repository MLX needs. Pure."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from msgspec import structs

from mlx_catalog.safetensors import weight_files
from mlx_stack.models.disk.manifest import FileOrigin, FileRecord
from mlx_stack.models.errors import PullError

_PATTERNS = (
    "*.json",
    "*.jsonl",
    "*.jinja",
    "*.txt",
    "*.tiktoken",
    "*.model",
    "additional_chat_templates/*.jinja",
    "*_Pooling/config.json",
    "*_Dense/config.json",
    "*_Dense/model.safetensors",
    "speech_tokenizer/*.json",
    "speech_tokenizer/*.safetensors",
)
"""What mlx-lm fetches besides the weights (`mlx_lm.utils._download`) except Python; templates; what
an embedder does after its last layer, without which its vectors would be others; what makes a sound
of a Qwen3-TTS's tokens."""
PROCESSOR_FILES = ("preprocessor_config.json", "tokenizer.json")
"""What a model that hears speech can't be served without, besides its weights."""
_PROCESSOR_TOO = (
    "added_tokens.json",
    "normalizer.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
"""What belongs to these where it is published."""
_OTHER_WEIGHTS = (".gguf", ".bin", ".pt", ".pth", ".h5", ".onnx")


def select_files(
    repo: str, files: Iterable[FileRecord], *, allows_code: bool = False
) -> tuple[FileRecord, ...]:
    """The files of a model that MLX loads: safetensors weights, configuration, tokenizer.

    Weights are `model*.safetensors`; only where there are none, other safetensors at the top,
    without `consolidated*`, which repeats them in another layout. Python files only where the user
    allows the model's own code.

    Raises:
        PullError: It has no safetensors weights or no `config.json`.
    """
    every = tuple(file for file in files if not PurePosixPath(file.path).name.startswith("._"))
    wanted = frozenset(weight_files(file.path for file in every))
    weights = [file for file in every if file.path in wanted]
    if not weights:
        raise PullError(f"{repo} has no safetensors weights at its top.", hint=_advice(every))
    if not any(file.path == "config.json" for file in every):
        raise PullError(f"{repo} has no config.json: it isn't a model that MLX can load.")
    patterns = (*_PATTERNS, "*.py") if allows_code else _PATTERNS
    others = [file for file in every if any(map(PurePosixPath(file.path).full_match, patterns))]
    return (*sorted(others, key=lambda file: file.path), *weights)


def lacks_processor(files: Iterable[FileRecord]) -> bool:
    """Whether files of a model that hears speech are without its tokenizer or its processor."""
    return not {file.path for file in files}.issuperset(PROCESSOR_FILES)


def select_processor(
    origin: FileOrigin, files: Iterable[FileRecord], own: Iterable[FileRecord]
) -> tuple[FileRecord, ...]:
    """The files of a tokenizer and a processor that come from another repository than the weights.

    Args:
        origin: The commit that `files` are of.
        own: The files that come with the weights; they win.

    Raises:
        PullError: They aren't there.
    """
    every = tuple(files)
    if lacks_processor(every):
        raise PullError(f"{origin.repo} has no {' and '.join(PROCESSOR_FILES)} at its top.")
    wanted = {*PROCESSOR_FILES, *_PROCESSOR_TOO} - {file.path for file in own}
    return tuple(structs.replace(file, origin=origin) for file in every if file.path in wanted)


def _advice(files: Iterable[FileRecord]) -> str | None:
    """Where weights in another format are, what to look for instead."""
    for file in files:
        if PurePosixPath(file.path).suffix in _OTHER_WEIGHTS:
            return (
                f"It holds {file.path}, which MLX doesn't load: look for an MLX conversion with "
                "`mlx-stack models search NAME`."
            )
    return None
