"""Engines, models, ports and processes: whether the stack could start and what is left of it."""

import shutil
from collections.abc import Iterator
from functools import partial

import psutil

from mlx_procsup import locate, stop_service
from mlx_stack.doctor.finding import Finding, ok
from mlx_stack.engines.environment import Environment, current_environment, environment_for
from mlx_stack.engines.lockfile import Engine, shipped_lock
from mlx_stack.engines.verify import verify
from mlx_stack.errors import StackError
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.assembly import model_folder
from mlx_stack.services.ports import is_free
from mlx_stack.services.service import GATEWAY, known_services

_MOST_TOLD = 3


def check_engines(home: Home) -> Iterator[Finding]:
    """Whether the engines are installed, whole, and the versions that this mlx-stack pins."""
    for engine in Engine:
        environment = current_environment(home.engines, engine)
        pinned = environment_for(home.engines, engine, shipped_lock(engine))
        if environment is None:
            yield Finding(
                "engine",
                "problem",
                f"{engine} is not installed.",
                "Nothing can be served without it.",
                "mlx-stack engines install",
            )
        elif environment != pinned:
            yield Finding(
                "engine",
                "warning",
                f"{engine} {environment.version} is in use; this mlx-stack pins {pinned.version}.",
                fix="mlx-stack engines upgrade",
            )
        else:
            yield _compare_with_lock(environment)


def _compare_with_lock(environment: Environment) -> Finding:
    """The packages of an engine beside its lock; only `engines verify` reads every file."""
    name = f"{environment.engine} {environment.version}"
    problems = verify(environment, contents=False).problems
    if not problems:
        return ok("engine", f"{name}, the packages that its lock pins.")
    told = ", ".join(f"{problem.what} ({problem.kind})" for problem in problems[:_MOST_TOLD])
    more = f" and {len(problems) - _MOST_TOLD} more" if len(problems) > _MOST_TOLD else ""
    return Finding(
        "engine",
        "problem",
        f"{name} is not what its lock says: {told}{more}.",
        "Something else than mlx-stack has changed it.",
        f"mlx-stack down && mlx-stack engines install {environment.engine} --reinstall",
    )


def check_models(opened: OpenStack) -> Iterator[Finding]:
    """Whether each tier's model is on this disk and whole.

    Raises:
        StackError: The stack or the configuration can't be read.
    """
    model_dir = opened.config.model_dir
    for tier in opened.stack.tiers:
        try:
            folder = model_folder(model_dir, tier)
        except StackError as error:
            yield Finding("model", "problem", error.message, fix=error.hint or "")
        else:
            yield ok("model", f"{tier.name}: {folder}.")


def check_ports(opened: OpenStack) -> Iterator[Finding]:
    """Whether the ports of services that don't run are free.

    Raises:
        StackError: The stack or the configuration can't be read.
    """
    ports = {tier.name: tier.port for tier in opened.stack.tiers}
    ports[GATEWAY] = opened.config.litellm_port
    taken = 0
    for name, port in ports.items():
        if locate(opened.home.state_dirs, name).process is None and not is_free(port):
            taken += 1
            yield Finding(
                "port",
                "problem",
                f"Port {port}, which {name} needs, is taken by {_holder(port)}.",
                fix=f"Stop it, or give {name} another port"
                + (" with `mlx-stack config set litellm-port`." if name == GATEWAY else "."),
            )
    if not taken:
        yield ok("port", "No port of the stack is taken by a stranger.")


def _holder(port: int) -> str:
    """Who listens on a port, as far as this user may know."""
    for process in psutil.process_iter(["name"]):
        try:
            connections = process.net_connections(kind="tcp")
        except psutil.Error:  # another user's process, or one that has just ended
            continue
        if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections):
            return f"{process.info['name']} (PID {process.pid})"
    return "a program of another user"


def check_leftovers(home: Home) -> Iterator[Finding]:
    """PID files of processes that are gone."""
    stale = [name for name in known_services(home) if _is_stale(home, name)]
    for name in stale:
        yield Finding(
            "stale-pid",
            "warning",
            f"{name} has a PID file, but its process is gone.",
            "It crashed, or the machine was switched off.",
            "`mlx-stack up` starts it again; `--fix` removes the file.",
            mend=partial(_forget, home, name),
        )
    if not stale:
        yield ok("stale-pid", "No PID file is left of a process that is gone.")


def _forget(home: Home, name: str) -> None:
    """Remove what is left of a process that is gone; what the user wanted of it stays noted."""
    stop_service(name, home.state_dirs, wanted=None)


def _is_stale(home: Home, name: str) -> bool:
    found = locate(home.state_dirs, name)
    return found.recorded and found.process is None


def check_tools() -> Iterator[Finding]:
    """Programs that make the stack better where they are there."""
    if shutil.which("plutil") or shutil.which("launchctl") is None:
        return
    yield Finding("plutil", "warning", "`plutil` is missing: agents can't be checked.")
