"""A request's JSON, read once and passed on byte for byte."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_gateway.errors import ApiError
from mlx_gateway.fields import read_fields

_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(max_examples=50)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), _json, max_size=4))
def test_what_is_not_touched_goes_on_as_it_came(document: dict[str, Any]) -> None:
    given = {key: value for key, value in document.items() if value is not None}

    passed_on = json.loads(read_fields(json.dumps(document).encode()).encode())

    assert passed_on == given, "fields that are null are left out"


def test_numbers_and_escapes_keep_their_bytes() -> None:
    body = b'{"a":1.10,"b":"\\u00e4","c":[ 1 , 2 ],"d":123456789012345678901234567890}'

    assert read_fields(body).encode() == body


def test_a_field_that_comes_twice_counts_once() -> None:
    assert read_fields(b'{"a":1,"a":2}').encode() == b'{"a":2}'


def test_a_mark_of_byte_order_does_no_harm() -> None:
    assert read_fields(b'\xef\xbb\xbf{"a":1}').get("a") == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no body"),
        (b"  \n", "no body"),
        (b"[1]", "must be a JSON object"),
        (b'"x"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"a":', "not valid JSON"),
        (b'{"a":1}}', "not valid JSON"),
        (b"{a:1}", "not valid JSON"),
        (b'{"a":NaN}', "not valid JSON"),
        (b'{"a":{"b":[Infinity]}}', "not valid JSON"),
        (b'{"a":1e999}', "out of range"),
        (b'{"a":"\\ud800"}', "lone surrogate"),
        (b'{"a":["\\udfff x"]}', "not valid JSON"),
        (b'{"a":"\xff"}', "not valid JSON"),
        (b'{"a":{"b":"\xc3\x28"}}', "not valid JSON"),
        (b'{"a":"\\s"}', "not valid JSON"),
        (b'{"a":"\x01"}', "not valid JSON"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not valid JSON"),
        (b"\x00\x01\x02", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
    ],
)
def test_a_damaged_body_is_refused_with_the_reason(body: bytes, reason: str) -> None:
    with pytest.raises(ApiError) as caught:
        read_fields(body)

    assert caught.value.status == 400
    assert reason in caught.value.message


@given(st.binary(max_size=200))
def test_no_body_whatever_is_more_than_refused(body: bytes) -> None:
    with contextlib.suppress(ApiError):
        assert isinstance(read_fields(body).encode(), bytes)


@pytest.mark.parametrize("raw", [b"1", b"[]", b"{}", b"true"])
def test_a_name_must_be_text(raw: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        read_fields(b'{"model":' + raw + b"}").text("model")

    assert caught.value.param == "model"


@pytest.mark.parametrize(("raw", "value"), [(b"true", True), (b"false", False), (b"null", False)])
def test_a_switch_that_is_null_is_off(raw: bytes, value: bool) -> None:
    assert read_fields(b'{"stream":' + raw + b"}").flag("stream") is value


def test_a_switch_is_true_or_false() -> None:
    with pytest.raises(ApiError):
        read_fields(b'{"stream":"yes"}').flag("stream")
