"""The inventory: one file that lists the models, for people and other programs.

It is made from the folders after every change and never read back, so it can be thrown away: the
folders, each with its manifest, are the truth.
"""

import json
from pathlib import Path

from mlx_stack import atomic_file
from mlx_stack.models.disk.layout import INVENTORY_NAME
from mlx_stack.models.disk.local import LocalModel, list_local

SCHEMA_VERSION = 1


def write_inventory(model_dir: Path) -> None:
    """List the models of `model_dir`, which must exist, in its inventory."""
    models = [describe(model) for model in list_local(model_dir)]
    text = json.dumps({"schema_version": SCHEMA_VERSION, "models": models}, indent=2)
    atomic_file.write_text(model_dir / INVENTORY_NAME, text + "\n")


def describe(model: LocalModel) -> dict[str, object]:
    """The fields of a model as `models --json` and the inventory give them."""
    return {
        "model": model.model,
        "repo": model.repo,
        "quant": model.quant,
        "revision": model.revision,
        "origin": model.origin,
        "path": str(model.path),
        "size_bytes": model.size_bytes,
        "present_bytes": model.present_bytes,
        "integrity": model.integrity,
        "problems": list(model.problems),
    }
