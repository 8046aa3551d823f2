"""What the package publishes."""

import subprocess
import sys
import types

import mlx_launchd


def test_every_published_name_is_there_and_none_is_a_module() -> None:
    assert "LaunchAgent" in dir(mlx_launchd)
    for name in dir(mlx_launchd):
        assert not isinstance(getattr(mlx_launchd, name), types.ModuleType), name


def test_importing_the_package_loads_none_of_its_modules() -> None:
    script = (
        "import sys, mlx_launchd; print([m for m in sys.modules if m.startswith('mlx_launchd.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_name_that_is_not_published_is_an_attribute_error() -> None:
    assert not hasattr(mlx_launchd, "LaunchAgnet")


def test_a_star_import_gives_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from mlx_launchd import *", names)
    assert set(dir(mlx_launchd)) <= set(names)
