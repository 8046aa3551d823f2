"""The state folder: modes, owners, files that can be read, the address of the gateway."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from mlx_catalog import CatalogError
from mlx_stack.credentials import read_gateway_key
from mlx_stack.doctor.finding import Finding, of_error, ok
from mlx_stack.errors import NoStackError, StackError
from mlx_stack.gateway.endpoint import is_exposed
from mlx_stack.gateway.keys import list_keys
from mlx_stack.hardware import known_hardware
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack

_OTHERS = 0o077


def check_permissions(home: Home) -> Iterator[Finding]:
    """Who can read the state folder and the files that hold keys."""
    if not home.root.exists():
        yield ok("state-folder", f"{home.root} doesn't exist yet; the first command creates it.")
        return
    secret = (home.config, home.credentials, home.client_keys, home.ledger)
    modes = ((home.root, 0o700), *((path, 0o600) for path in secret))
    wrong = [
        finding for path, mode in modes if path.exists() for finding in _check_mode(path, mode)
    ]
    yield from wrong
    if not wrong:
        yield ok("state-folder", f"{home.root} is readable by its owner only.")


def _check_mode(path: Path, mode: int) -> Iterator[Finding]:
    status = path.stat()
    if status.st_uid != os.getuid():
        yield Finding(
            "owner",
            "problem",
            f"{path} belongs to another user (uid {status.st_uid}).",
            "A command was probably run with sudo." if status.st_uid == 0 else "",
            f'sudo chown -R "$USER" {path}',
        )
        return
    if not os.access(path, os.W_OK):
        problem, reason = "can't be written", "Commands that change something fail."
    elif status.st_mode & _OTHERS:
        problem, reason = "can be read by other users", "It can hold keys."
    else:
        return
    yield Finding(
        "mode",
        "problem",
        f"{path} {problem} (mode {status.st_mode & 0o777:04o}).",
        reason,
        f"chmod {mode:04o} {path}",
        repair=partial(path.chmod, mode),
        repaired=f"{path} has mode {mode:04o} now.",
    )


def check_files(opened: OpenStack) -> Iterator[Finding]:
    """Whether the files that commands read in the state folder can be read."""
    for check, what, path, read in _files(opened):
        try:
            read()
        except NoStackError as error:
            yield of_error("stack", error, "info")
        except StackError as error:
            yield of_error(check, error)
        except CatalogError as error:
            first = str(error).partition("\n")[0]
            fix = "`mlx-stack models list --catalog` shows everything that is wrong with it."
            yield Finding(check, "problem", first, "Until then, no model can be looked up.", fix)
        else:
            yield ok(check, f"{what}: {'OK' if path.exists() else 'none yet'}.")


def _files(opened: OpenStack) -> Iterator[tuple[str, str, Path, Callable[[], object]]]:
    """Each check's name, what it reads, where that is, and its reader."""
    home = opened.home
    yield "stack-file", "Stack file", home.stack, lambda: opened.stack
    yield "config-file", "Configuration", home.config, lambda: opened.config
    yield "key-file", "Gateway key", home.credentials, lambda: read_gateway_key(home)
    yield "client-keys", "Clients' keys", home.client_keys, lambda: list_keys(home)
    if home.profile.exists():
        yield "profile-file", "Hardware profile", home.profile, lambda: known_hardware(home)
    yield "catalog", "Your catalog entries", home.catalog, lambda: opened.catalog


def check_exposure(opened: OpenStack) -> Iterator[Finding]:
    """Whether the gateway is open to the network.

    Raises:
        InvalidFileError: When the configuration is damaged.
    """
    host = opened.config.gateway_host
    if not is_exposed(host):
        yield ok("exposure", "The gateway listens on this machine only.")
        return
    yield Finding(
        "exposure",
        "warning",
        f"The gateway listens on {host}: anyone on your network with the key can use it.",
        "Without TLS, the key and prompts can be intercepted. On macOS 15 and later, clients on "
        "other Macs also need permission under Privacy & Security > Local Network.",
        "Put TLS in front of it, or `mlx-stack config set gateway-host 127.0.0.1` and a tunnel.",
    )
