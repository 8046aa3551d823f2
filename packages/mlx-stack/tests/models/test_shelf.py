"""Models on this disk as tiers that nobody defined."""

from pathlib import Path

from mlx_procsup import ProcessSpec
from mlx_stack.models.shelf import service_of

_LONG = "mlx-community--Llama-3.2-11B-Vision-Instruct-abliterated-and-more"


def test_each_model_has_a_service_of_its_own() -> None:
    folders = (f"{_LONG}-4bit", f"{_LONG}-8bit", "My Model", "My-Model", "模型", "型模", "模-")
    names = [service_of(folder) for folder in folders]

    assert len({*names}) == len(folders)
    for name in names:
        assert len(name) <= 64
        ProcessSpec(name=name, command=("true",), env={}, cwd=Path("/"))


def test_the_service_of_a_model_is_recognized_by_its_folder() -> None:
    assert service_of("mlx-community--Qwen3-8B-4bit") == "model.mlx-community--Qwen3-8B-4bit"
    assert service_of("My Model").startswith("model.My-Model-")
