"""This Mac's authority and certificate: made once, believed by who knows it, renewed in time."""

import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import pytest
from cryptography import x509

from mlx_stack.errors import InvalidFileError
from mlx_stack.home import Home
from mlx_stack.nodes.identity import (
    LASTS,
    RENEWED_BEFORE,
    Identity,
    ensure_identity,
    find_identity,
)
from mlx_stack.nodes.trust import digits_in, fingerprint, presented_ca, trusting

NOW = datetime.now(UTC)


def identity(root: Path, now: datetime = NOW) -> Identity:
    return ensure_identity(Home(root), now)[0]


class Answering:
    """A server with TLS that greets whoever connects."""

    def __init__(self, own: Identity) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(own.certificate, own.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            try:
                with self._context.wrap_socket(connection, server_side=True) as secured:
                    secured.sendall(b"hello")
            except OSError:
                pass

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listener.close()


def greeting(port: int, context: ssl.SSLContext) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as connection,
        context.wrap_socket(connection) as secured,
    ):
        return secured.recv(5)


def test_who_knows_the_authority_believes_the_certificate_and_no_other(tmp_path: Path) -> None:
    own, other = identity(tmp_path / "a"), identity(tmp_path / "b")

    with Answering(own) as server:
        assert greeting(server.port, trusting(own.ca)) == b"hello"
    with Answering(other) as server, pytest.raises(ssl.SSLCertVerificationError):
        greeting(server.port, trusting(own.ca))


def test_an_authority_is_learnt_from_whoever_answers(tmp_path: Path) -> None:
    own = identity(tmp_path)

    with Answering(own) as server:
        assert presented_ca("127.0.0.1", server.port) == own.ca
    assert fingerprint(own.ca) == own.fingerprint
    shown = ":".join(own.fingerprint.upper()[i : i + 2] for i in range(0, 64, 2))
    assert digits_in(shown) == own.fingerprint
    assert digits_in("abc") is None


def test_the_keys_are_their_owners_only(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    ensure_identity(home, NOW)

    assert stat.S_IMODE(home.node.stat().st_mode) == 0o700
    for key in (home.node_key, home.node_ca_key):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_it_is_made_once(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert find_identity(home) is None

    first, is_new = ensure_identity(home, NOW)
    text = home.node_certificate.read_text()

    assert is_new
    assert ensure_identity(home, NOW + timedelta(days=300)) == (first, False)
    assert home.node_certificate.read_text() == text
    assert find_identity(home) == first


@pytest.mark.parametrize(
    "later", [LASTS - RENEWED_BEFORE + timedelta(days=1), timedelta(days=3000), -timedelta(days=9)]
)
def test_a_certificate_is_renewed_long_before_its_end_by_the_same_authority(
    tmp_path: Path, later: timedelta
) -> None:
    """Also after years in a cupboard, and by a Mac whose clock was set back."""
    home, now = Home(tmp_path), NOW + later
    first, _ = ensure_identity(home, NOW)

    renewed, is_new = ensure_identity(home, now)

    assert is_new
    assert renewed.ca == first.ca
    certificate = x509.load_pem_x509_certificate(home.node_certificate.read_bytes())
    assert certificate.not_valid_before_utc < now < certificate.not_valid_after_utc


def test_a_lost_or_foreign_certificate_is_made_again_and_others_needn_t_know(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path / "a")
    first, _ = ensure_identity(home, NOW)
    foreign = identity(tmp_path / "b")
    for damage in (
        home.node_key.unlink,
        lambda: home.node_certificate.write_text("nonsense"),
        lambda: home.node_certificate.write_bytes(foreign.certificate.read_bytes()),
        lambda: home.node_key.write_bytes(foreign.key.read_bytes()),
    ):
        damage()
        assert ensure_identity(home, NOW) == (first, True)
        with Answering(first) as server:
            assert greeting(server.port, trusting(first.ca)) == b"hello"


def test_a_damaged_authority_is_named_and_never_replaced_in_silence(tmp_path: Path) -> None:
    home = Home(tmp_path)
    ensure_identity(home, NOW)
    home.node_ca.write_text("nonsense")

    with pytest.raises(InvalidFileError, match=r"ca\.pem"):
        find_identity(home)
    with pytest.raises(InvalidFileError, match=r"ca\.pem"):
        ensure_identity(home, NOW)


@pytest.mark.parametrize("text", ["", "AAAA", "not base64"])
def test_what_is_no_certificate_trusts_nobody(text: str) -> None:
    with pytest.raises(ValueError, match="not a certificate"):
        trusting(text)
