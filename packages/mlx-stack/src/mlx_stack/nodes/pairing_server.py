"""Where another Mac pairs with this one: one code, a few tries, a few minutes, then a key."""

import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Literal

import msgspec

from mlx_stack import atomic_file, json_file
from mlx_stack.errors import InvalidFileError, StackError, UsageError
from mlx_stack.gateway.keys import add_key
from mlx_stack.home import Home
from mlx_stack.nodes.file import changing
from mlx_stack.nodes.identity import find_identity
from mlx_stack.nodes.pairing import (
    CODE_LASTS_S,
    TRIES,
    PairingError,
    ShowingSide,
    new_code,
)
from mlx_stack.open_stack import OpenStack

PROOF_WITHIN_S = 30.0
_ONE_EVERY_S = 1.0
_MOST_OF_ONE_NAME = 99
_HINT = "Remove the file, and run `mlx-stack nodes pair` again."

type Hex = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{2}){1,64}\Z")]


class OpenCode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The code that is being shown, and what may still be done with it.

    Attributes:
        expires_at: In seconds since the epoch.
    """

    schema_version: Literal[1] = 1
    code: Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{6}\Z")]
    expires_at: float
    tries_left: Annotated[int, msgspec.Meta(ge=0, le=TRIES)] = TRIES

    def is_good(self, now: float) -> bool:
        """Whether its time has not run out, also if the clock was set back meanwhile."""
        return now < self.expires_at <= now + CODE_LASTS_S


class Hello(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the typing side says first; `name` is what it calls itself."""

    name: Annotated[str, msgspec.Meta(max_length=256)]
    message: Hex


class Welcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it is answered."""

    session: Hex
    message: Hex


class PairingProof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the typing side says next."""

    session: Hex
    proof: Hex


class Paired(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it is answered at last: the proof of this side, and its key."""

    proof: Hex
    key: Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{1,256}\Z")]


class RefusedPairingError(Exception):
    """The pairing doesn't go on; the status says why."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class _Session:
    side: ShowingSide
    code: str
    name: str
    until: float


def show_code(home: Home, now: float) -> OpenCode:
    """A new code, good from now on; one that was shown before is good no longer."""
    code = OpenCode(code=new_code(), expires_at=now + CODE_LASTS_S)
    with changing(home):
        json_file.write(home.pairing, code, mode=atomic_file.PRIVATE)
    return code


class PairingServer:
    """Answers Macs that want to pair, one after another. Whoever asks is not trusted.

    A try is taken with the hello, before anything is said about the code, so that many at once
    have no more guesses than one after another.

    Args:
        clock: Seconds since the epoch.
        monotonic: Seconds that no one sets.
    """

    def __init__(
        self,
        home: Home,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._home = home
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._sessions: dict[str, _Session] = {}
        self._hello_at = -_ONE_EVERY_S

    def shows_code(self) -> bool:
        """Whether there is a code now; a try more or less is not taken by asking."""
        return self._shown_code() is not None

    def welcome(self, hello: Hello) -> Welcome:
        """Begin.

        Raises:
            RefusedPairingError: When no code is shown, all tries are used up, or it is too early.
        """
        with self._lock:
            now = self._monotonic()
            if now - self._hello_at < _ONE_EVERY_S:
                raise RefusedPairingError(
                    HTTPStatus.TOO_MANY_REQUESTS, "Only one try per second is allowed."
                )
            self._hello_at = now
            code, identity = self._take_try(), find_identity(self._home)
            if code is None or identity is None:
                raise RefusedPairingError(HTTPStatus.CONFLICT, "No pairing code is active.")
            try:
                side = ShowingSide(code, identity.fingerprint, bytes.fromhex(hello.message))
            except PairingError as error:
                raise RefusedPairingError(HTTPStatus.BAD_REQUEST, str(error)) from error
            self._sessions = {key: each for key, each in self._sessions.items() if each.until > now}
            session = secrets.token_hex(16)
            self._sessions[session] = _Session(
                *(side, code, key_name(hello.name)), until=now + PROOF_WITHIN_S
            )
            return Welcome(session=session, message=side.reply.hex())

    def pair(self, proof: PairingProof) -> Paired:
        """End: a key for who has proven to know the code, which is good no longer.

        Raises:
            RefusedPairingError: When it has not.
            StackError: When no key can be made.
        """
        with self._lock:
            session = self._sessions.pop(proof.session, None)
            if session is None or session.until <= self._monotonic():
                raise RefusedPairingError(HTTPStatus.CONFLICT, "There is no such pairing.")
            answer = session.side.answer(bytes.fromhex(proof.proof))
            if answer is None:
                raise RefusedPairingError(HTTPStatus.FORBIDDEN, "The code is wrong.")
            with changing(self._home):
                code = self._shown_code()
                self._home.pairing.unlink(missing_ok=True)
            self._sessions.clear()
            if code is None or code.code != session.code:
                raise RefusedPairingError(HTTPStatus.CONFLICT, "The code is no longer valid.")
            return Paired(proof=answer.hex(), key=self._new_key(session.name))

    def _take_try(self) -> str | None:
        """The code, with one try less; None where there is none to try."""
        with changing(self._home):
            code = self._shown_code()
            if code is None or not code.tries_left:
                return None
            left = msgspec.structs.replace(code, tries_left=code.tries_left - 1)
            json_file.write(self._home.pairing, left, mode=atomic_file.PRIVATE)
        return code.code

    def _shown_code(self) -> OpenCode | None:
        try:
            code = json_file.read(self._home.pairing, OpenCode, hint=_HINT)
        except (InvalidFileError, OSError):
            return None
        return code if code is not None and code.is_good(self._clock()) else None

    def _new_key(self, name: str) -> str:
        opened = OpenStack(self._home)
        for number in range(1, _MOST_OF_ONE_NAME + 1):
            try:
                return add_key(opened, name if number == 1 else f"{name}-{number}").key
            except UsageError:
                continue
        raise StackError(f"There are too many keys for {name!r}.")


def key_name(said: str) -> str:
    """The name of a Mac's key, from what it calls itself."""
    return re.sub(r"[^a-z0-9]+", "-", said.lower()).strip("-")[:48].strip("-") or "mac"
