import json
import os
import subprocess
import sys
from pathlib import Path

from mlx_catalog import __version__

type Program = tuple[str, ...]


def run(program: Program, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*program, *words], capture_output=True, text=True, check=False)


def test_it_says_its_version(program: Program):
    assert run(program, "--version").stdout == f"mlx-catalog {__version__}\n"


def test_validating_good_files_says_how_many(program: Program, entry_folder: Path):
    done = run(program, "validate", entry_folder, entry_folder / "lynx-7b.yaml")
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 entries valid\n", "")


def test_validating_a_bad_file_exits_with_2_and_names_every_mistake(
    program: Program, entry_folder: Path, entry_text: str
):
    bad = entry_folder / "lynx-7b.yaml"
    bad.write_text(
        entry_text.replace("layers: 32", "layers: x").replace("gated: false", "gated: 1")
    )
    done = run(program, "validate", entry_folder)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"{bad}:11: gated: expected bool, got 1",
        f"{bad}:15: geometry.layers: expected int, got 'x'",
    ]


def test_validating_nothing_is_an_error(program: Program, tmp_path: Path):
    done = run(program, "validate", tmp_path)
    assert done.returncode == 2
    assert "no *.yaml files" in done.stderr


def test_validating_a_missing_file_is_an_error(program: Program, tmp_path: Path):
    done = run(program, "validate", tmp_path / "nowhere.yaml")
    assert done.returncode == 2
    assert "nowhere.yaml: No such file" in done.stderr


def test_showing_an_alias_says_which_model_it_is(program: Program):
    done = run(program, "show", "llama3.3-8b")
    assert done.returncode == 0
    assert json.loads(done.stdout)["id"] == "llama3.1-8b"
    assert done.stderr.startswith("llama3.3-8b is llama3.1-8b: ")


def test_a_mistyped_name_is_answered_with_the_nearest(program: Program):
    done = run(program, "show", "qwen3-9b")
    assert done.returncode == 1
    assert "did you mean" in done.stderr
    assert "qwen3-8b" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_list_names_every_entry(program: Program):
    lines = run(program, "list").stdout.splitlines()
    assert len(lines) >= 45
    assert "qwen3-8b\tQwen3 8B" in lines


def test_the_schema_is_printed(program: Program):
    assert json.loads(run(program, "schema").stdout)["$id"] == "urn:mlx-catalog:entry"


def test_wrong_usage_exits_with_2(program: Program):
    assert run(program, "frobnicate").returncode == 2


def test_the_catalog_needs_no_http_library():
    imported = "import sys, mlx_catalog.__main__; print([m for m in sys.modules if 'http' in m])"
    done = subprocess.run(
        [sys.executable, "-c", imported], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_an_output_that_takes_nothing_is_no_traceback(program: Program):
    with Path(os.devnull).open("rb") as full:
        done = subprocess.run(
            [*program, "schema"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "mlx-catalog: the answer can't be written: Bad file descriptor\n"


def test_a_reader_that_has_enough_is_no_traceback(program: Program):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(
            [*program, "schema"], stdout=pipe, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (1, "")
