"""Write, show or take back what other programs need to know of this endpoint."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlx_stack import atomic_file
from mlx_stack.clients.documents import DocumentError
from mlx_stack.clients.registry import (
    CLIENTS,
    Client,
    ClientFile,
    Connection,
    Surroundings,
    find_client,
)
from mlx_stack.errors import InvalidFileError, StackError, UsageError
from mlx_stack.operations.endpoint import gateway_endpoint, require_key
from mlx_stack.paths import Home
from mlx_stack.stack import load_stack

BACKUP_SUFFIX = ".before-mlx-stack"
_MASK = "********"


@dataclass(frozen=True, slots=True)
class FileChange:
    """What happens to one file.

    Attributes:
        path: The file.
        before: Its text; None where there is no file.
        after: Its text then; None where it is removed.
        secret: What must not be shown of either.
    """

    path: Path
    before: str | None
    after: str | None
    secret: str

    @property
    def is_change(self) -> bool:
        """Whether anything is different."""
        return self.before != self.after

    @property
    def backup(self) -> Path:
        """Where the file as it was before the first connection is kept."""
        return self.path.with_name(self.path.name + BACKUP_SUFFIX)

    def diff(self) -> str:
        """The change as a unified diff, the key masked."""
        import difflib

        sides = [(text or "").replace(self.secret, _MASK) for text in (self.before, self.after)]
        lines = difflib.unified_diff(
            sides[0].splitlines(keepends=True),
            sides[1].splitlines(keepends=True),
            str(self.path),
            str(self.path),
        )
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class Plan:
    """What connecting a client, or taking it back, means.

    Attributes:
        client: The client.
        changes: Its files, also those that stay as they are.
        next_step: What the user does then.
    """

    client: Client
    changes: tuple[FileChange, ...]
    next_step: str


def surroundings(home: Home, variables: Mapping[str, str] = os.environ) -> Surroundings:
    """Where this user's files are."""
    return Surroundings(Path.home(), variables, sys.platform == "darwin", home.root)


def plan_connect(home: Home, name: str, around: Surroundings) -> Plan:
    """What would be written for the client `name`; writes nothing.

    Raises:
        UsageError: There is no such client.
        NoStackError: No stack is defined.
        InvalidFileError: The client's file is damaged; it is left alone.
    """
    client, connection = _require_client(name), _connection(home)
    changes = tuple(
        _changed(file, connection.key, undo=False) for file in client.files(around, connection)
    )
    return Plan(client, changes, _next_step(client, connection, changes))


def plan_undo(home: Home, name: str, around: Surroundings) -> Plan:
    """What would be taken back for the client `name`; writes nothing.

    Only values that are still as `connect` wrote them are touched: they return to what the backup
    says, or go. What was changed since stays.

    Raises:
        As `plan_connect`.
    """
    client, connection = _require_client(name), _connection(home)
    files = client.files(around, connection)
    changes = tuple(_changed(file, connection.key, undo=True) for file in files)
    return Plan(client, changes, f"{client.title} is as it was.")


def apply(plan: Plan) -> None:
    """Carry a plan out. The first change of a file leaves its backup beside it.

    Raises:
        OSError: A file can't be written; it is as it was.
    """
    for change in plan.changes:
        if not change.is_change:
            continue
        if change.after is None:
            change.path.unlink()
            continue
        change.path.parent.mkdir(parents=True, exist_ok=True)
        if change.before is not None and not change.backup.exists():
            atomic_file.write_text(change.backup, change.before, mode=atomic_file.PRIVATE)
        # the file holds the key now, whoever could read it before
        target = change.path.resolve()  # dotfiles are often links into a repository
        atomic_file.write_text(target, change.after, mode=atomic_file.PRIVATE)


def discard_backups(plan: Plan) -> None:
    """Remove the backups of a connection that was taken back."""
    for change in plan.changes:
        change.backup.unlink(missing_ok=True)


def connected_clients(home: Home, around: Surroundings) -> dict[str, bool]:
    """Every client's name, and whether its files say what `connect` would write."""
    names = [client.name for client in CLIENTS]
    return {name: _is_connected(home, name, around) for name in names}


def _is_connected(home: Home, name: str, around: Surroundings) -> bool:
    try:
        plan = plan_connect(home, name, around)
    except StackError:  # no stack, no key yet, or a damaged file: nothing is connected
        return False
    return not any(change.is_change for change in plan.changes)


def _require_client(name: str) -> Client:
    client = find_client(name)
    if client is None:
        known = ", ".join(client.name for client in CLIENTS)
        raise UsageError(f"{name!r} can't be connected.", hint=f"There are: {known}.")
    return client


def _connection(home: Home) -> Connection:
    stack = load_stack(home.stack)
    endpoint = gateway_endpoint(home)
    models = {tier.name: tier.context_tokens for tier in stack.tiers}
    return Connection(endpoint.root_url, endpoint.base_url, require_key(endpoint), models)


def _changed(file: ClientFile, secret: str, *, undo: bool) -> FileChange:
    before = _read(file.path)
    try:
        after = _undone(file, before) if undo else _with_settings(file, before or "")
    except DocumentError as error:
        hint = "The file was left alone. Mend it, then run this again."
        raise InvalidFileError(file.path, str(error), hint=hint) from error
    return FileChange(file.path, before, after, secret)


def _with_settings(file: ClientFile, text: str) -> str:
    for setting in file.settings:
        if file.format.get(text, setting.path) != setting.value:
            text = file.format.set(text, setting.path, setting.value)
    return text


def _undone(file: ClientFile, before: str | None) -> str | None:
    """The text without our values; None where nothing but them was ever in it."""
    if before is None:
        return None
    backup = _read(file.path.with_name(file.path.name + BACKUP_SUFFIX))
    text = before
    for setting in file.settings:
        if file.format.get(text, setting.path) != setting.value:
            continue
        earlier = file.format.get(backup, setting.path) if backup is not None else None
        if earlier is None:
            text = file.format.delete(text, setting.path)
        else:
            text = file.format.set(text, setting.path, earlier)
    is_ours_alone = backup is None and "".join(text.split()) in ("", "{}", "[]")
    return None if is_ours_alone else text


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise InvalidFileError(path, "is not UTF-8 text") from error


def _next_step(client: Client, connection: Connection, changes: Sequence[FileChange]) -> str:
    return client.next_step.format(main=connection.main, file=changes[0].path)
