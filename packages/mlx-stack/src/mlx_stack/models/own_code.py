"""Whether a model comes with its own Python code, and whether the user allowed exactly that Python.

mlx-lm and mlx-vlm run the file that `config.json` names as `model_file`. transformers imports what
`auto_map` names, where it is to trust a model whose folder holds Python. Neither runs here
unless `pull --allow-code` recorded the files as they are (decision 0058).
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from mlx_catalog import UnreadableModelError
from mlx_catalog.model_files import load_config
from mlx_stack.errors import StackError
from mlx_stack.models.disk.manifest import read_manifest
from mlx_stack.models.errors import ModelCodeError
from mlx_stack.stack import Tier

_RUN = "model_file"
_IMPORTED = "auto_map"
_TRUST_FLAGS = frozenset({"trust-remote-code", "trust_remote_code"})


def ensure_no_code(folder: Path, tier: Tier | None = None) -> None:
    """Return where serving or converting `folder` runs no Python that the user didn't allow.

    Args:
        tier: The tier that is to serve it: its flags may ask the engine to trust any model.

    Raises:
        ModelCodeError: When it would.
        StackError: When `config.json` or the manifest can't be read.
    """
    path = folder / "config.json"
    try:
        config = load_config(path)
    except UnreadableModelError as error:
        raise StackError(str(error)) from error
    trusts = tier is not None and any(tier.vllm_flags.get(flag) for flag in _TRUST_FLAGS)
    field = code_field(config, has_python=next(folder.rglob("*.py"), None) is not None)
    if (field is None and not trusts) or is_allowed(folder):
        return
    manifest = read_manifest(folder)
    name = manifest.repo if manifest is not None else None
    if field is not None:
        raise ModelCodeError(str(path), field, name)
    assert tier is not None
    raise ModelCodeError(f"`vllm_flags` of tier {tier.name!r}", "trust-remote-code", name)


def ensure_no_code_in(config: Mapping[str, object], repo: str) -> None:
    """Return where a `config.json` that isn't on this disk yet names no Python to run.

    What only `auto_map` names is not fetched, so that there is nothing to import.

    Raises:
        ModelCodeError: When it does.
    """
    field = code_field(config)
    if field is not None:
        raise ModelCodeError(f"config.json of {repo}", field, repo)


def code_field(config: Mapping[str, object], *, has_python: bool = False) -> str | None:
    """The field of a `config.json`, however deep, that names Python to run; None without one.

    Args:
        has_python: Whether there are Python files that `auto_map` could mean.
    """
    fields = (_RUN, _IMPORTED) if has_python else (_RUN,)
    waiting: list[tuple[str, object]] = [("", config)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, Mapping):
            for name, inner in cast("Mapping[str, object]", value).items():
                if name in fields and inner not in (None, "", [], {}):
                    return f"{place}{name}"
                waiting.append((f"{place}{name}.", inner))
        elif isinstance(value, list):
            waiting += [(place, inner) for inner in cast("list[object]", value)]
    return None


def is_allowed(folder: Path) -> bool:
    """Whether the user allowed the Python of a model folder, and nothing of it changed since."""
    manifest = read_manifest(folder)
    if manifest is None or manifest.allowed_code is None:
        return False
    return manifest.allowed_code == code_digest(folder)


def code_digest(folder: Path) -> str:
    """A hash of a folder's Python files and its `config.json`.

    The folder's own inode is part of it, so that a manifest that came with a copied folder, which
    anybody may have written, allows nothing.
    """
    hasher = hashlib.sha256(b"%d" % folder.stat().st_ino)
    for path in sorted({folder / "config.json", *folder.rglob("*.py")}):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        hasher.update(f"\0{path.relative_to(folder).as_posix()}\0{content}".encode())
    return hasher.hexdigest()
