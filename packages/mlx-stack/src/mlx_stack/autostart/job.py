"""The watchdog as a job of launchd: its label, its command, its environment (decision 0067)."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from mlx_launchd import LaunchAgent, ProcessType, external_volume
from mlx_stack import __version__
from mlx_stack.errors import StackError
from mlx_stack.home import HOME_VARIABLE, Home
from mlx_stack.services.service import WATCHDOG

LABEL = "io.github.mlx-stack.watch"
VERSION_VARIABLE = "MLX_STACK_INSTALLED_VERSION"
"""In the job's environment, so that an upgrade changes the plist and restarts the job."""

_INSTALL_HINT = (
    "`uv tool install ./packages/mlx-stack`, in a clone of the repository, installs it to stay; "
    "then run `mlx-stack install` again."
)
_EXIT_TIMEOUT_S = 30
_THROTTLE_S = 10
_OPEN_FILES = 8192
_SYSTEM_PATH = (
    *("/opt/homebrew/bin", "/usr/local/bin"),
    *("/usr/bin", "/bin", "/usr/sbin", "/sbin"),
)
_KEG = re.compile(r"(?P<prefix>/.*)/Cellar/(?P<formula>[^/]+)/(?P<version>[^/]+)/(?P<rest>.+)")
_PASSING = (
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
        f"in a folder of version {__version__} alone, which an upgrade removes",
    ),
)
"""Places that the program leaves, or that leave the program, and what is wrong with each."""


@dataclass(frozen=True, slots=True)
class Installation:
    """This installation of mlx-stack, as a job would start it.

    Attributes:
        interpreter: The Python that has mlx-stack; a link of a virtual environment is kept.
        version: The version of mlx-stack.
        user: Whose stack it is.
        user_home: That user's home folder.
    """

    interpreter: Path
    version: str
    user: str
    user_home: Path


def require_lasting(interpreter: Path) -> Path:
    """The path under which the interpreter will still be there after an upgrade and a reboot.

    It is the interpreter's own path, or in a Homebrew keg that of the formula's `opt` link.

    Raises:
        StackError: There is no such path.
    """
    keg = _KEG.fullmatch(f"{interpreter}")
    if keg is not None:
        return _opt_path(interpreter, Path(keg["prefix"]), keg["formula"], keg["rest"])
    # A folder that is a link to a passing one is one too; the program itself may well be a link,
    # as in every virtual environment.
    real = f"{os.path.realpath(interpreter.parent)}/{interpreter.name}"
    for pattern, what in _PASSING:
        if pattern.search(f"{interpreter}") or pattern.search(real):
            raise _not_lasting(interpreter, what, _INSTALL_HINT)
    volume = external_volume(interpreter.parent)
    if volume is not None:
        raise _not_lasting(
            interpreter,
            f"on the volume {volume}, which may be missing when the Mac starts",
            "Install it on the Mac's own disk (`UV_TOOL_DIR` and `UV_PYTHON_INSTALL_DIR` say where "
            "`uv tool install` puts it), then run `mlx-stack install` again.",
        )
    return interpreter


def _opt_path(interpreter: Path, prefix: Path, formula: str, rest: str) -> Path:
    """The interpreter's path through the link that `brew upgrade` points to the newest keg."""
    opt = prefix / "opt" / formula
    keg = f"{interpreter}".removesuffix(f"/{rest}")
    if (opt / rest).exists() and opt.resolve() == Path(keg).resolve():
        return opt / rest
    raise _not_lasting(
        interpreter,
        f"in a keg of one version, which `brew upgrade` removes, and {opt} does not lead to it",
        f"`brew reinstall {formula}` makes that link; then run `mlx-stack install` again.",
    )


def _not_lasting(interpreter: Path, what: str, hint: str) -> StackError:
    return StackError(
        f"mlx-stack runs {what} ({interpreter}): launchd would find nothing to start afterwards.",
        hint=hint,
    )


def job_label(home: Home, user_home: Path) -> str:
    """The job's label: one a state folder, so that a second stack has a job of its own."""
    if home.root == user_home / ".mlx-stack":
        return LABEL
    return f"{LABEL}.{hashlib.sha256(str(home.root).encode()).hexdigest()[:8]}"


def watch_command(interpreter: Path) -> tuple[str, ...]:
    """The command that launchd runs: the watchdog, which also starts the stack."""
    return (str(interpreter), "-m", "mlx_stack", "watch", "--up")


def watch_job(home: Home, installation: Installation, *, system: bool) -> LaunchAgent:
    """The watchdog's job, an agent of the user's session or, with `system`, a daemon.

    No `SuccessfulExit`: whatever ends the watchdog, launchd starts it again. A daemon sets no limit
    of files, since there that changes the kernel's limits for the whole machine; the watchdog
    raises its own.
    """
    log = str(home.logs / f"{WATCHDOG}.log")
    programs = (str(installation.interpreter.parent), *_SYSTEM_PATH)
    return LaunchAgent(
        label=job_label(home, installation.user_home),
        program_arguments=watch_command(installation.interpreter),
        run_at_load=True,
        keep_alive=True,
        environment_variables={
            "HOME": str(installation.user_home),
            "PATH": ":".join(dict.fromkeys(programs)),
            "USER": installation.user,
            "LOGNAME": installation.user,
            HOME_VARIABLE: str(home.root),
            VERSION_VARIABLE: installation.version,
        },
        working_directory=str(home.root),
        standard_out_path=log,
        standard_error_path=log,
        throttle_interval_s=_THROTTLE_S,
        exit_timeout_s=_EXIT_TIMEOUT_S,
        process_type=ProcessType.INTERACTIVE,
        number_of_files=None if system else _OPEN_FILES,
        user_name=installation.user if system else None,
    )
