"""What the package publishes."""

import ast
import subprocess
import sys
from pathlib import Path

import mlx_procsup


def test_every_published_name_is_there_and_help_and_star_imports_see_it() -> None:
    everything: dict[str, object] = {}
    exec("from mlx_procsup import *", everything)
    assert set(dir(mlx_procsup)) <= set(everything)
    assert everything["acquire_lock"] is mlx_procsup.acquire_lock
    assert not hasattr(mlx_procsup, "no_such_name")


def test_type_checkers_and_the_interpreter_find_the_same_names() -> None:
    source = Path(mlx_procsup.__file__).read_text(encoding="utf-8")
    imports = [
        (module.removeprefix("mlx_procsup."), alias.name)
        for statement in ast.walk(ast.parse(source))
        if isinstance(statement, ast.ImportFrom) and (module := statement.module)
        for alias in statement.names
        if alias.asname == alias.name
    ]
    assert sorted(imports) == sorted(
        (getattr(mlx_procsup, name).__module__.removeprefix("mlx_procsup."), name)
        for name in dir(mlx_procsup)
        if name != "__version__"
    )


def test_importing_the_package_loads_none_of_its_modules_and_not_psutil() -> None:
    script = (
        "import sys, mlx_procsup\n"
        "print([m for m in sys.modules if m.startswith(('mlx_procsup.', 'psutil'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
