"""How two Macs that share a six-digit code come to trust each other; what each says and checks.

The code is the password of a SPAKE2 key exchange, whose identities include the authority that the
typing side sees. So whoever doesn't know the code learns nothing that it could be guessed from
afterwards, and whoever stands between the two, with an authority of its own, makes their keys
differ. (decision 0112)
"""

import hmac
import re
import secrets

from spake2 import (  # pyright: ignore[reportMissingTypeStubs]
    SPAKE2_A,
    SPAKE2_B,
    SPAKEError,
)
from spake2.ed25519_basic import NotOnCurve  # pyright: ignore[reportMissingTypeStubs]

CODE_LASTS_S = 300.0
TRIES = 5
_TYPING = b"mlx-stack pairing 1: the Mac on which the code is typed"
_SHOWING = b"mlx-stack pairing 1: the Mac that shows the code, "
_MESSAGE_BYTES = 33


class PairingError(Exception):
    """The other side's words make no sense, or prove nothing."""


def new_code() -> str:
    """Six digits that nobody knows yet."""
    return f"{secrets.randbelow(10**6):06}"


def code_in(text: str) -> str | None:
    """The six digits that a person typed, without what stands between; None if it isn't six."""
    digits = re.sub(r"[\s-]", "", text)
    return digits if re.fullmatch(r"[0-9]{6}", digits) else None


class TypingSide:
    """The Mac on which the code is typed.

    Args:
        fingerprint: Of the authority that the other side showed on this connection.

    Attributes:
        hello: What it says first.
    """

    def __init__(self, code: str, fingerprint: str) -> None:
        self._exchange = SPAKE2_A(code.encode(), idA=_TYPING, idB=_SHOWING + fingerprint.encode())
        self.hello: bytes = self._exchange.start()
        self._key = b""

    def prove(self, reply: bytes) -> bytes:
        """What shows the other side that the same code was typed, and the same authority seen.

        Raises:
            PairingError: When the reply is no message of this exchange.
        """
        self._key = _finished(self._exchange, reply)
        return _proof(self._key, "typing")

    def is_proven_by(self, proof: bytes) -> bool:
        """Whether the other side knows the code too, and has that authority."""
        return hmac.compare_digest(proof, _proof(self._key, "showing"))


class ShowingSide:
    """The Mac that shows the code, as it answers one hello.

    Args:
        fingerprint: Of its own authority.

    Attributes:
        reply: What it answers.

    Raises:
        PairingError: When the hello is no message of this exchange.
    """

    def __init__(self, code: str, fingerprint: str, hello: bytes) -> None:
        exchange = SPAKE2_B(code.encode(), idA=_TYPING, idB=_SHOWING + fingerprint.encode())
        self.reply: bytes = exchange.start()
        self._key = _finished(exchange, hello)

    def answer(self, proof: bytes) -> bytes | None:
        """What proves this side, if the other has proven itself; else None."""
        if not hmac.compare_digest(proof, _proof(self._key, "typing")):
            return None
        return _proof(self._key, "showing")


def _finished(exchange: SPAKE2_A | SPAKE2_B, message: bytes) -> bytes:
    if len(message) != _MESSAGE_BYTES:
        raise PairingError("not a pairing message")
    try:
        key = exchange.finish(message)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    except (SPAKEError, NotOnCurve, ValueError) as error:
        raise PairingError("not a pairing message") from error
    return bytes(key)  # pyright: ignore[reportUnknownArgumentType]


def _proof(key: bytes, side: str) -> bytes:
    return hmac.digest(key, side.encode(), "sha256")
