"""Install built wheel files together in an empty environment, and see that the package works.

uv ignores version ranges between members of a workspace, and `mlx-stack` on PyPI belongs to another
project, so only the files themselves show what a user will get.

Usage: check_wheels.py WHEEL_FOLDER PACKAGE
"""

import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAMS = {
    "mlx-stack": ("mlx-stack", "--help"),
    "mlx-hwprobe": ("mlx-hwprobe", "table"),
    "mlx-catalog": ("mlx-catalog", "validate"),
    "mlx-bench": ("mlx-bench", "--help"),
}


def main(wheels: Path, package: str) -> int:
    """0 if the package installs from these files and its program runs."""
    module = package.replace("-", "_")
    wheel = next(wheels.glob(f"{module}-*.whl"))
    with tempfile.TemporaryDirectory() as temporary:
        environment = Path(temporary) / "environment"
        run("uv", "venv", "--python", sys.executable, str(environment))
        python = environment / "bin" / "python"
        run(
            "uv", "pip", "install", "--python", str(python), "--find-links", str(wheels), str(wheel)
        )
        run(str(python), "-c", f"import {module}; print({module}.__version__)")
        if package in PROGRAMS:
            program, *arguments = PROGRAMS[package]
            run(str(environment / "bin" / program), *arguments)
    return 0


def run(*command: str) -> None:
    """Run a command; its failure ends the program."""
    print("+", *command, flush=True)
    prefix = (sys.executable, "-m") if command[0] == "uv" else ()
    subprocess.run((*prefix, *command), check=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
