"""The watchdog as a job of launchd: its label, its command, and what it needs to know; pure."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from mlx_launchd import LaunchAgent, ProcessType
from mlx_stack.errors import StackError
from mlx_stack.home import HOME_VARIABLE, Home
from mlx_stack.services.service import WATCHDOG

LABEL = "io.github.mlx-stack.watch"
VERSION_VARIABLE = "MLX_STACK_INSTALLED_VERSION"
"""In the job's environment, so that an upgrade changes the plist and the job is started anew."""

_EXIT_TIMEOUT_S = 30
_THROTTLE_S = 10
_OPEN_FILES = 8192
_SYSTEM_PATH = (
    *("/opt/homebrew/bin", "/usr/local/bin"),
    *("/usr/bin", "/bin", "/usr/sbin", "/sbin"),
)
# uv keeps the environments of `uvx` and `uv run --with` in its cache, pipx those of `pipx run`.
_EPHEMERAL = re.compile(r"/(?:archive|environments|builds)-v[0-9]+/|/pipx/\.cache/|/\.cache/pipx/")


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


def require_lasting(interpreter: Path) -> None:
    """Return if the interpreter will still be there tomorrow.

    Raises:
        StackError: It is in an environment that its tool throws away.
    """
    if _EPHEMERAL.search(f"{interpreter}"):
        raise StackError(
            f"mlx-stack runs from a temporary environment ({interpreter.parent.parent}), which is "
            "thrown away when a cache is cleaned: nothing would start at the next boot.",
            hint="`uv tool install mlx-stack` installs it to stay; then run `mlx-stack install`.",
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
