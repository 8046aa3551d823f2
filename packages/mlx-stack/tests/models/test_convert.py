"""What mlx-lm is asked before a model is downloaded for it to convert."""

import json
import os
import sys
from pathlib import Path

import pytest

from mlx_stack.models.convert import Converter, ensure_convertible
from mlx_stack.models.errors import ConversionError, WrongContentError

REPO = "acme/odd"


@pytest.fixture
def converter(tmp_path: Path) -> Converter:
    """This interpreter with an mlx-lm that knows two types, one of them by another name."""
    models = tmp_path / "mlx_lm" / "models"
    models.mkdir(parents=True)
    for path in (models.parent / "__init__.py", models / "__init__.py", models / "llama.py"):
        path.touch()
    (models.parent / "utils.py").write_text('MODEL_REMAPPING = {"mistral": "llama"}')
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    return Converter(Path(sys.executable), 1 << 40, environment)


def config(**fields: object) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    "content",
    [
        config(model_type="llama"),
        config(model_type="mistral"),
        config(model_type="of its own", model_file="modeling.py"),
        b'{"model_type": "llama", "time_step_limit": [0.0, Infinity]}',
    ],
)
def test_a_type_that_mlx_lm_knows_may_be_downloaded(converter: Converter, content: bytes):
    ensure_convertible(REPO, content, converter)


def test_a_type_that_mlx_lm_does_not_know_is_told_before_the_download(converter: Converter):
    with pytest.raises(ConversionError, match="'minicpmv'") as told:
        ensure_convertible(REPO, config(model_type="minicpmv"), converter)
    assert "Nothing was downloaded" in str(told.value.hint)


@pytest.mark.parametrize("name", ["a.b", "../llama", "", "import"])
def test_a_strange_type_is_not_known_either(converter: Converter, name: str):
    with pytest.raises(ConversionError):
        ensure_convertible(REPO, config(model_type=name), converter)


def test_an_engine_that_cannot_be_asked_converts_nothing(converter: Converter, tmp_path: Path):
    (tmp_path / "mlx_lm" / "__init__.py").write_text("import nothing_of_that_name")
    with pytest.raises(ConversionError, match="nothing_of_that_name"):
        ensure_convertible(REPO, config(model_type="llama"), converter)


def test_a_damaged_configuration_is_told(converter: Converter):
    with pytest.raises(WrongContentError, match=r"config\.json of acme/odd"):
        ensure_convertible(REPO, b"<html>", converter)
