"""Models that bring Python along: what counts as such, and what an allowance covers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_stack.models.disk.manifest import Manifest, write_manifest
from mlx_stack.models.errors import ModelCodeError
from mlx_stack.models.own_code import (
    code_digest,
    code_field,
    ensure_no_code,
    ensure_no_code_in,
    is_allowed,
)
from mlx_stack.stack import Tier

VALUES = st.recursive(
    st.booleans() | st.integers() | st.text(min_size=1),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=2)
        | st.dictionaries(st.text(max_size=4), inner, min_size=1, max_size=2)
    ),
    max_leaves=4,
)


def tier(**flags: bool) -> Tier:
    return Tier(
        name="standard",
        model="m",
        quant="int4",
        source="/m",
        port=8000,
        vllm_flags={name.replace("_", "-"): value for name, value in flags.items()},
    )


def plain(folder: Path, **fields: object) -> Path:
    folder.mkdir()
    config = {"model_type": "llama", "quantization": {"group_size": 32, "bits": 4}, **fields}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def with_code(folder: Path, **fields: object) -> Path:
    plain(folder, **fields)
    (folder / "modeling.py").write_text("raise SystemExit('pwned')")
    return folder


def allow(folder: Path) -> None:
    manifest = Manifest(
        repo="evil/innocent",
        revision="0" * 40,
        quant=None,
        origin="downloaded",
        files=(),
        allowed_code=code_digest(folder),
    )
    write_manifest(folder, manifest)


@given(st.sampled_from(["model_file", "auto_map"]), VALUES, st.lists(st.text(), max_size=3))
def test_a_field_that_names_python_is_found_however_deep_and_whatever_it_holds(
    field: str, value: object, place: list[str]
):
    config: dict[str, Any] = {"model_type": "llama", field: value}
    for name in place:
        config = {"layers": 1, name: [config]}
    found = code_field(config, has_python=True)
    assert found is not None
    assert found.rpartition(".")[2] == field


@pytest.mark.parametrize("value", [None, "", [], {}])
def test_a_field_that_holds_nothing_names_no_python(value: object):
    config = {"model_file": value, "text_config": {"auto_map": value}}
    assert code_field(config, has_python=True) is None


def test_an_auto_map_without_python_to_import_is_data(tmp_path: Path):
    folder = with_code(tmp_path / "model", auto_map={"AutoModel": "modeling.Model"})
    with pytest.raises(ModelCodeError):
        ensure_no_code(folder)
    (folder / "modeling.py").unlink()
    ensure_no_code(folder)
    ensure_no_code_in({"auto_map": {"AutoModel": "modeling.Model"}}, "owner/name")


def test_a_folder_with_a_model_file_is_refused_with_the_file_and_the_way_out(tmp_path: Path):
    folder = with_code(tmp_path / "m", text_config={"model_file": "modeling.py"})
    with pytest.raises(ModelCodeError, match=r"text_config\.model_file") as caught:
        ensure_no_code(folder)
    assert str(folder / "config.json") in caught.value.message
    assert "--allow-code" in (caught.value.hint or "")


def test_what_was_allowed_serves_until_a_file_changes(tmp_path: Path):
    folder = with_code(tmp_path / "m", model_file="modeling.py")
    allow(folder)
    ensure_no_code(folder, tier(trust_remote_code=True))
    (folder / "helper.py").write_text("import os")
    with pytest.raises(ModelCodeError):
        ensure_no_code(folder)
    allow(folder)
    ensure_no_code(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_file": "helper.py"}))
    with pytest.raises(ModelCodeError) as caught:
        ensure_no_code(folder)
    assert "pull --allow-code evil/innocent" in (caught.value.hint or "")


def test_a_manifest_that_was_copied_with_a_folder_allows_nothing(tmp_path: Path):
    folder = with_code(tmp_path / "theirs", auto_map={"AutoModel": "modeling.Model"})
    allow(folder)
    assert is_allowed(folder)
    copy = Path(shutil.copytree(folder, tmp_path / "ours"))
    with pytest.raises(ModelCodeError):
        ensure_no_code(copy)


def test_a_tier_that_trusts_any_code_is_refused_unless_its_models_was_allowed(tmp_path: Path):
    folder = plain(tmp_path / "m")
    ensure_no_code(folder, tier(trust_remote_code=False))
    with pytest.raises(ModelCodeError, match="vllm_flags"):
        ensure_no_code(folder, tier(trust_remote_code=True))
