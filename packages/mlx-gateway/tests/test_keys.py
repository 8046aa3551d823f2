"""Who may ask, and what a key allows."""

import json
import logging
import resource
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway.errors import ConfigError
from mlx_gateway.keys import (
    ADMIN,
    ClientKey,
    ClientKeys,
    KeyRing,
    Priority,
    load_keys,
    new_key,
    parse_keys,
)

LAPTOP = ClientKey(name="laptop", tiers=("fast",), priority=Priority.AGENT, max_in_flight=2)


def bearer(key: str) -> dict[bytes, bytes]:
    return {b"authorization": b"Bearer " + key.encode()}


def save(path: Path, keys: ClientKeys) -> None:
    """Replace the file, as its writers do."""
    fresh = path.with_suffix(".new")
    fresh.write_text(keys.encode())
    fresh.replace(path)


@pytest.mark.parametrize(
    "headers",
    [
        {b"authorization": b"Bearer the-right-key"},
        {b"authorization": b"bearer   the-right-key "},
        {b"x-api-key": b"the-right-key"},
        {b"authorization": b"Bearer wrong", b"x-api-key": b"the-right-key"},
    ],
)
def test_the_key_opens_wherever_a_client_puts_it(headers: dict[bytes, bytes]) -> None:
    assert KeyRing("the-right-key").holder(headers) == ADMIN


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"authorization": b""},
        {b"authorization": b"Bearer"},
        {b"authorization": b"Bearer "},
        {b"authorization": b"Basic the-right-key"},
        {b"authorization": b"the-right-key"},
        {b"authorization": b"Bearer the-right-keys"},
        {b"x-api-key": b"the-right-ke"},
        {b"x-api-key": b"\xff\xfe"},
    ],
)
def test_nothing_else_opens(headers: dict[bytes, bytes]) -> None:
    assert KeyRing("the-right-key").holder(headers) is None


def test_a_key_is_its_clients_and_the_admins_stays_the_admins(tmp_path: Path) -> None:
    key, path = new_key(), tmp_path / "keys.json"
    save(path, ClientKeys().with_key(LAPTOP, key))
    ring = KeyRing("the-admins-key", path)

    found = ring.holder(bearer(key))

    assert found is not None
    assert (found.name, found.tiers, found.priority) == ("laptop", ("fast",), Priority.AGENT)
    assert ring.holder(bearer("the-admins-key")) == ADMIN


@pytest.mark.parametrize("damage", [
    lambda key: key[:-1], lambda key: key + "A", lambda key: key[3:], lambda key: key.swapcase(),
    lambda _: "", lambda key: key[0], lambda _: new_key(),
])  # fmt: skip
def test_a_key_that_is_not_whole_opens_nothing(damage: Any, tmp_path: Path) -> None:
    key, path = new_key(), tmp_path / "keys.json"
    save(path, ClientKeys().with_key(LAPTOP, key))

    assert KeyRing("the-admins-key", path).holder(bearer(damage(key))) is None


def test_the_file_gives_no_key_away() -> None:
    key = new_key()
    one, other = (ClientKeys().with_key(LAPTOP, key).encode() for _ in range(2))

    assert key not in one
    assert key.removeprefix("sk-") not in one
    digests = {json.loads(text)["keys"][0]["digest"] for text in (one, other)}
    assert len(digests) == 2, "the same key has another digest in another file"


def test_keys_are_long_and_never_the_same() -> None:
    keys = {new_key() for _ in range(1000)}

    assert len(keys) == 1000
    assert min(map(len, keys)) >= 43


def test_a_key_opens_and_closes_with_its_file(tmp_path: Path) -> None:
    key, path = new_key(), tmp_path / "keys.json"
    ring = KeyRing("the-admins-key", path)
    assert ring.holder(bearer(key)) is None

    keys = ClientKeys().with_key(LAPTOP, key)
    save(path, keys)
    assert ring.holder(bearer(key)) is not None
    save(path, keys.without("laptop"))
    assert ring.holder(bearer(key)) is None
    save(path, keys)
    assert ring.holder(bearer(key)) is not None
    path.unlink()
    assert ring.holder(bearer(key)) is None
    assert ring.holder(bearer("the-admins-key")) == ADMIN


def test_a_revoked_key_opens_nothing_once_the_file_can_be_read_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, path = new_key(), tmp_path / "keys.json"
    keys = ClientKeys().with_key(LAPTOP, key)
    save(path, keys)
    ring = KeyRing("the-admins-key", path)
    save(path, keys.without("laptop"))

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        held = [ring.holder(bearer(key)) for _ in range(2)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert None not in held, "nobody knows yet"
    assert ring.holder(bearer(key)) is None
    assert caplog.text.count("the keys were not reloaded") == 1


def test_a_damaged_file_changes_nothing_and_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, path = new_key(), tmp_path / "keys.json"
    save(path, ClientKeys().with_key(LAPTOP, key))
    ring = KeyRing("the-admins-key", path)

    path.write_text("{half")
    with caplog.at_level(logging.ERROR, "mlx_gateway"):
        assert ring.holder(bearer(key)) is not None
        assert ring.holder(bearer(key)) is not None

    assert len(caplog.records) == 1
    assert str(path) in caplog.text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "damaged"),
        ("[]", "damaged"),
        ('{"schema_version": 2, "keys": "unknown"}', "schema_version is 2"),
        ('{"schema_version": 1, "hash_key": "abc"}', "hash_key"),
        ('{"schema_version": 1, "keys": [{"name": "a b"}]}', "name"),
        ('{"schema_version": 1, "keys": [{"name": "a", "digest": "short"}]}', "digest"),
        ('{"schema_version": 1, "keys": [{"name": "a", "priority": "first"}]}', "priority"),
        ('{"schema_version": 1, "keys": [{"name": "a", "max_in_flight": 0}]}', "max_in_flight"),
        ('{"schema_version": 1, "keys": [{"name": "a"}, {"name": "a"}]}', "named twice"),
        ('{"schema_version": 1, "keys": [{"name": "admin"}]}', "can't be named"),
        ('{"schema_version": 1, "kees": []}', "kees"),
        ("[" * 100_000, "damaged"),
    ],
)  # fmt: skip
def test_a_file_that_makes_no_sense_is_named_with_what_is_wrong(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_keys(text.encode(), Path("keys.json"))


def test_a_client_without_a_digest_opens_with_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text('{"schema_version": 1, "keys": [{"name": "a"}]}')

    assert KeyRing("the-admins-key", path).holder({b"x-api-key": b" "}) is None


def test_no_file_is_no_clients(tmp_path: Path) -> None:
    assert load_keys(tmp_path / "keys.json") is None


def test_a_file_without_end_is_refused_rather_than_read() -> None:
    with pytest.raises(ConfigError, match="/dev/zero: is a device"):
        load_keys(Path("/dev/zero"))


def test_a_file_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load_keys(tmp_path)


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True).filter(
    lambda name: name != "admin"
)
clients = st.builds(
    ClientKey,
    name=names,
    tiers=st.none() | st.lists(st.text("abc-", min_size=1, max_size=9), max_size=3).map(tuple),
    priority=st.sampled_from(Priority),
    max_in_flight=st.none() | st.integers(1, 99),
)


@given(st.lists(clients, max_size=5, unique_by=lambda client: client.name))
def test_what_is_written_is_read_again(some: list[ClientKey]) -> None:
    keys = ClientKeys()
    for client in some:
        keys = keys.with_key(client, f"key of {client.name}")

    read = parse_keys(keys.encode().encode())

    assert read == keys
    assert [each.name for each in read.keys] == [each.name for each in some]


@given(st.binary(max_size=200))
def test_whatever_the_file_holds_it_is_read_or_refused(text: bytes) -> None:
    with suppress(ConfigError):
        assert parse_keys(text).schema_version == 1
