"""Remove everything that mlx-stack set up on this machine, but for the program itself."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from mlx_stack.autostart.install import uninstall as remove_job
from mlx_stack.autostart.mac import JobKind, Mac, RootStepHandler
from mlx_stack.clients.connect import carry_out, plan_undo
from mlx_stack.clients.connections import read_connections
from mlx_stack.errors import StackError
from mlx_stack.home import Home
from mlx_stack.man_page import man_page
from mlx_stack.models.disk.local import LocalModel, remove
from mlx_stack.models.local import list_models
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.down import stop_one, stop_services
from mlx_stack.services.service import WATCHDOG, Outcomes
from mlx_stack.services.stack_lock import stack_lock

OURS = (
    *("profile.json", "config.yaml", "credentials.json", "keys.json", "keys.lock"),
    *(
        "ledger.db",
        "ledger.db-wal",
        "ledger.db-shm",
        "nodes.yaml",
        "nodes.lock",
        "node",
        "connections.json",
        "open-webui.env",
    ),
    *("stacks", "gateway.yaml", "litellm.yaml", "engines", "pids", "run", "logs", "benchmarks"),
    *(
        "conversation.json",
        "chat_history",
        "setup.json",
        "panics.json",
        "page",
        "kept-prompts",
        "lock",
    ),
)
"""What we write into the state folder, models aside; the lock last, since it is held meanwhile."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What there is to remove.

    Attributes:
        clients: The connected programs.
        models: What was pulled; not the folders that a user put next to it.
    """

    clients: tuple[str, ...]
    model_dir: Path
    models: tuple[LocalModel, ...]

    @property
    def models_bytes(self) -> int:
        """What the models take on disk."""
        return sum(model.present_bytes for model in self.models)


@dataclass(frozen=True, slots=True)
class RemovedAll:
    """What was removed.

    Attributes:
        jobs: What was under launchd.
        services: What stopped.
        kept: The folders that still hold something: models, or what we didn't write.
    """

    clients: tuple[str, ...]
    jobs: tuple[JobKind, ...]
    services: Outcomes
    models: tuple[str, ...]
    kept: tuple[Path, ...]

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {
            "outcome": "uninstalled",
            "removed": list(self.jobs),
            "clients": list(self.clients),
            "services": [each.to_document() for each in self.services.services],
            "models": list(self.models),
            "kept": [f"{path}" for path in self.kept],
        }


def find_footprint(opened: OpenStack) -> Footprint:
    """What `uninstall_all` would remove; reads only.

    Raises:
        InvalidFileError: When a file that says so is damaged.
    """
    listing = list_models(opened)
    ours = (model.local for model in listing.models if model.local.origin is not None)
    return Footprint(
        tuple(read_connections(opened.home.connections).clients), listing.model_dir, tuple(ours)
    )


def uninstall_all(
    opened: OpenStack,
    mac: Mac | None,
    *,
    with_models: bool,
    on_step: RootStepHandler = lambda _: None,
) -> RemovedAll:
    """Undo connections, launchd's job and services, and remove what we wrote.

    The services are stopped before anything is deleted. What we didn't write stays.

    Args:
        mac: Where launchd is; None where there is none.
        with_models: Whether the downloaded models are removed, too.
        on_step: Called with each command that needs root, before it runs.

    Raises:
        StackError: When a service doesn't stop; nothing was deleted then.
        LockHeldError: When another command changes the services.
        LaunchdError: When launchd doesn't let the job go.
    """
    home, found = opened.home, find_footprint(opened)
    jobs = () if mac is None else remove_job(home, mac, on_step=on_step).removed
    for client in found.clients:
        carry_out(opened, plan_undo(opened, client))
    if not home.root.exists():
        return RemovedAll((), jobs, Outcomes(()), (), ())
    with stack_lock(home, "uninstall"):
        watchdog = stop_one(WATCHDOG, home.state_dirs)
        services = Outcomes((watchdog, *stop_services(opened).services))
        if not services.is_success:
            failed = ", ".join(each.name for each in services.services if each.outcome == "failed")
            raise StackError(
                f"These services could not be stopped: {failed}. Nothing was deleted.",
                hint="`mlx-stack status` shows them; then run this again.",
            )
        doomed = found.models if with_models else ()
        for model in doomed:
            remove(found.model_dir, model)
        _delete(home, found.model_dir)
    page = man_page()
    if page is not None:
        page.remove()
    kept = tuple(path for path in (home.root, found.model_dir) if list_folder(path))
    names = tuple(model.path.name for model in doomed)
    return RemovedAll(found.clients, jobs, services, names, kept)


def _delete(home: Home, model_dir: Path) -> None:
    """Remove what we wrote, and folders that are empty then."""
    for name in OURS:
        path = home.root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if not list_folder(model_dir) - {"inventory.json", ".incoming"}:
        shutil.rmtree(model_dir, ignore_errors=True)
    if not list_folder(home.root):
        home.root.rmdir()


def list_folder(folder: Path) -> set[str]:
    """The names in a folder; none if there is no such folder."""
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
