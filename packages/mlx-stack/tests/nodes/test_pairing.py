"""The words of a pairing: who knows the code and sees the right authority is believed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_stack.nodes.pairing import PairingError, ShowingSide, TypingSide, code_in, new_code

HERE, ELSEWHERE = "a" * 64, "b" * 64


def test_the_same_code_and_authority_prove_both_sides() -> None:
    typing = TypingSide("123456", HERE)
    showing = ShowingSide("123456", HERE, typing.hello)

    answer = showing.answer(typing.prove(showing.reply))

    assert answer is not None
    assert typing.is_proven_by(answer)


@pytest.mark.parametrize(("code", "seen"), [("123457", HERE), ("123456", ELSEWHERE)])
def test_another_code_or_another_authority_proves_nothing(code: str, seen: str) -> None:
    typing = TypingSide(code, seen)
    showing = ShowingSide("123456", HERE, typing.hello)

    assert showing.answer(typing.prove(showing.reply)) is None
    assert not typing.is_proven_by(b"\0" * 32)


def test_a_proof_sent_back_to_its_sender_proves_nothing() -> None:
    typing = TypingSide("123456", HERE)
    showing = ShowingSide("123456", HERE, typing.hello)
    proof = typing.prove(showing.reply)

    assert not typing.is_proven_by(proof)


def test_hellos_tell_nothing_of_the_code() -> None:
    """Each is a new point of the group, which any code could have led to, and nothing more.

    One in 16 strings of 32 bytes is such a point: a hash of the code would be found out.
    """
    hellos = {TypingSide("123456", HERE).hello for _ in range(8)}

    assert len(hellos) == 8
    for hello in hellos:
        assert len(hello) == 1 + 32
        ShowingSide("654321", HERE, hello)  # refuses what is no point


@given(st.binary(max_size=80))
def test_any_bytes_are_refused_in_peace(message: bytes) -> None:
    with pytest.raises(PairingError):
        ShowingSide("123456", HERE, b"B" + message)
    with pytest.raises(PairingError):
        TypingSide("123456", HERE).prove(b"A" + message)


@settings(max_examples=20)
@given(st.binary(min_size=32, max_size=32))
def test_a_point_that_is_none_or_a_guess_is_no_proof(point: bytes) -> None:
    try:
        showing = ShowingSide("123456", HERE, b"A" + point)
    except PairingError:
        return
    assert showing.answer(b"\0" * 32) is None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("123456", "123456"),
        (" 123 456\n", "123456"),
        ("123-456", "123456"),
        ("000000", "000000"),
        ("12345", None),
        ("1234567", None),
        ("12345a", None),
        ("١٢٣٤٥٦", None),
        ("", None),
    ],
)
def test_a_code_is_read_as_people_type_it(text: str, code: str | None) -> None:
    assert code_in(text) == code


def test_new_codes_are_six_digits() -> None:
    assert all(code_in(new_code()) is not None for _ in range(100))
    assert len({new_code() for _ in range(100)}) > 90
