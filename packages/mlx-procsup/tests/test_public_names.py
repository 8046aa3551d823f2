"""What the package publishes."""

import subprocess
import sys

import mlx_procsup


def test_every_published_name_is_there_and_help_and_completion_see_it() -> None:
    assert all(getattr(mlx_procsup, name) is not None for name in mlx_procsup.__all__)
    assert set(mlx_procsup.__all__) <= set(dir(mlx_procsup))
    assert not hasattr(mlx_procsup, "no_such_name")


def test_importing_the_package_loads_none_of_its_modules_and_not_psutil() -> None:
    script = (
        "import sys, mlx_procsup\n"
        "print([m for m in sys.modules if m.startswith(('mlx_procsup.', 'psutil'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
