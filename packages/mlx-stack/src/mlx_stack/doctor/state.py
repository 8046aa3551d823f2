"""The state folder: modes, owners, files that can be read, the key."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from mlx_catalog import CatalogError
from mlx_stack.credentials import read_gateway_key
from mlx_stack.doctor.finding import Finding, ok
from mlx_stack.errors import NoStackError, StackError
from mlx_stack.gateway.endpoint import is_exposed
from mlx_stack.hardware import known_hardware
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack

_OTHERS = 0o077


def check_permissions(home: Home) -> Iterator[Finding]:
    """Who can read the state folder and the files that hold keys."""
    if not home.root.exists():
        yield ok("state-folder", f"{home.root} does not exist yet; the first command makes it.")
        return
    wanted = ((home.root, 0o700), (home.config, 0o600), (home.credentials, 0o600))
    wrong = [
        finding
        for path, mode in wanted
        if path.exists() and (finding := _check_mode(path, mode)) is not None
    ]
    yield from wrong
    if not wrong:
        yield ok("state-folder", f"{home.root} is readable by its owner only.")


def _check_mode(path: Path, mode: int) -> Finding | None:
    status = path.stat()
    if status.st_uid != os.getuid():
        return Finding(
            "owner",
            "problem",
            f"{path} belongs to another user (uid {status.st_uid}).",
            "A command was probably run with sudo.",
            f'sudo chown -R "$USER" {path}',
        )
    if not os.access(path, os.W_OK):
        return Finding(
            "mode",
            "problem",
            f"{path} can't be written (mode {status.st_mode & 0o777:04o}).",
            "Commands that change something fail.",
            f"chmod {mode:04o} {path}",
            mend=partial(path.chmod, mode),
        )
    if status.st_mode & _OTHERS:
        return Finding(
            "mode",
            "problem",
            f"{path} can be read by other users (mode {status.st_mode & 0o777:04o}).",
            "It can hold keys.",
            f"chmod {mode:04o} {path}",
            mend=partial(path.chmod, mode),
        )
    return None


def check_files(opened: OpenStack) -> Iterator[Finding]:
    """Whether what the commands read in the state folder can be read."""
    for check, well, read in _FILES:
        try:
            read(opened)
        except NoStackError as error:
            yield Finding("stack", "info", error.message, fix=error.hint or "")
        except StackError as error:
            yield Finding(check, "problem", error.message, fix=error.hint or "")
        except CatalogError as error:
            first = str(error).partition("\n")[0]
            fix = "`mlx-stack models --catalog` tells all that is wrong with it."
            yield Finding(check, "problem", first, "No model can be looked up before.", fix)
        else:
            yield ok(check, well)


_FILES: tuple[tuple[str, str, Callable[[OpenStack], object]], ...] = (
    (
        "stack-file",
        "The stack file can be read, or there is none yet.",
        lambda opened: opened.stack,
    ),
    (
        "config-file",
        "The configuration can be read, or there is none yet.",
        lambda opened: opened.config,
    ),
    (
        "key-file",
        "The gateway's key can be read, or there is none yet.",
        lambda opened: read_gateway_key(opened.home),
    ),
    (
        "profile-file",
        "The hardware profile can be read, or there is none yet.",
        lambda opened: opened.home.profile.exists() and known_hardware(opened.home),
    ),
    ("catalog", "The catalog can be read, with your own entries.", lambda opened: opened.catalog),
)
"""Name of the check, what is said when all is well, and its reader."""


def check_exposure(opened: OpenStack) -> Iterator[Finding]:
    """Whether the gateway is open to the network.

    Raises:
        InvalidFileError: The configuration is damaged.
    """
    host = opened.config.gateway_host
    if not is_exposed(host):
        yield ok("exposure", "The gateway listens on this machine only.")
        return
    yield Finding(
        "exposure",
        "warning",
        f"The gateway listens on {host}, for everybody on the network who has the key.",
        "The connection is not encrypted: key and prompts can be read on the way. On macOS 15 and "
        "later, clients on other Macs also need permission under Privacy & Security > Local "
        "Network.",
        "Put TLS in front of it, or `mlx-stack config set gateway-host 127.0.0.1` and a tunnel.",
    )
