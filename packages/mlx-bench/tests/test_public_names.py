"""What the package publishes."""

import subprocess
import sys

import mlx_bench


def test_every_published_name_is_there_and_help_and_completion_see_it() -> None:
    assert all(getattr(mlx_bench, name) is not None for name in mlx_bench.__all__)
    assert set(mlx_bench.__all__) <= set(dir(mlx_bench))
    assert not hasattr(mlx_bench, "no_such_name")


def test_importing_the_package_loads_none_of_its_modules_and_not_httpx() -> None:
    script = (
        "import sys, mlx_bench\n"
        "print([m for m in sys.modules if m.startswith(('mlx_bench.', 'httpx'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
