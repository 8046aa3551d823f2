"""A form with a sound: what is read of it, and what an engine gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway.errors import ApiError
from mlx_gateway.form import LONGEST_FIELD_BYTES, MOST_PARTS, encode_form, is_form, read_form

KIND = "multipart/form-data; boundary=b"


def part(name: str, value: bytes, more: str = "") -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b--\r\n"


def test_values_and_the_file_are_told_apart() -> None:
    sound = b'RIFF\x00\xff\r\n--c\r\nname="model"\r\n\r\nevil\r\n'
    body = form(
        part("file", sound, '; filename="../../etc/passwd"\r\nContent-Type: audio/wav'),
        part("model", "äöü".encode()),
        part("language", b""),
        part("timestamp_granularities[]", b"word"),
        part("timestamp_granularities[]", b"segment"),
    )

    read = read_form(body, KIND)

    assert bytes(read.file) == sound
    assert read.fields.decoded() == {
        "model": "äöü",
        "language": "",
        "timestamp_granularities[]": "word,segment",
    }


@given(
    st.dictionaries(st.sampled_from(["model", "prompt", "language"]), st.text(max_size=50)),
    st.binary(min_size=1, max_size=400),
)
def test_what_an_engine_gets_says_the_same(values: dict[str, str], sound: bytes) -> None:
    kind, body = encode_form(values, memoryview(sound))

    again = read_form(body, kind)

    assert is_form(kind)
    assert again.fields.decoded() == values
    assert bytes(again.file) == sound


@pytest.mark.parametrize("name", ['a"; filename="x', "a\r\nX: y", "", "a b", "ä", "model\n"])
def test_no_name_of_a_field_ends_its_header(name: str) -> None:
    with pytest.raises(ApiError, match="can't be called"):
        encode_form({name: "x"}, memoryview(b"x"))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "ends early"),
        (b"nonsense", "damaged"),
        (form(part("model", b"x"))[:-4], "ends early"),
        (form(part("model", b"x"))[:40], "ends early"),
        (form(part("model", b"x"), part("model", b"y")), "`model` twice"),
        (form(part("file", b"x"), part("file", b"y")), "more than one file"),
        (form(part("model", b"\xff")), "isn't UTF-8"),
        (form(part("prompt", b"x" * (LONGEST_FIELD_BYTES + 1))), "longer than"),
        (form(*[part(f"f{n}", b"x") for n in range(MOST_PARTS + 1)]), "more than 32 fields"),
        (b"--b\r\n" + b"x" * 9000 + b": y\r\n\r\n", "damaged"),
    ],
)
def test_a_form_that_breaks_the_rules_is_refused_in_words(body: bytes, said: str) -> None:
    with pytest.raises(ApiError, match=said) as caught:
        read_form(body, KIND)

    assert caught.value.status == 400


def test_a_form_whose_boundary_is_missing_is_refused() -> None:
    with pytest.raises(ApiError, match="boundary"):
        read_form(form(), "multipart/form-data")


@given(st.binary(max_size=300))
def test_whatever_comes_is_a_form_or_is_refused(body: bytes) -> None:
    try:
        read_form(b"--b\r\n" + body, KIND)
    except ApiError as error:
        assert error.status == 400  # noqa: PT017 - either is right
