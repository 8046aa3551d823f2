"""What mlx-lm is asked before a model is downloaded for it to convert."""

import os
import venv
from dataclasses import replace
from pathlib import Path

import pytest

from mlx_catalog import Quant
from mlx_stack.models.convert import Converter, convert, ensure_convertible
from mlx_stack.models.disk.layout import places_of
from mlx_stack.models.disk.local import inspect_folder
from mlx_stack.models.disk.manifest import Manifest, write_manifest
from mlx_stack.models.download.fetch import FetchOptions
from mlx_stack.models.errors import ConversionError
from stack_testkit.home import make_model_folder

REPO = "acme/odd"


@pytest.fixture
def mlx_lm(tmp_path: Path) -> Path:
    """An mlx-lm that knows two types, one of them by another name, in an environment."""
    venv.create(tmp_path / "engine", symlinks=True)
    (packages,) = (tmp_path / "engine").glob("lib/python3*/site-packages")
    models = packages / "mlx_lm" / "models"
    models.mkdir(parents=True)
    for path in (models.parent / "__init__.py", models / "__init__.py", models / "llama.py"):
        path.touch()
    (models.parent / "utils.py").write_text('MODEL_REMAPPING = {"mistral": "llama"}')
    return models.parent


@pytest.fixture
def converter(mlx_lm: Path) -> Converter:
    return Converter(mlx_lm.parents[3] / "bin" / "python", 1 << 40, dict(os.environ))


def config(**fields: object) -> dict[str, object]:
    return fields


@pytest.mark.parametrize(
    "content",
    [
        config(model_type="llama"),
        config(model_type="mistral"),
        config(model_type="of its own", model_file="modeling.py"),
    ],
)
def test_a_type_that_mlx_lm_knows_may_be_downloaded(
    converter: Converter, content: dict[str, object]
):
    ensure_convertible(REPO, content, converter)


def test_a_type_that_mlx_lm_does_not_know_is_told_before_the_download(converter: Converter):
    with pytest.raises(ConversionError, match="'minicpmv'") as told:
        ensure_convertible(REPO, config(model_type="minicpmv"), converter)
    assert "Nothing was downloaded" in str(told.value.hint)


@pytest.mark.parametrize("name", ["a.b", "../llama", "", "import"])
def test_a_strange_type_is_not_known_either(converter: Converter, name: str):
    with pytest.raises(ConversionError):
        ensure_convertible(REPO, config(model_type=name), converter)


def test_an_engine_that_cannot_be_asked_converts_nothing(converter: Converter, mlx_lm: Path):
    (mlx_lm / "__init__.py").write_text("import nothing_of_that_name")
    with pytest.raises(ConversionError, match="nothing_of_that_name"):
        ensure_convertible(REPO, config(model_type="llama"), converter)


def test_a_conversion_runs_nothing_of_the_folder_that_it_is_typed_in(
    converter: Converter, mlx_lm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (mlx_lm / "__main__.py").write_text(
        "import os, pathlib, sys\n"
        "target = pathlib.Path(sys.argv[sys.argv.index('--mlx-path') + 1])\n"
        "source = pathlib.Path(sys.argv[sys.argv.index('--hf-path') + 1])\n"
        "target.mkdir()\n"
        "for name in ('config.json', 'model.safetensors'):\n"
        "    (target / name).write_bytes((source / name).read_bytes())\n"
    )
    hostile = tmp_path / "hostile"
    (hostile / "mlx_lm").mkdir(parents=True)
    for name in ("mlx_lm/__init__.py", "mlx_lm/__main__.py", "pathlib.py", "tokenizers.py"):
        (hostile / name).write_text(f"open({str(tmp_path / 'PWNED')!r}, 'w')")
    monkeypatch.chdir(hostile)
    folder = make_model_folder(tmp_path / "models" / "acme--odd")
    manifest = Manifest(repo=REPO, revision="0" * 40, quant=None, origin="downloaded", files=())
    write_manifest(folder, manifest)
    original = inspect_folder(folder)
    assert original is not None
    meddled = replace(converter, environment={**os.environ, "PYTHONPATH": str(hostile)})
    ensure_convertible(REPO, config(model_type="llama"), meddled)
    done = convert(
        original, Quant.INT4, places_of(folder.parent, REPO, "int4"), meddled, FetchOptions()
    )
    assert done.outcome == "converted"
    assert not (tmp_path / "PWNED").exists()
