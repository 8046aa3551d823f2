"""Small models of every type, with what each says in its own way."""

import json
from pathlib import Path
from typing import Any


def small_configs(path: Path) -> dict[str, dict[str, Any]]:
    """The `config.json` of each, by its type, and by what sets it apart from others of that type.

    Args:
        path: What they have in common, and what each has of its own, as JSON.
    """
    asked = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: {
            "model_type": name.partition(":")[0],
            **(asked["usual"] if config.get("usual") else {}),
            **{key: value for key, value in config.items() if key != "usual"},
        }
        for name, config in asked["configs"].items()
    }
