"""The table of errors: complete for every library, and without a row that nothing can reach."""

import importlib
import inspect
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import pytest
import yaml

import mlx_bench
import mlx_catalog
import mlx_hwprobe
import mlx_launchd
import mlx_procsup
import mlx_recommend
from mlx_stack import exit_codes
from mlx_stack.cli.root import run
from mlx_stack.error_table import _TRANSLATIONS, translate
from mlx_stack.errors import StackError

LIBRARIES = (mlx_bench, mlx_catalog, mlx_hwprobe, mlx_launchd, mlx_procsup, mlx_recommend)
DAMAGED_JSON = "{"


def _exported_errors() -> Iterator[type[Exception]]:
    for library in LIBRARIES:
        for name in dir(library):
            exported = getattr(library, name)
            if inspect.isclass(exported) and issubclass(exported, Exception):
                yield exported


@pytest.mark.parametrize("kind", list(_exported_errors()), ids=lambda kind: kind.__name__)
def test_every_error_that_a_library_exports_has_a_translation(kind: type[Exception]) -> None:
    error = kind.__new__(kind)

    assert isinstance(translate(error), StackError)


def _raised(provoke: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what this is about
        provoke()
    return caught.value


def _connect_nowhere() -> object:
    return httpx.get("http://127.0.0.1:1/", trust_env=False)


FOREIGN: dict[str, Callable[[], object]] = {
    "no server": _connect_nowhere,
    "no URL": lambda: httpx.URL("http://[::1"),
    "damaged JSON": lambda: json.loads(DAMAGED_JSON),
    "damaged JSON for msgspec": lambda: msgspec.json.decode(DAMAGED_JSON),
    "damaged YAML": lambda: yaml.safe_load("["),
    "no UTF-8": b"\xff".decode,
    "a program that never ends": lambda: subprocess.run(["sleep", "9"], timeout=0.01, check=True),
    "a program that fails": lambda: subprocess.run(["false"], check=True),
    "no process": lambda: psutil.Process(2**22 + 1),
    "a folder for a file": lambda: Path("/").read_text(),
    "a file for a folder": lambda: Path("/dev/null/file").read_text(),
    "no file": lambda: Path("/no-such-file").read_text(),
    "JSON nested without end": lambda: json.loads("[" * 100_000),
}


@pytest.mark.parametrize("provoke", FOREIGN.values(), ids=FOREIGN.keys())
def test_what_other_libraries_raise_is_told_in_one_sentence(
    provoke: Callable[[], object],
) -> None:
    told = translate(_raised(provoke))

    assert told is not None
    assert told.message.strip()
    assert told.exit_code in (exit_codes.FAILED, exit_codes.USAGE)
    assert told.hint is None or told.hint.strip()


def test_a_defect_of_ours_is_not_explained_away() -> None:
    assert translate(KeyError("oops")) is None
    assert translate(AssertionError()) is None


def _class_of(row: str) -> type[Exception] | None:
    package, _, name = row.partition(".")
    homes = {"yaml": "yaml.error"}
    found: Any = getattr(importlib.import_module(homes.get(package, package)), name, None)
    return found


@pytest.mark.parametrize("row", _TRANSLATIONS)
def test_no_row_names_a_class_that_does_not_exist(row: str) -> None:
    found = _class_of(row)

    assert found is not None
    assert f"{found.__module__.partition('.')[0]}.{found.__name__}" == row


def test_the_debug_variable_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLX_STACK_HOME", str(tmp_path))
    (tmp_path / "config.yaml").mkdir()
    assert run(["config", "list"]) == exit_codes.USAGE
    monkeypatch.setenv("MLX_STACK_DEBUG", "1")

    with pytest.raises(IsADirectoryError):
        run(["config", "list"])
