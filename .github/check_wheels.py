"""Install built wheel files together in an empty environment, and see that the package works.

uv ignores version ranges between members of a workspace, installs members from their sources, and
`mlx-stack` on PyPI belongs to another project, so only the files themselves show what a user will
get. With `--tests` the package's own tests run against what was installed, and the public interface
of a library is checked to be typed completely.

Usage: check_wheels.py WHEEL_FOLDER PACKAGE [--tests]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
APPLICATION = "mlx-stack"
PROGRAMS = {
    APPLICATION: ("mlx-stack", "--help"),
    "mlx-hwprobe": ("mlx-hwprobe", "table"),
    "mlx-catalog": ("mlx-catalog", "list"),
    "mlx-bench": ("mlx-bench", "--help"),
    "mlx-gateway": ("mlx-gateway", "--help"),
}
TEST_TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "ollama", "trustme")


def main(wheels: Path, package: str, *, with_tests: bool) -> int:
    """0 if the package installs from these files and works."""
    module = package.replace("-", "_")
    with tempfile.TemporaryDirectory() as temporary:
        environment = Path(temporary) / "environment"
        python = str(environment / "bin" / "python")
        ours = Path(temporary) / "ours.txt"
        ours.write_text("".join(f"{name} @ {uri}\n" for name, uri in built(wheels).items()))
        run("uv", "venv", "--quiet", "--python", sys.executable, str(environment))
        install = ("uv", "pip", "install", "--quiet", "--python", python, "--constraint", str(ours))
        run(*install, package)
        run(python, "-I", "-c", f"import {module}; print({module}.__version__)")
        if package in PROGRAMS:
            program, *arguments = PROGRAMS[package]
            run(str(environment / "bin" / program), *arguments, quiet=True)
        if with_tests:
            if package != APPLICATION:
                verify_types(module, python, Path(temporary))
            run(*install, *extras_of(package), *TEST_TOOLS)
            run(python, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", f"packages/{package}")
    return 0


def built(wheels: Path) -> Mapping[str, str]:
    """Where each of our packages is to come from, and from nowhere else."""
    return {
        wheel.name.split("-", 1)[0].replace("_", "-"): wheel.resolve().as_uri()
        for wheel in sorted(wheels.glob("mlx_*.whl"))
    }


def extras_of(package: str) -> tuple[str, ...]:
    """The package with all that its tests may use."""
    return ("mlx-catalog[hub]",) if package == "mlx-catalog" else ()


def verify_types(module: str, python: str, elsewhere: Path) -> None:
    """Every public name has a known type; asked where no configuration leads to the sources."""
    # with --pythonpath, pyright 1.1.414 finds no py.typed
    search = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    run(
        *(sys.executable, "-m", "pyright", "--verifytypes", module, "--ignoreexternal"),
        cwd=elsewhere,
        env={"PATH": search},
        quiet=True,
    )


def run(
    *command: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None, quiet: bool = False
) -> None:
    """Run a command; its failure ends the program. What is quiet is shown where it fails."""
    print("+", *command, flush=True)
    prefix = (sys.executable, "-m") if command[0] == "uv" else ()
    done = subprocess.run(
        (*prefix, *command),
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE if quiet else None,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout or "", end="")
        sys.exit(f"{command[0]}: exit code {done.returncode}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheels", type=Path)
    parser.add_argument("package")
    parser.add_argument("--tests", action="store_true")
    given = parser.parse_args()
    sys.exit(main(given.wheels, given.package, with_tests=given.tests))
