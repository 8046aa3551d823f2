"""Clients' keys: made, listed, revoked. A running gateway looks at their file with each request.

(decision 0085)
"""

import base64
import hmac
import secrets
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from mlx_gateway.errors import ConfigError
from mlx_gateway.keys import ADMIN, ClientKey, ClientKeys, Priority, load_keys, new_key
from mlx_gateway.ledger import LedgerError
from mlx_gateway.usage import key_uses
from mlx_procsup import acquire_lock
from mlx_stack import atomic_file
from mlx_stack.errors import InvalidFileError, StackError, UsageError
from mlx_stack.gateway.litellm import CLOUD_NAME
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack

NO_TIERS = "none"
_HINT = "Remove the file; every client but the admin then needs a new key (`mlx-stack keys add`)."


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A client's key, at the only time when it is known.

    Attributes:
        is_new: Whether it is in no file yet.
    """

    client: ClientKey
    key: str
    is_new: bool = True

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {"name": self.client.name, "key": self.key, **_rights(self.client)}


@dataclass(frozen=True, slots=True)
class ListedKeys:
    """Every client, in the order in which they were added, and when its key was last used.

    Attributes:
        last_used_at: Seconds since the epoch, by name; missing where it was not, or nobody knows.
    """

    clients: tuple[ClientKey, ...]
    last_used_at: Mapping[str, float]

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        rows = [
            {
                "name": each.name,
                **_rights(each),
                "created_at": each.created_at or None,
                "last_used_at": self.last_use(each),
            }
            for each in self.clients
        ]
        return {"keys": rows}

    def last_use(self, client: ClientKey) -> str | None:
        """When this key was last used; a use of an earlier one of the same name doesn't count."""
        at = self.last_used_at.get(client.name)
        text = None if at is None else _iso(datetime.fromtimestamp(at, UTC))
        return None if text is None or text < client.created_at else text


@dataclass(frozen=True, slots=True)
class RevokedKey:
    """A key that has been revoked."""

    name: str

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {"name": self.name, "revoked": True}


def list_keys(home: Home) -> ListedKeys:
    """Every client that has a key; reads only.

    Raises:
        InvalidFileError: When the file is damaged.
    """
    uses: Mapping[str, float] = {}
    with suppress(LedgerError):
        uses = key_uses(home.ledger)
    return ListedKeys(_read(home).keys, uses)


def add_key(
    opened: OpenStack,
    name: str,
    *,
    tiers: str | None = None,
    priority: Priority = Priority.INTERACTIVE,
    max_in_flight: int | None = None,
) -> MadeKey:
    """A new key for the client `name`, good from now on.

    Args:
        opened: Names the tiers that there are.
        name: The client.
        tiers: The tiers that it may use, with commas between them, or "none"; None for all.
        priority: How urgent its requests are.
        max_in_flight: How many requests it may have at once; None sets no limit.

    Raises:
        UsageError: When the name is taken or can't be one, or there is no such tier.
        NoStackError: When tiers are named, and no stack is defined.
        InvalidFileError: When the file is damaged.
    """
    made = MadeKey(
        _client(
            name=name,
            tiers=None if tiers is None else _tiers(opened, tiers),
            priority=priority,
            max_in_flight=max_in_flight,
        ),
        new_key(),
    )
    with _changing(opened.home):
        keys = _read(opened.home)
        if keys.get(name) is not None:
            raise UsageError(
                f"{name!r} already has a key.",
                hint=f"`mlx-stack keys revoke {name}` first, or choose another name.",
            )
        _write(opened.home, keys.with_key(made.client, made.key))
    return made


def revoke_key(home: Home, name: str) -> RevokedKey:
    """Let the key of the client `name` open nothing any more; answers that have begun go on.

    Raises:
        UsageError: When there is no such client.
        InvalidFileError: When the file is damaged.
    """
    if _read(home).get(name) is None:
        names = ", ".join(each.name for each in _read(home).keys) or "none yet"
        raise UsageError(f"There is no key for {name!r}.", hint=f"There are keys for: {names}.")
    with _changing(home):
        _write(home, _read(home).without(name))
    return RevokedKey(name)


def key_of_program(home: Home, admin_key: str, name: str, priority: Priority) -> MadeKey:
    """The key of a program that `connect` sets up; one in no file yet where it has none.

    It follows from the admin's key, so that it can be written into the program's files again.

    Raises:
        StackError: When a key of that name was added by hand.
        InvalidFileError: When the file is damaged.
    """
    keys = _read(home)
    known = keys.get(name)
    if known is not None and not known.seed:
        raise StackError(
            f"A key for {name!r} was added by hand.",
            hint=f"`mlx-stack keys revoke {name}`; then run this again.",
        )
    if known is not None:
        key = _derived(admin_key, known)
        if keys.digest(key).hex() == known.digest:
            return MadeKey(known, key, is_new=False)
    client = _client(name=name, priority=priority, seed=secrets.token_hex(8))
    return MadeKey(client, _derived(admin_key, client))


def keep_key(home: Home, made: MadeKey) -> None:
    """Let a program's key open the gateway from now on."""
    with _changing(home):
        _write(home, _read(home).with_key(made.client, made.key))


def has_key_of_program(home: Home, name: str) -> bool:
    """Whether `connect` gave the program a key; one that was added by hand doesn't count."""
    known = _read(home).get(name)
    return known is not None and bool(known.seed)


def drop_key_of_program(home: Home, name: str) -> None:
    """Let a program's key open nothing any more, if it has one."""
    if has_key_of_program(home, name):
        revoke_key(home, name)


def _derived(admin_key: str, client: ClientKey) -> str:
    words = f"client {client.name} {client.seed}".encode()
    digest = hmac.digest(admin_key.encode(), words, "sha256")
    return f"sk-{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def _client(**fields: object) -> ClientKey:
    created_at = _iso(datetime.now(UTC))
    try:
        client = msgspec.convert({**fields, "created_at": created_at}, ClientKey)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"A key can't be named {fields['name']!r}.",
            hint="Names have up to 64 letters, digits, dots, dashes and underscores.",
        ) from error
    if client.name == ADMIN.name:
        raise UsageError("The admin's key is the one that `mlx-stack env` prints.")
    return client


def _tiers(opened: OpenStack, names: str) -> tuple[str, ...]:
    if names == NO_TIERS:
        return ()
    asked = tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    known = [*(tier.name for tier in opened.stack.tiers), CLOUD_NAME]
    wrong = [name for name in asked if name not in known]
    if wrong or not asked:
        raise UsageError(
            f"There is no tier {wrong[0] if wrong else names!r}.",
            hint=f"The stack has: {', '.join(known[:-1])}. `{CLOUD_NAME}` and `none` are also "
            "possible.",
        )
    return asked


def _rights(client: ClientKey) -> dict[str, object]:
    return {
        "tiers": None if client.tiers is None else list(client.tiers),
        "priority": client.priority.value,
        "max_in_flight": client.max_in_flight,
    }


def _read(home: Home) -> ClientKeys:
    try:
        return load_keys(home.client_keys) or ClientKeys()
    except ConfigError as error:
        raise InvalidFileError(home.client_keys, error.problem, hint=_HINT) from error


def _write(home: Home, keys: ClientKeys) -> None:
    atomic_file.write_text(home.client_keys, keys.encode(), mode=atomic_file.PRIVATE)


@contextmanager
def _changing(home: Home) -> Generator[None]:
    """Around a change of the file, so that two commands at once lose nothing."""
    home.create()
    lock = home.client_keys.with_name("keys.lock")
    with acquire_lock(lock, "keys", on_wait=lambda _: None, on_unsupported=lambda _: None):
        yield


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
