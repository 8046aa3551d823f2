"""Where another Mac pairs: once, within five minutes, five tries, one a second."""

from datetime import UTC, datetime
from http import HTTPStatus

import pytest

from mlx_stack.gateway.keys import list_keys
from mlx_stack.home import Home
from mlx_stack.nodes.identity import ensure_identity
from mlx_stack.nodes.pairing import CODE_LASTS_S, TRIES, TypingSide
from mlx_stack.nodes.pairing_server import (
    PROOF_WITHIN_S,
    Hello,
    Paired,
    PairingProof,
    PairingServer,
    RefusedPairingError,
    show_code,
)

NOW = 1_000_000.0


class ThisMac:
    """This Mac with a clock that stands still until it is set."""

    def __init__(self, home: Home) -> None:
        self.now = NOW
        self.home = home
        self.fingerprint = ensure_identity(home, datetime.now(UTC))[0].fingerprint
        self.server = PairingServer(home, lambda: self.now, lambda: self.now)

    def show(self) -> str:
        return show_code(self.home, self.now).code

    def begin(self, code: str, *, name: str = "mini", seen: str | None = None) -> "Begun":
        side = TypingSide(code, seen or self.fingerprint)
        self.now += 1
        welcome = self.server.welcome(Hello(name=name, message=side.hello.hex()))
        proof = side.prove(bytes.fromhex(welcome.message))
        return Begun(self.server, PairingProof(session=welcome.session, proof=proof.hex()), side)

    def pair(self, code: str, *, name: str = "mini", seen: str | None = None) -> Paired:
        return self.begin(code, name=name, seen=seen).end()


class Begun:
    def __init__(self, server: PairingServer, proof: PairingProof, side: TypingSide) -> None:
        self.server, self.proof, self.side = server, proof, side

    def end(self) -> Paired:
        paired = self.server.pair(self.proof)
        assert self.side.is_proven_by(bytes.fromhex(paired.proof))
        return paired


@pytest.fixture
def mac(home: Home) -> ThisMac:
    return ThisMac(home)


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 10**6:06}"


def refusal(mac: ThisMac, code: str, **more: str) -> HTTPStatus:
    with pytest.raises(RefusedPairingError) as caught:
        mac.pair(code, **more)
    return caught.value.status


def names(home: Home) -> list[str]:
    return [each.name for each in list_keys(home).clients]


def test_the_code_gives_one_key_and_is_gone(mac: ThisMac) -> None:
    code = mac.show()

    assert mac.pair(code).key.startswith("sk-")

    assert names(mac.home) == ["mini"]
    assert not mac.home.pairing.exists()
    assert refusal(mac, code) is HTTPStatus.CONFLICT


def test_a_mac_that_is_paired_again_gets_another_key(mac: ThisMac) -> None:
    first, second = (mac.pair(mac.show()).key for _ in range(2))

    assert first != second
    assert names(mac.home) == ["mini", "mini-2"]


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("Anna's MacBook", "anna-s-macbook"),
        ("[red]\x1b[2J", "red-2j"),
        ("../../etc", "etc"),
        ("", "mac"),
        ("x" * 256, "x" * 48),
        ("admin", "admin-2"),
    ],
)
def test_what_a_mac_calls_itself_is_made_a_name(mac: ThisMac, said: str, name: str) -> None:
    mac.pair(mac.show(), name=said)

    assert names(mac.home) == [name]


def test_five_wrong_codes_close_it_to_the_right_one(mac: ThisMac) -> None:
    code = mac.show()

    for _ in range(TRIES):
        assert refusal(mac, wrong(code)) is HTTPStatus.FORBIDDEN

    assert refusal(mac, code) is HTTPStatus.CONFLICT
    assert names(mac.home) == []


def test_four_wrong_codes_leave_one_try(mac: ThisMac) -> None:
    code = mac.show()
    for _ in range(TRIES - 1):
        refusal(mac, wrong(code))

    assert mac.pair(code).key


def test_many_at_once_have_no_more_tries(mac: ThisMac) -> None:
    code = mac.show()

    begun = [mac.begin(wrong(code)) for _ in range(TRIES)]

    assert refusal(mac, code) is HTTPStatus.CONFLICT
    for each in begun:
        with pytest.raises(RefusedPairingError, match="wrong"):
            each.end()


def test_tries_are_counted_across_a_restart_of_the_gateway(mac: ThisMac) -> None:
    code = mac.show()
    for _ in range(TRIES):
        refusal(mac, wrong(code))

    assert refusal(ThisMac(mac.home), code) is HTTPStatus.CONFLICT


def test_a_session_has_one_proof(mac: ThisMac) -> None:
    begun = mac.begin(wrong(mac.show()))

    for said in ("The code is wrong", "no such pairing"):
        with pytest.raises(RefusedPairingError, match=said):
            begun.end()


def test_whoever_relays_with_an_authority_of_its_own_is_refused(mac: ThisMac) -> None:
    assert refusal(mac, mac.show(), seen="f" * 64) is HTTPStatus.FORBIDDEN


@pytest.mark.parametrize("later_s", [CODE_LASTS_S, CODE_LASTS_S * 1000, -10.0, -(10.0**6)])
def test_a_code_is_good_for_five_minutes_also_where_the_clock_is_set_back(
    mac: ThisMac, later_s: float
) -> None:
    code = mac.show()
    mac.now += later_s

    assert refusal(mac, code) is HTTPStatus.CONFLICT


def test_the_next_code_replaces_the_one_that_a_session_began_with(mac: ThisMac) -> None:
    begun = mac.begin(mac.show())
    mac.show()

    with pytest.raises(RefusedPairingError, match="no longer valid"):
        begun.end()
    assert names(mac.home) == []


def test_a_proof_that_comes_late_is_refused(mac: ThisMac) -> None:
    begun = mac.begin(mac.show())
    mac.now += PROOF_WITHIN_S

    with pytest.raises(RefusedPairingError, match="no such pairing"):
        begun.end()


def test_there_is_one_try_a_second_and_the_others_cost_none(mac: ThisMac) -> None:
    code = mac.show()
    hello = Hello(name="x", message="00" * 33)
    mac.now += 1
    with pytest.raises(RefusedPairingError):  # takes one try, and is nonsense
        mac.server.welcome(hello)
    for _ in range(10):
        with pytest.raises(RefusedPairingError, match="one try per second"):
            mac.server.welcome(hello)

    assert mac.pair(code).key


@pytest.mark.parametrize("text", ["", "{}", '{"schema_version": 1, "code": "1"}', "[1"])
def test_a_damaged_file_is_no_code(mac: ThisMac, text: str) -> None:
    code = mac.show()
    mac.home.pairing.write_text(text)

    assert refusal(mac, code) is HTTPStatus.CONFLICT
