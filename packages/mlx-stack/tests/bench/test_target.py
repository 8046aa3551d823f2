"""What `bench` takes a name for."""

import json
from pathlib import Path

import pytest

from mlx_catalog import ModelRole
from mlx_stack.bench.target import role_to_measure
from mlx_stack.home import Home
from mlx_stack.models.shelf import models_on_disk
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.estimate import describe_model

QWEN3 = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": 151669,
}


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("Qwen3-Reranker-0.6B-4bit", ModelRole.RERANK),
        ("Qwen3-Reranker-0.6B", ModelRole.RERANK),
        ("my-own-0.6b", ModelRole.CHAT),
    ],
)
def test_a_folder_is_measured_served_and_planned_as_the_same_kind_of_model(
    home: Home, name: str, role: ModelRole
) -> None:
    folder = home.models / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(QWEN3))
    _write_weights(folder)
    opened = OpenStack(home)

    (on_disk,) = models_on_disk(opened, None).models
    found = {
        role_to_measure(opened, str(folder), None),
        on_disk.tier.role,
        describe_model(opened, str(folder)).role,
    }

    assert found == {role}


def _write_weights(folder: Path) -> None:
    header = b"{}".ljust(8)
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
