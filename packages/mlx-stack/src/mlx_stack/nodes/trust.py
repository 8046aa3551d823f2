"""Certificate authorities of other Macs: what a connection is trusted by, and how one is named.

(decision 0112)
"""

import base64
import hashlib
import socket
import ssl

CONNECT_WITHIN_S = 5.0
_SHOWN_DIGITS = 64


def trusting(ca: str) -> ssl.SSLContext:
    """What accepts a server with a certificate of this authority, and no other.

    The authority belongs to one Mac and signs for it alone, so the name or address that the Mac has
    today doesn't matter.

    Args:
        ca: The authority's certificate as `nodes.yaml` holds it: base64 of its DER form.

    Raises:
        ValueError: When that is no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        context.load_verify_locations(cadata=base64.b64decode(ca, validate=True))
    except (ssl.SSLError, ValueError) as error:
        raise ValueError("not a certificate") from error
    return context


def fingerprint(ca: str) -> str:
    """The name of an authority that no other has: 64 hexadecimal digits."""
    return hashlib.sha256(base64.b64decode(ca)).hexdigest()


def presented_ca(host: str, port: int) -> str:
    """The authority that whoever answers there says it belongs to; nothing of it is verified.

    Raises:
        OSError: When nobody answers, or not by TLS.
        ValueError: When it shows no authority.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((host, port), timeout=CONNECT_WITHIN_S) as connection,
        context.wrap_socket(connection, server_hostname=host) as secured,
    ):
        chain = secured.get_unverified_chain()
    if len(chain) < 2:
        raise ValueError("no authority")
    return base64.b64encode(chain[-1]).decode()


def digits_in(text: str) -> str | None:
    """A fingerprint as it is compared, whatever stands between its digits; None if it is none."""
    digits = text.replace(":", "").replace(" ", "").lower()
    is_one = len(digits) == _SHOWN_DIGITS and set(digits) <= set("0123456789abcdef")
    return digits if is_one else None
