"""Who may ask: the admin, and the clients of `keys.json`, each with the models it may use.

A key has 256 random bits, so that nobody can go through the possible ones however fast the hash
is: a slow hash, as passwords need, would only slow down every request. The hash is keyed, so that
the digests of two files can't be compared, and digests are compared in constant time, all of them
whether or not one was right (decision 0085).
"""

import hmac
import logging
import secrets
from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from typing import Annotated

import msgspec

from mlx_gateway.config_file import read_config
from mlx_gateway.errors import ConfigError

SCHEMA_VERSION = 1
_KEY_BYTES = 32

type HexDigest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
type ClientName = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
type ModelName = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]

_log = logging.getLogger("mlx_gateway")


class Priority(StrEnum):
    """How urgent a client's requests are, the most urgent first."""

    INTERACTIVE = "interactive"
    AGENT = "agent"
    BATCH = "batch"


class ClientKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A client, and what its key allows.

    Attributes:
        digest: The keyed hash of its key; "" where the key itself is at hand.
        tiers: The models that it may use; None for all of them.
        max_in_flight: How many requests it may have at once; None sets no limit.
        created_at: ISO 8601.
        seed: What its key was derived from, besides a secret; "" for a random key.
    """

    name: ClientName
    digest: Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{64})?\Z")] = ""
    tiers: tuple[ModelName, ...] | None = None
    priority: Priority = Priority.INTERACTIVE
    max_in_flight: Annotated[int, msgspec.Meta(ge=1)] | None = None
    created_at: str = ""
    seed: str = ""

    def may_use(self, model: str) -> bool:
        """Whether its requests may be for `model`, or go on to it."""
        return self.tiers is None or model in self.tiers


ADMIN = ClientKey(name="admin")
"""Whoever holds the gateway's own key."""


class ClientKeys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `keys.json`.

    Attributes:
        hash_key: The key of the hash, in hexadecimal digits.
    """

    schema_version: int = SCHEMA_VERSION
    hash_key: HexDigest = msgspec.field(default_factory=lambda: secrets.token_hex(32))
    keys: tuple[ClientKey, ...] = ()

    def digest(self, key: str | bytes) -> bytes:
        """The keyed hash of a key."""
        given = key.encode() if isinstance(key, str) else key
        return blake2b(given, key=bytes.fromhex(self.hash_key), digest_size=32).digest()

    def get(self, name: str) -> ClientKey | None:
        """The client of that name, or None."""
        return next((each for each in self.keys if each.name == name), None)

    def with_key(self, client: ClientKey, key: str) -> "ClientKeys":
        """These, and `client` with its `key`, in place of any other of its name."""
        hashed = msgspec.structs.replace(client, digest=self.digest(key).hex())
        others = self.without(client.name).keys
        return msgspec.structs.replace(self, keys=(*others, hashed))

    def without(self, name: str) -> "ClientKeys":
        """These, but for the client of that name."""
        others = tuple(each for each in self.keys if each.name != name)
        return msgspec.structs.replace(self, keys=others)

    def encode(self) -> str:
        """The text of `keys.json`; no key can be found out from it."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode() + "\n"


def new_key() -> str:
    """A key that nobody can guess."""
    return f"sk-{secrets.token_urlsafe(_KEY_BYTES)}"


def parse_keys(text: bytes, path: Path | None = None) -> ClientKeys:
    """The clients in the text of a `keys.json`; `path` is named in errors.

    Raises:
        ConfigError: When it is damaged, of a newer version, or names a client twice.
    """
    try:
        version = msgspec.json.decode(text, type=_Versioned).schema_version
        if version != SCHEMA_VERSION:
            raise ConfigError(path, f"schema_version is {version}; this gateway reads 1")
        keys = msgspec.json.decode(text, type=ClientKeys)
    except (ValueError, RecursionError) as error:
        raise ConfigError(path, f"is damaged: {error}") from error
    names = [each.name for each in keys.keys]
    twice = next((name for name in names if names.count(name) > 1 or name == ADMIN.name), None)
    if twice is not None:
        raise ConfigError(path, f"the client {twice!r} can't be named, or is named twice")
    return keys


def load_keys(path: Path) -> ClientKeys | None:
    """The clients in the file at `path`; None if there is no such file.

    Raises:
        ConfigError: When it can't be used.
    """
    try:
        content = read_config(path)
    except ConfigError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    return parse_keys(content, path)


class KeyRing:
    """The keys that open the gateway.

    A `keys.json` is read again when it has changed; a damaged one changes nothing.

    Args:
        admin: The key of `ADMIN`.
        path: `keys.json`; None where there are no other clients.
    """

    def __init__(self, admin: str, path: Path | None = None) -> None:
        self._admin = admin
        self._path = path
        self._signature: object = None
        self._refused: object = None
        self._use(ClientKeys())
        self._refresh()

    def holder(self, headers: Mapping[bytes, bytes]) -> ClientKey | None:
        """Whose key is in these headers; None where no key is right."""
        self._refresh()
        for given in _keys_given(headers):
            digest, found = self._keys.digest(given), None
            for known, client in self._known:
                if hmac.compare_digest(digest, known):
                    found = client
            if found is not None:
                return found
        return None

    def named(self, name: str) -> ClientKey | None:
        """The client of that name; None where none has a key now."""
        self._refresh()
        return ADMIN if name == ADMIN.name else self._keys.get(name)

    @staticmethod
    def is_given(headers: Mapping[bytes, bytes]) -> bool:
        """Whether there is any key in these headers."""
        return bool(_keys_given(headers))

    def _refresh(self) -> None:
        if self._path is None:
            return
        try:
            status = self._path.stat()
            signature = (status.st_ino, status.st_size, status.st_mtime_ns)
        except OSError:
            signature = None
        if signature == self._signature:
            return
        try:
            self._use(load_keys(self._path) or ClientKeys())
        except ConfigError as error:
            if signature != self._refused:
                _log.error("the keys were not reloaded: %s", error)
            self._refused = signature
            if isinstance(error.__cause__, OSError):
                return  # too many files are open, say: the next request tries again
        self._signature = signature

    def _use(self, keys: ClientKeys) -> None:
        self._keys = keys
        self._known = [(bytes.fromhex(each.digest), each) for each in keys.keys if each.digest]
        self._known.append((keys.digest(self._admin), ADMIN))


class _Versioned(msgspec.Struct):
    schema_version: int


def _keys_given(headers: Mapping[bytes, bytes]) -> list[bytes]:
    """The keys where OpenAI's and Anthropic's clients put them."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    bearer = token.strip() if scheme.lower() == b"bearer" else b""
    return [key for key in (bearer, headers.get(b"x-api-key", b"")) if key]
