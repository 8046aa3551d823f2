import subprocess
import sys

import mlx_hwprobe


def test_every_public_name_can_be_imported_in_any_order() -> None:
    for first in ("load_profile", "redact", "measure_bandwidth"):
        code = (
            f"import mlx_hwprobe; mlx_hwprobe.{first}\n"
            "assert all(getattr(mlx_hwprobe, name) for name in dir(mlx_hwprobe))\n"
            "assert callable(mlx_hwprobe.detect) and callable(mlx_hwprobe.redact)\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_are_listed_and_others_are_no_attributes() -> None:
    assert {"detect", "lookup", "HardwareProfile"} <= set(dir(mlx_hwprobe))
    assert not hasattr(mlx_hwprobe, "no_such_name")


def test_importing_the_package_loads_none_of_its_modules() -> None:
    code = (
        "import sys, mlx_hwprobe; print([m for m in sys.modules if m.startswith('mlx_hwprobe.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_star_import_gives_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from mlx_hwprobe import *", names)
    assert set(dir(mlx_hwprobe)) <= set(names)
