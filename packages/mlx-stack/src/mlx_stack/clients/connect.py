"""Write, show or undo the configuration that other programs need for this endpoint."""

import difflib
import itertools
import os
import stat
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mlx_stack import atomic_file
from mlx_stack.clients.client import (
    Client,
    ClientEndpoint,
    ClientFile,
    Surroundings,
    answer_tokens,
    has_room,
)
from mlx_stack.clients.connections import (
    Connections,
    WrittenFile,
    WrittenValue,
    digest_of_content,
    read_connections,
    save_connections,
)
from mlx_stack.clients.documents import FORMATS, DocumentPath, Format, TextLayout
from mlx_stack.clients.jsonc import DocumentError
from mlx_stack.clients.registry import CLIENTS, require_client
from mlx_stack.credentials import MASK, mask_keys, read_gateway_key
from mlx_stack.errors import InvalidFileError, StackError
from mlx_stack.gateway.endpoint import gateway_endpoint, require_key
from mlx_stack.gateway.keys import (
    MadeKey,
    drop_key_of_program,
    has_key_of_program,
    keep_key,
    key_of_program,
)
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.stack import require_tier

_BACKUP_SUFFIX = ".before-mlx-stack"


@dataclass(frozen=True, slots=True)
class FileChange:
    """What happens to one file.

    Attributes:
        before: Its content; None if there is no file.
        after: Its content after that; None if it is removed.
        secret: What must not be shown of either, or None.
        is_first: Whether we haven't changed anything in the file so far.
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
        before, after = (
            mask_keys(text or "", self.secret).splitlines(keepends=True)
            for text in (self.before, self.after)
        )
        lines = difflib.unified_diff(before, after, str(self.path), str(self.path))
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)

    def to_document(self) -> dict[str, object]:
        """The change as JSON."""
        return {
            "path": str(self.path),
            "changed": self.is_change,
            "backup": str(self.backup) if self.backup.exists() else None,
            "diff": self.diff(),
        }


@dataclass(frozen=True, slots=True)
class ConnectionPlan:
    """What connecting a client, or undoing it, means.

    Attributes:
        made: The client's key; None where a connection is undone.
    """

    client: Client
    changes: tuple[FileChange, ...]
    connections: Connections
    next_step: str
    made: MadeKey | None = None
    is_undo: bool = False
    is_done: bool = False

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {
            "client": self.client.name,
            "dry_run": not self.is_done,
            "files": [change.to_document() for change in self.changes],
            "next_step": self.next_step,
        }


@dataclass(frozen=True, slots=True)
class KnownClient:
    """A client as this machine has it.

    Attributes:
        is_connected: Whether its files say what `connect` would write; where it has none, whether
            it has a key.
        found_at: What shows that it is on this machine; None where nothing does.
    """

    client: Client
    is_connected: bool
    found_at: Path | None

    def to_document(self) -> dict[str, object]:
        """The fields in the JSON answer."""
        return {
            "name": self.client.name,
            "title": self.client.title,
            "connected": self.is_connected,
            "by_hand": self.client.files is None,
            "found_at": None if self.found_at is None else str(self.found_at),
        }


@dataclass(frozen=True, slots=True)
class KnownClients:
    """Every client that can be connected."""

    clients: tuple[KnownClient, ...]

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {"clients": [each.to_document() for each in self.clients]}


def surroundings(home: Home, variables: Mapping[str, str] = os.environ) -> Surroundings:
    """Where this user's files are."""
    return Surroundings(Path.home(), variables, sys.platform == "darwin", home.root)


def plan_connect(
    opened: OpenStack, name: str, around: Surroundings, tier: str | None = None
) -> ConnectionPlan:
    """What would be written for the client `name`; writes nothing.

    What an earlier connection wrote and this one doesn't (say, after removing a tier) is undone.

    Args:
        tier: The one for the real work; None takes the first of the stack.

    Raises:
        UsageError: When there is no such client or tier.
        NoStackError: When no stack is defined.
        StackError: When what the client begins with doesn't fit into the tier.
        InvalidFileError: When the client's file is damaged; it is left alone.
    """
    client = require_client(name)
    endpoint, made = _client_endpoint(opened, client, tier)
    _ensure_room(opened, client, endpoint)
    connections = read_connections(opened.home.connections)
    written = connections.files_of(client.name)
    files = () if client.files is None else client.files(around, endpoint)
    changes: list[FileChange] = []
    for file in files:
        before, known = _read(file.path), written.get(file.path)
        after = _connected(file, before, known)
        # private, whoever could read it before: the file holds the key now
        mode, is_first = atomic_file.PRIVATE, known is None
        change = FileChange(file.path, before, after, mode, endpoint.key, is_first=is_first)
        if change.is_change:
            written[file.path] = _remembered(file, change, after, known)
        changes.append(change)
    return ConnectionPlan(
        client,
        tuple(changes),
        connections.with_client(client.name, written),
        client.next_step(around, replace(endpoint, key=MASK)),
        made,
    )


def plan_undo(opened: OpenStack, name: str) -> ConnectionPlan:
    """What would be undone for the client `name`; writes nothing.

    A file that only we have changed returns to what it was, byte for byte. In any other, only
    values that are still as `connect` wrote them are touched: they return to what the backup says,
    or are removed. The stack and the key may have changed since, or be missing.

    Raises:
        UsageError: When there is no such client.
        InvalidFileError: When the client's file, or what is remembered, is damaged.
    """
    client = require_client(name)
    connections = read_connections(opened.home.connections)
    secret = read_gateway_key(opened.home)
    changes: list[FileChange] = []
    for path, file in connections.files_of(client.name).items():
        before = _read(path)
        mode = atomic_file.PRIVATE if file.earlier_mode is None else file.earlier_mode
        changes.append(FileChange(path, before, _undone(path, file, before), mode, secret))
    if changes:
        next_step = f"{client.title} restored."
    elif client.files is None and has_key_of_program(opened.home, client.name):
        next_step = f"The key of {client.title} has been revoked: remove it there."
    else:
        next_step = f"{client.title} is not connected."
    remembered = connections.with_client(client.name, {})
    return ConnectionPlan(client, tuple(changes), remembered, next_step, is_undo=True)


def carry_out(opened: OpenStack, plan: ConnectionPlan) -> ConnectionPlan:
    """The plan once its changes are made, the client's key among them.

    A file's first change leaves a backup next to it.

    Raises:
        OSError: When a file can't be written; it is as it was.
    """
    changes = [change for change in plan.changes if change.is_change]
    if changes and not plan.is_undo:
        # first, so that nothing is written without being remembered
        save_connections(opened.home.connections, plan.connections)
    if plan.made is not None and plan.made.is_new:
        keep_key(opened.home, plan.made)
    for change in changes:
        if change.is_first and change.before is not None and not change.backup.exists():
            atomic_file.write_text(change.backup, change.before, mode=atomic_file.PRIVATE)
        target = change.path.resolve()  # dotfiles are often links into a repository
        if change.after is None:
            target.unlink()
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            atomic_file.write_text(target, change.after, mode=change.mode)
    if plan.is_undo and plan.changes:
        for change in plan.changes:
            change.backup.unlink(missing_ok=True)
        save_connections(opened.home.connections, plan.connections)
    if plan.made is None:
        drop_key_of_program(opened.home, plan.client.name)
        return replace(plan, is_done=True)
    return replace(plan, is_done=True, next_step=plan.next_step.replace(MASK, plan.made.key))


def list_clients(opened: OpenStack, around: Surroundings) -> KnownClients:
    """Every program that can be connected; reads only."""
    return KnownClients(
        tuple(
            KnownClient(client, _is_connected(opened, client, around), around.find(client.traces))
            for client in CLIENTS
        )
    )


def _is_connected(opened: OpenStack, client: Client, around: Surroundings) -> bool:
    try:
        tiers = [tier.name for tier in opened.stack.chatting]
    except StackError:
        return False
    return any(_is_connected_to(tier, opened, client, around) for tier in tiers)


def _is_connected_to(tier: str, opened: OpenStack, client: Client, around: Surroundings) -> bool:
    try:
        plan = plan_connect(opened, client.name, around, tier)
    except StackError:  # no key yet, no room, or a damaged file: nothing is connected
        return False
    is_known = plan.made is not None and not plan.made.is_new
    return is_known and not any(change.is_change for change in plan.changes)


def _client_endpoint(
    opened: OpenStack, client: Client, tier: str | None
) -> tuple[ClientEndpoint, MadeKey]:
    _ = opened.stack.main_tier  # without one there is nothing to connect to
    models = {each.name: each.context_tokens for each in opened.stack.chatting}
    if tier is not None:
        require_tier(tier, models)
        models = {tier: models[tier], **models}
    endpoint = gateway_endpoint(opened)
    made = key_of_program(opened.home, require_key(endpoint), client.name, client.priority)
    return ClientEndpoint(endpoint.root_url, endpoint.base_url, made.key, models), made


def _ensure_room(opened: OpenStack, client: Client, endpoint: ClientEndpoint) -> None:
    """Return where what an agent begins with fits into the model for the real work."""
    needed, context_tokens = client.first_prompt_tokens, endpoint.main_context
    if has_room(context_tokens, needed):
        return
    roomy = [name for name, tokens in endpoint.models.items() if has_room(tokens, needed)]
    if roomy:
        hint = (
            f"`mlx-stack connect {client.name} --tier {roomy[0]}` uses a tier that has enough room."
        )
    else:
        hint = (
            "`mlx-stack init --intent agent-fleet --force` plans longer contexts where the memory "
            f"allows it; or raise `context_tokens` of {endpoint.main} in {opened.home.stack}. Then "
            "run `mlx-stack up` and try again."
        )
    raise StackError(
        f"{client.title} starts with about {needed:,} tokens of instructions and tools; "
        f"{endpoint.main} has {context_tokens:,}, of which {answer_tokens(context_tokens):,} are "
        "for an answer.",
        hint=hint,
    )


def _connected(file: ClientFile, before: str | None, known: WrittenFile | None) -> str:
    """The file's content with our values, and without those that are no longer ours."""
    layout, editor = TextLayout.of(before or ""), FORMATS[file.format]
    text = layout.text_of(before or "")
    ours = {**file.frame, **file.settings}
    with _naming(file.path):
        if known is not None:
            stale = known.values_in(text, besides=ours)
            text = _with_earlier(text, editor, stale, _read(_backup_of(file.path)))
        for path, value in (ours if before is None else file.settings).items():
            if editor.get(text, path) != value:
                text = editor.set(text, path, value)
    return layout.raw(text)


def _remembered(
    file: ClientFile, change: FileChange, after: str, known: WrittenFile | None
) -> WrittenFile:
    """What `_undone` needs to know of a file that is about to be written."""
    known_paths = () if known is None else [value.path for value in known.values]
    frame = {
        path: value
        for path, value in file.frame.items()
        if change.before is None or path in known_paths
    }
    if change.before is None:
        is_ours_alone = True
    elif known is None:
        is_ours_alone = not change.backup.exists()
    else:
        is_ours_alone = known.is_as_left(change.before)
    return WrittenFile(
        format=file.format,
        values=tuple(itertools.starmap(WrittenValue.of, {**frame, **file.settings}.items())),
        content_sha256=digest_of_content(after) if is_ours_alone else None,
        earlier_mode=known.earlier_mode if known is not None else _mode(file.path),
    )


def _undone(path: Path, file: WrittenFile, before: str | None) -> str | None:
    """The content without our values; None if there was never anything else in it."""
    if before is None:
        return None
    backup = _read(_backup_of(path))
    if file.is_as_left(before):
        return backup
    layout = TextLayout.of(before)
    text = layout.text_of(before)
    with _naming(path):
        text = _with_earlier(text, file.editor, file.values_in(text), backup)
    is_empty = "".join(text.split()) in ("", "{}", "[]")
    return None if backup is None and is_empty else layout.raw(text)


def _with_earlier(text: str, editor: Format, paths: list[DocumentPath], backup: str | None) -> str:
    """`text` with the values that the backup has at `paths`, or with none."""
    plain = None if backup is None else TextLayout.of(backup).text_of(backup)
    for path in paths:
        earlier = None if plain is None else editor.get(plain, path)
        text = editor.delete(text, path) if earlier is None else editor.set(text, path, earlier)
    return text


@contextmanager
def _naming(path: Path) -> Generator[None]:
    """Around every edit, so that an error names the file."""
    try:
        yield
    except (DocumentError, RecursionError) as error:  # the latter: nested without end
        hint = "The file was left alone. Fix it, then run this again."
        raise InvalidFileError(path, str(error), hint=hint) from error


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
