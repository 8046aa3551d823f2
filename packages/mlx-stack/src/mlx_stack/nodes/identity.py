"""What this Mac proves itself with to others: an authority of its own, and a certificate from it.

The authority is made once and has no end, since other Macs know this one by it. The certificate is
made again long before its end. (decision 0112)
"""

import base64
import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mlx_gateway.access import machine_name
from mlx_stack import atomic_file
from mlx_stack.errors import InvalidFileError
from mlx_stack.home import Home
from mlx_stack.nodes.file import changing
from mlx_stack.nodes.trust import fingerprint

LASTS = timedelta(days=3 * 365)
RENEWED_BEFORE = timedelta(days=2 * 365)
"""A Mac that lay in a cupboard for two years is still believed before its gateway renews it."""
_NO_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_CLOCKS_DIFFER = timedelta(days=2)
_HINT = (
    "Move the folder away and run `mlx-stack up`; then every Mac that has this one for a node must "
    "be paired again."
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Where this Mac's certificate is, and whose it is.

    Attributes:
        ca: The authority's certificate: base64 of its DER form.
    """

    certificate: Path
    key: Path
    ca: str

    @property
    def fingerprint(self) -> str:
        """What others can compare the authority by."""
        return fingerprint(self.ca)


def find_identity(home: Home) -> Identity | None:
    """What this Mac proves itself with; None where nothing was made yet. Reads only.

    Raises:
        InvalidFileError: When the authority is damaged.
    """
    try:
        authority = _certificate(home.node_ca)
    except FileNotFoundError:
        return None
    ca = base64.b64encode(authority.public_bytes(serialization.Encoding.DER)).decode()
    return Identity(home.node_certificate, home.node_key, ca)


def ensure_identity(home: Home, now: datetime) -> tuple[Identity, bool]:
    """What this Mac proves itself with, made or renewed if it is time; whether it was.

    Raises:
        InvalidFileError: When the authority is damaged: only its owner may give it up.
        OSError: When nothing can be written.
    """
    with changing(home):
        home.node.mkdir(mode=0o700, exist_ok=True)
        if not home.node_ca.exists():
            _make_authority(home, now)
        is_due = _is_due(home, now)
        if is_due:
            _make_certificate(home, now)
    found = find_identity(home)
    assert found is not None  # made above
    return found, is_due


def _is_due(home: Home, now: datetime) -> bool:
    try:
        own = _certificate(home.node_certificate)
        own.verify_directly_issued_by(_certificate(home.node_ca))
        key = _private_key(home.node_key)
    except (FileNotFoundError, InvalidFileError, ValueError, TypeError):
        return True
    except Exception as error:
        # cryptography's InvalidSignature is a plain Exception
        if type(error).__name__ != "InvalidSignature":
            raise
        return True
    if key.public_key() != own.public_key():
        return True
    return not own.not_valid_before_utc <= now <= own.not_valid_after_utc - RENEWED_BEFORE


def _make_authority(home: Home, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"mlx-stack on {_host_name()}"[:64])])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    authority = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(_NO_END)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_key(home.node_ca_key, key)
    _write(home.node_ca, authority)


def _make_certificate(home: Home, now: datetime) -> None:
    authority, authority_key = _certificate(home.node_ca), _private_key(home.node_ca_key)
    key = ec.generate_private_key(ec.SECP256R1())
    host = _host_name()
    names: list[x509.GeneralName] = [
        x509.DNSName(each) for each in dict.fromkeys((host, f"{host}.local", "localhost"))
    ]
    names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + LASTS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(issuer, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    _write_key(home.node_key, key)
    _write(home.node_certificate, certificate, authority)


def _usage(*, signs: bool) -> x509.KeyUsage:
    """Of what signs connections, or else of what signs certificates."""
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not signs,
        crl_sign=not signs,
        encipher_only=False,
        decipher_only=False,
    )


def _host_name() -> str:
    """This machine's name, as a certificate takes it."""
    return (
        "".join(
            each for each in machine_name() if each.isascii() and (each.isalnum() or each == "-")
        )
        or "mac"
    )


def _certificate(path: Path) -> x509.Certificate:
    """The first certificate in a file.

    Raises:
        FileNotFoundError: When there is no such file.
        InvalidFileError: When it holds none.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise InvalidFileError(path, "is not a certificate", hint=_HINT) from error


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise InvalidFileError(path, "is not a private key", hint=_HINT) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidFileError(path, "is another kind of key", hint=_HINT)
    return key


def _write(path: Path, *certificates: x509.Certificate) -> None:
    texts = (each.public_bytes(serialization.Encoding.PEM).decode() for each in certificates)
    atomic_file.write_text(path, "".join(texts))


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    atomic_file.write_text(path, text.decode(), mode=atomic_file.PRIVATE)
