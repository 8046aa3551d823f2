"""The watchdog as a job of launchd: its label, its command, its environment (decision 0067)."""

import hashlib
import os
import re
from pathlib import Path

from mlx_launchd import CommandRunner, LaunchAgent, ProcessType, volume_of, volume_problem
from mlx_stack import __version__
from mlx_stack.errors import StackError
from mlx_stack.home import HOME_VARIABLE, Home
from mlx_stack.services.service import WATCHDOG

LABEL = "io.github.mlx-stack.watch"
_INSTALL_HINT = (
    "`uv tool install ./packages/mlx-stack`, in a clone of the repository, installs it "
    "permanently; then run `mlx-stack install` again."
)
_SYSTEM_PATH = (
    *("/opt/homebrew/bin", "/usr/local/bin"),
    *("/usr/bin", "/bin", "/usr/sbin", "/sbin"),
)
_KEG = re.compile(r"(?P<prefix>/.*)/Cellar/(?P<formula>[^/]+)/(?P<version>[^/]+)/(?P<rest>.+)")
_PASSING_PLACES = (
    # uv keeps the environments of `uvx` and `uv run --with` in its cache, pipx those of `pipx run`.
    (
        re.compile(r"/(?:archive|environments|builds)-v[0-9]+/|/pipx/\.cache/|/\.cache/pipx/"),
        "in a temporary environment, which is removed when a cache is cleaned",
    ),
    (
        re.compile(r"/AppTranslocation/"),
        "in a copy that macOS made of a quarantined application, and removes when it ends",
    ),
    (
        re.compile(r"^/private/(?:var/)?tmp/|^(?:/private)?/var/folders/"),
        "in a temporary folder, which macOS empties",
    ),
    (
        re.compile(r"^/nix/store/"),
        "at a path of the Nix store, which the next garbage collection after an upgrade removes",
    ),
    (
        re.compile(rf"/(?:[^/]*[-_@v])?{re.escape(__version__)}(?:_[0-9]+)?/"),
        f"in a folder of version {__version__}, which an upgrade removes",
    ),
)
"""Places where the program won't stay, and what is wrong with each."""


def require_lasting(interpreter: Path, run: CommandRunner) -> Path:
    """The path of the interpreter that survives an upgrade and a reboot.

    It is the interpreter's own path, or in a Homebrew keg that of the formula's `opt` link.

    Raises:
        StackError: When there is no such path.
    """
    keg = _KEG.fullmatch(f"{interpreter}")
    if keg is not None:
        return _opt_path(interpreter, Path(keg["prefix"]), keg["formula"], keg["rest"])
    # links are followed but for the program itself, which is one in every virtual environment
    real = f"{os.path.realpath(interpreter.parent)}/{interpreter.name}"
    for pattern, what in _PASSING_PLACES:
        if pattern.search(f"{interpreter}") or pattern.search(real):
            raise _not_lasting(interpreter, what, _INSTALL_HINT)
    volume = volume_of(interpreter.parent)
    problem = volume_problem(run, volume) if volume is not None else None
    if problem is not None:
        raise _not_lasting(
            interpreter,
            f"on the volume {volume}, which may be missing when the Mac starts: {problem}",
            "Install it on the Mac's own disk (`UV_TOOL_DIR` and `UV_PYTHON_INSTALL_DIR` say where "
            "`uv tool install` puts it), then run `mlx-stack install` again.",
        )
    return interpreter


def _opt_path(interpreter: Path, prefix: Path, formula: str, rest: str) -> Path:
    """The interpreter's path through the link that `brew upgrade` points at the newest keg."""
    opt = prefix / "opt" / formula
    keg = f"{interpreter}".removesuffix(f"/{rest}")
    if (opt / rest).exists() and opt.resolve() == Path(keg).resolve():
        return opt / rest
    raise _not_lasting(
        interpreter,
        f"in a keg that `brew upgrade` removes, and {opt} does not point to it",
        f"`brew reinstall {formula}` makes that link; then run `mlx-stack install` again.",
    )


def _not_lasting(interpreter: Path, what: str, hint: str) -> StackError:
    return StackError(
        f"mlx-stack runs {what} ({interpreter}): launchd would soon find nothing to start.",
        hint=hint,
    )


def job_label(home: Home, user_home: Path) -> str:
    """The job's label: one per state folder, so that a second stack has its own job."""
    if home.root == user_home / ".mlx-stack":
        return LABEL
    return f"{LABEL}.{hashlib.sha256(str(home.root).encode()).hexdigest()[:8]}"


def watch_job(
    home: Home, interpreter: Path, user: str, user_home: Path, *, system: bool
) -> LaunchAgent:
    """The watchdog's job, an agent of the user's session or, with `system`, a daemon.

    No `SuccessfulExit`: however the watchdog ends, launchd starts it again. No limit of open files:
    of a daemon it changes the kernel's for the whole machine, and each service raises its own.
    """
    log = str(home.logs / f"{WATCHDOG}.log")
    programs = (str(interpreter.parent), *_SYSTEM_PATH)
    return LaunchAgent(
        label=job_label(home, user_home),
        program_arguments=(str(interpreter), "-P", "-m", "mlx_stack", "watch", "--up"),
        run_at_load=True,
        keep_alive=True,
        environment_variables={
            "HOME": str(user_home),
            "PATH": ":".join(dict.fromkeys(programs)),
            "USER": user,
            "LOGNAME": user,
            HOME_VARIABLE: str(home.root),
            # so that an upgrade changes the plist and restarts the job
            "MLX_STACK_INSTALLED_VERSION": __version__,
        },
        working_directory=str(home.root),
        standard_out_path=log,
        standard_error_path=log,
        throttle_interval_s=10,
        exit_timeout_s=30,
        process_type=ProcessType.INTERACTIVE,
        user_name=user if system else None,
    )
