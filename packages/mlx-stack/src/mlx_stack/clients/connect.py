"""Write, show or take back what other programs need to know of this endpoint."""

import os
import stat
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlx_stack import atomic_file
from mlx_stack.clients.connections import (
    Connections,
    WrittenFile,
    digest_of_content,
    format_name,
    read_connections,
    save_connections,
    written_value,
)
from mlx_stack.clients.documents import DocumentError, Format, Layout
from mlx_stack.clients.documents import Path as DocumentPath
from mlx_stack.clients.registry import (
    CLIENTS,
    Client,
    ClientFile,
    Connection,
    Surroundings,
    find_client,
)
from mlx_stack.credentials import mask_keys, read_gateway_key
from mlx_stack.errors import InvalidFileError, StackError, UsageError
from mlx_stack.gateway.endpoint import gateway_endpoint, require_key
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack

_BACKUP_SUFFIX = ".before-mlx-stack"


@dataclass(frozen=True, slots=True)
class FileChange:
    """What happens to one file.

    Attributes:
        path: The file.
        before: Its content; None where there is no file.
        after: Its content then; None where it is removed.
        mode: Its permissions then.
        secret: What must not be shown of either, or None.
        is_first: Whether we have changed nothing in the file so far.
    """

    path: Path
    before: str | None
    after: str | None
    mode: int
    secret: str | None
    is_first: bool = False

    @property
    def is_change(self) -> bool:
        """Whether anything is different."""
        return self.before != self.after

    @property
    def backup(self) -> Path:
        """Where the file as it was before the first connection is kept."""
        return _backup_of(self.path)

    def diff(self) -> str:
        """The change as a unified diff, keys masked."""
        import difflib

        sides = [mask_keys(text or "", self.secret) for text in (self.before, self.after)]
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
        connections: What is remembered of all clients then.
        next_step: What the user does then.
    """

    client: Client
    changes: tuple[FileChange, ...]
    connections: Connections
    next_step: str


def surroundings(home: Home, variables: Mapping[str, str] = os.environ) -> Surroundings:
    """Where this user's files are."""
    return Surroundings(Path.home(), variables, sys.platform == "darwin", home.root)


def plan_connect(opened: OpenStack, name: str, around: Surroundings) -> Plan:
    """What would be written for the client `name`; writes nothing.

    What an earlier connection wrote and this one doesn't, of a tier that is gone, say, is taken
    back.

    Raises:
        UsageError: There is no such client.
        NoStackError: No stack is defined.
        InvalidFileError: The client's file is damaged; it is left alone.
    """
    client, connection = _require_client(name), _connection(opened)
    connections = read_connections(opened.home.connections)
    written = connections.files_of(client.name)
    changes: list[FileChange] = []
    for file in client.files(around, connection):
        before, known = _read(file.path), written.get(file.path)
        after = _connected(file, before, known)
        # the file holds the key then, whoever could read it before
        mode = atomic_file.PRIVATE
        change = FileChange(file.path, before, after, mode, connection.key, is_first=known is None)
        if change.is_change:
            written[file.path] = _remembered(file, change, after, known)
        changes.append(change)
    return Plan(
        client,
        tuple(changes),
        connections.with_client(client.name, written),
        _next_step(client, connection, changes),
    )


def plan_undo(opened: OpenStack, name: str) -> Plan:
    """What would be taken back for the client `name`; writes nothing.

    A file that nobody else has changed returns to what it was, to the byte. In any other, only
    values that are still as `connect` wrote them are touched: they return to what the backup says,
    or go. The stack and the key need not be those of then, or be there at all.

    Raises:
        UsageError: There is no such client.
        InvalidFileError: The client's file, or what is remembered, is damaged.
    """
    client = _require_client(name)
    connections = read_connections(opened.home.connections)
    secret = read_gateway_key(opened.home)
    changes: list[FileChange] = []
    for path, file in connections.files_of(client.name).items():
        before = _read(path)
        mode = atomic_file.PRIVATE if file.earlier_mode is None else file.earlier_mode
        changes.append(FileChange(path, before, _undone(path, file, before), mode, secret))
    next_step = f"{client.title} is as it was." if changes else f"{client.title} is not connected."
    return Plan(client, tuple(changes), connections.with_client(client.name, {}), next_step)


def connect(opened: OpenStack, plan: Plan) -> None:
    """Carry out what `plan_connect` planned. A file's first change leaves a backup beside it.

    Raises:
        OSError: A file can't be written; it is as it was.
    """
    if any(change.is_change for change in plan.changes):
        # first, so that nothing is left unremembered
        save_connections(opened.home.connections, plan.connections)
    for change in plan.changes:
        if change.is_change:
            if change.is_first and change.before is not None and not change.backup.exists():
                atomic_file.write_text(change.backup, change.before, mode=atomic_file.PRIVATE)
            _write(change)


def undo(opened: OpenStack, plan: Plan) -> None:
    """Carry out what `plan_undo` planned; the backups go last.

    Raises:
        OSError: A file can't be written; it is as it was.
    """
    for change in plan.changes:
        if change.is_change:
            _write(change)
    for change in plan.changes:
        change.backup.unlink(missing_ok=True)
    if plan.changes:
        save_connections(opened.home.connections, plan.connections)


def connected_clients(opened: OpenStack, around: Surroundings) -> dict[str, bool]:
    """Every client's name, and whether its files say what `connect` would write."""
    names = [client.name for client in CLIENTS]
    return {name: _is_connected(opened, name, around) for name in names}


def _is_connected(opened: OpenStack, name: str, around: Surroundings) -> bool:
    try:
        plan = plan_connect(opened, name, around)
    except StackError:  # no stack, no key yet, or a damaged file: nothing is connected
        return False
    return not any(change.is_change for change in plan.changes)


def _require_client(name: str) -> Client:
    client = find_client(name)
    if client is None:
        known = ", ".join(client.name for client in CLIENTS)
        raise UsageError(f"{name!r} can't be connected.", hint=f"There are: {known}.")
    return client


def _connection(opened: OpenStack) -> Connection:
    stack = opened.stack
    endpoint = gateway_endpoint(opened)
    models = {tier.name: tier.context_tokens for tier in stack.tiers}
    return Connection(endpoint.root_url, endpoint.base_url, require_key(endpoint), models)


def _connected(file: ClientFile, before: str | None, known: WrittenFile | None) -> str:
    """The file's content with our values, and without those that are no longer ours."""
    layout = Layout.of(before or "")
    text = layout.take_off(before or "")
    settings = (*file.frame, *file.settings) if before is None else file.settings
    kept = {setting.path for setting in (*file.frame, *file.settings)}
    stale = [] if known is None else [each for each in known.values if each.path not in kept]
    backup = _read(_backup_of(file.path))
    with _naming(file.path):
        for value in stale:
            if value.is_in(text, file.format):
                text = _with_earlier(text, file.format, value.path, backup)
        for setting in settings:
            if file.format.get(text, setting.path) != setting.value:
                text = file.format.set(text, setting.path, setting.value)
    return layout.put_on(text)


def _remembered(
    file: ClientFile, change: FileChange, after: str, known: WrittenFile | None
) -> WrittenFile:
    """What `_undone` needs to know of a file that is about to be written."""
    known_paths = () if known is None else [value.path for value in known.values]
    frame = [each for each in file.frame if change.before is None or each.path in known_paths]
    if change.before is None:
        is_ours_alone = True
    elif known is None:
        is_ours_alone = not change.backup.exists()
    else:
        is_ours_alone = known.is_as_left(change.before)
    earlier_mode = known.earlier_mode if known is not None else _mode(file.path)
    return WrittenFile(
        format=format_name(file.format),
        values=tuple(written_value(setting) for setting in (*frame, *file.settings)),
        content_sha256=digest_of_content(after) if is_ours_alone else None,
        earlier_mode=earlier_mode,
    )


def _undone(path: Path, file: WrittenFile, before: str | None) -> str | None:
    """The content without our values; None where nothing but them was ever in it."""
    if before is None:
        return None
    backup = _read(_backup_of(path))
    if file.is_as_left(before):
        return backup
    layout, format_ = Layout.of(before), file.editor()
    text = layout.take_off(before)
    with _naming(path):
        for value in file.values:
            if value.is_in(text, format_):
                text = _with_earlier(text, format_, value.path, backup)
    is_empty = "".join(text.split()) in ("", "{}", "[]")
    return None if backup is None and is_empty else layout.put_on(text)


def _with_earlier(text: str, format_: Format, path: DocumentPath, backup: str | None) -> str:
    """`text` with the value at `path` that the backup has there, or with none."""
    earlier = None if backup is None else format_.get(Layout.of(backup).take_off(backup), path)
    return format_.delete(text, path) if earlier is None else format_.set(text, path, earlier)


@contextmanager
def _naming(path: Path) -> Generator[None]:
    """Around every edit, so that what is wrong with a file is said with its name."""
    try:
        yield
    except (DocumentError, RecursionError) as error:  # the latter: nested without end
        hint = "The file was left alone. Mend it, then run this again."
        raise InvalidFileError(path, str(error), hint=hint) from error


def _write(change: FileChange) -> None:
    target = change.path.resolve()  # dotfiles are often links into a repository
    if change.after is None:
        target.unlink()
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_file.write_text(target, change.after, mode=change.mode)


def _read(path: Path) -> str | None:
    """A file's content, its line ends and byte order mark included."""
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        hint = "The file was left alone. Save it as UTF-8, then run this again."
        raise InvalidFileError(path, "is not UTF-8 text", hint=hint) from error


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return None


def _backup_of(path: Path) -> Path:
    return path.with_name(path.name + _BACKUP_SUFFIX)


def _next_step(client: Client, connection: Connection, changes: Sequence[FileChange]) -> str:
    return client.next_step.format(main=connection.main, file=changes[0].path)
