"""Streams of events: untouched wherever they are split, and stop sequences cut the same."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, override

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.protocols.events import (
    EventStream,
    StopCutter,
    document_of,
    event_of,
    failure_in,
    stop_sequences,
)


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


def fed(stream: EventStream, pieces: Iterable[bytes]) -> bytes:
    said = b""
    for piece in pieces:
        said += stream.feed(piece)
    return said


_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=20)
_events = st.lists(_texts.map(lambda text: b"data: " + text.encode() + b"\n\n"), min_size=1)
_cuts = st.lists(st.integers(0, 10_000), max_size=12)


@given(_events, _cuts)
def test_a_stream_comes_out_as_it_went_in_wherever_it_is_split(
    events: list[bytes], cuts: list[int]
) -> None:
    whole = b"".join(events)

    assert fed(EventStream(), split(whole, cuts)) == whole


@given(_events, _cuts)
def test_lines_that_end_as_http_does_come_out_plain(events: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(events)

    assert fed(EventStream(), split(whole.replace(b"\n", b"\r\n"), cuts)) == whole


@given(_events, _cuts, st.integers(0, 5))
def test_comments_are_left_out_and_nothing_else(
    events: list[bytes], cuts: list[int], where: int
) -> None:
    with_comment = [*events[:where], b": heartbeat\n\n", *events[where:]]

    assert fed(EventStream(), split(b"".join(with_comment), cuts)) == b"".join(events)


@given(_events, _cuts)
def test_an_event_that_has_not_ended_is_not_passed_on(events: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(events) + b"data: half of an"

    assert fed(EventStream(), split(whole, cuts)) == b"".join(events)


def test_a_comment_inside_an_event_stays_in_it() -> None:
    event = b": a word\ndata: 1\n\n"

    assert EventStream().feed(event) == event


def test_an_event_without_an_end_is_given_up() -> None:
    with pytest.raises(UpstreamFailedError, match="unterminated event"):
        fed(EventStream(), [b"x" * 2**16] * 300)


class Shouting(EventStream):
    """Opens with anything that says `open`, and shouts what is marked."""

    marks = (b'"loud"',)

    @override
    def opens(self, document: dict[str, Any]) -> bool:
        return "open" in document

    @override
    def repair(self, event: bytes) -> bytes:
        return event.upper()


@given(_cuts)
def test_only_marked_events_are_repaired_and_the_opening_waits(cuts: list[int]) -> None:
    opening = b'data: {"open": 1}\n\ndata: {"open": "loud"}\n\n'
    answer = b'data: {"say": "x"}\n\ndata: {"say": "loud"}\n\ndata: {"open": 2}\n\n'
    stream = Shouting()

    said = fed(stream, split(opening + answer, cuts))

    assert said == answer.replace(b'data: {"say": "loud"}', b'DATA: {"SAY": "LOUD"}')
    assert stream.opening == opening.replace(b'data: {"open": "loud"}', b'DATA: {"OPEN": "LOUD"}')


@pytest.mark.parametrize(
    ("event", "document"),
    [
        (b'data: {"a": 1}\n\n', {"a": 1}),
        (b'event: x\ndata:{"a":\ndata: 1}\n\n', {"a": 1}),
        (b"data: [DONE]\n\n", None),
        (b'data: {"a": \n\n', None),
        (b'data: {"a": "\xff"}\n\n', None),
        (b"event: x\n\n", None),
    ],
)
def test_the_document_of_an_event_is_read(event: bytes, document: dict[str, Any] | None) -> None:
    assert document_of(event) == document


def test_an_event_is_made_with_and_without_a_name() -> None:
    assert event_of({"a": 1}) == b'data: {"a":1}\n\n'
    assert event_of({"a": 1}, "x") == b'event: x\ndata: {"a":1}\n\n'


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"error": {"message": "m", "code": 400}}, 400),
        ({"error": {"message": "m", "type": "invalid_request_error"}}, 400),
        ({"error": {"message": "m", "code": 500}}, None),
        ({"error": {"message": "m", "code": "server_error"}}, None),
        ({"error": {"message": "m", "type": "api_error"}}, None),
        ({"response": {"error": {"message": "m"}}}, None),
        ({}, None),
    ],
)
def test_an_error_event_is_the_clients_fault_or_the_engines(
    document: dict[str, Any], status: int | None
) -> None:
    failure = failure_in(document)

    if status is None:
        assert isinstance(failure, UpstreamFailedError)
    else:
        assert isinstance(failure, ApiError)
        assert failure.status == status


def cut(sequences: tuple[str, ...], pieces: Iterable[str]) -> tuple[str, str | None]:
    cutter = StopCutter(sequences)
    said = ""
    for piece in pieces:
        said += cutter.feed(piece)
        if cutter.found is not None:
            return said, cutter.found
    return said + cutter.rest(), None


def reference(sequences: tuple[str, ...], text: str) -> tuple[str, str | None]:
    """What a model would have said that stops as soon as a sequence is complete."""
    for end in range(1, len(text) + 1):
        ending = [each for each in sequences if each and text[:end].endswith(each)]
        if ending:
            found = max(ending, key=len)
            return text[: end - len(found)], found
    return text, None


_letters = st.text("ab\n", max_size=40)
_sequences = st.lists(st.text("ab\n", max_size=5), max_size=4).map(tuple)


@given(_sequences, _letters, st.lists(st.integers(0, 40)))
@example(("abcd", "bc"), "abcd", [1, 2, 3])
@example(("abcd", "bc"), "xabce", [4])
@example(("aab",), "aaab", [1, 2, 3])
def test_stop_sequences_cut_the_same_however_a_text_is_split(
    sequences: tuple[str, ...], text: str, cuts: list[int]
) -> None:
    pieces = [piece.decode() for piece in split(text.encode(), cuts)]

    assert cut(sequences, pieces) == reference(sequences, text)


def test_what_can_begin_no_sequence_goes_on_at_once() -> None:
    cutter = StopCutter(("STOP",))

    assert [cutter.feed(piece) for piece in ("one S", "T", "x", " S", "TO", "P more")] == [
        "one ", "", "STx", " ", "", "",
    ]  # fmt: skip
    assert cutter.found == "STOP"


@pytest.mark.parametrize(
    ("value", "sequences"),
    [(None, ()), ("", ()), ("x", ("x",)), (["x", "", "y"], ("x", "y")), ([], ())],
)
def test_stop_sequences_come_as_a_text_or_a_list(value: object, sequences: tuple[str, ...]) -> None:
    assert stop_sequences(value, "stop") == sequences


@pytest.mark.parametrize("value", [5, True, {}, [1], [["x"]], [None]])
def test_other_stop_sequences_are_refused(value: object) -> None:
    with pytest.raises(ApiError) as caught:
        stop_sequences(value, "stop")

    assert (caught.value.status, caught.value.param) == (400, "stop")
