"""What a stream said, from stamped reads that may be cut anywhere."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_bench.completion import CountedBy, parse_stream, split_events


def frame(delta: dict[str, object] | None = None, **fields: object) -> str:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": None}]
    return json.dumps({"id": "c-1", "choices": choices, **fields}, ensure_ascii=False)


def body(*frames: str, end: str = "\n") -> bytes:
    return "".join(f"data: {text}{end}{end}" for text in frames).encode()


STREAM = body(
    frame({"role": "assistant"}),
    frame({"content": ""}),
    frame({"content": "Ünï"}),
    frame({"content": "⟨code⟩"}),
    frame(usage={"prompt_tokens": 7, "completion_tokens": 2}),
    "[DONE]",
)


@given(st.lists(st.integers(1, len(STREAM) - 1), max_size=12), st.sampled_from(["\n", "\r\n"]))
def test_events_are_the_same_however_the_bytes_are_cut(cuts: list[int], end: str) -> None:
    stream = STREAM.replace(b"\n", end.encode())
    edges = [0, *sorted(set(cuts)), len(stream)]
    reads = [(n, stream[a:b]) for n, (a, b) in enumerate(pairwise(edges))]
    whole = [event.data for event in split_events([(0, stream)])]
    assert [event.data for event in split_events(reads)] == whole
    assert parse_stream(reads).completion_tokens == 2


def test_an_event_is_stamped_when_its_last_byte_arrived() -> None:
    first = body(frame({"content": "a"}))
    reads = [(10, first[:5]), (20, first[5:-1]), (30, first[-1:])]
    assert parse_stream(reads).token_times_ns == (30,)


def test_role_only_and_empty_deltas_are_no_tokens() -> None:
    reads = [
        (1, body(frame({"role": "assistant"}), frame({"content": ""}), frame({"content": None}))),
        (9, body(frame({"content": "Hello"}), "[DONE]")),
    ]
    completion = parse_stream(reads)
    assert completion.token_times_ns == (9,)
    assert completion.completion_tokens == 1
    assert completion.counted_by is CountedBy.EVENTS


def test_reasoning_counts_as_output_under_both_of_its_names() -> None:
    reads = [
        (1, body(frame({"reasoning_content": "hm"}))),
        (2, body(frame({"reasoning": "hm"}))),
        (3, body(frame({"content": "Yes"}))),
    ]
    completion = parse_stream(reads)
    assert completion.token_times_ns == (1, 2, 3)


def test_the_servers_count_beats_the_number_of_events() -> None:
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    completion = parse_stream(
        [(1, body(frame({"content": "four tokens"}), frame({"content": "x"}), frame(usage=usage)))]
    )
    assert completion.completion_tokens == 8
    assert completion.counted_by is CountedBy.USAGE
    assert completion.usage is not None
    assert completion.usage.cached_tokens == 4


def test_an_error_frame_is_told_with_the_servers_words() -> None:
    error = json.dumps({"error": {"message": "out of memory"}})
    completion = parse_stream([(1, body(frame({"content": "a"}), error))])
    assert completion.error == "out of memory"
    assert not completion.is_done


def test_a_frame_that_is_no_json_is_an_error_and_not_a_crash() -> None:
    completion = parse_stream([(1, body("{broken"))])
    assert completion.error is not None
    assert "{broken" in completion.error


def test_comments_and_other_fields_are_passed_over() -> None:
    stream = b": ping\n\nid: 3\nretry: 10\n" + body(frame({"content": "a"}))
    assert parse_stream([(1, stream)]).completion_tokens == 1


@pytest.mark.parametrize("keep_alive", [b"data:\n\n", b"data: \n\n", b":\n\n", b"event: ping\n\n"])
def test_what_keeps_a_connection_alive_is_no_event(keep_alive: bytes) -> None:
    stream = keep_alive + body(frame({"content": "a"})) + keep_alive + body("[DONE]")
    completion = parse_stream([(1, stream)])
    assert completion.error is None
    assert completion.completion_tokens == 1


def test_an_error_field_that_holds_nothing_is_no_error() -> None:
    completion = parse_stream([(1, body(frame({"content": "a"}, error=None), "[DONE]"))])
    assert completion.error is None
    assert completion.completion_tokens == 1


def test_an_error_object_without_an_error_field_is_one() -> None:
    error = json.dumps({"object": "error", "message": "context too long", "code": 400})
    assert parse_stream([(1, body(error))]).error == "context too long"


def test_counts_of_zero_are_no_counts() -> None:
    usage = {"prompt_tokens": 0, "completion_tokens": 0}
    stream = body(frame({"content": "a"}), frame({"content": "b"}), frame(usage=usage))
    completion = parse_stream([(1, stream)])
    assert completion.completion_tokens == 2
    assert completion.counted_by is CountedBy.EVENTS
    assert completion.usage is not None
    assert completion.usage.prompt_tokens is None


def test_the_frame_of_usage_alone_says_that_the_stream_is_whole() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 1}
    tokens = frame({"content": "a"}, usage=usage)
    assert not parse_stream([(1, body(tokens))]).is_done
    assert parse_stream([(1, body(tokens, frame(usage=usage)))]).is_done


def test_lines_that_end_in_a_lone_cr_are_stamped_when_they_arrive() -> None:
    reads = [(n, body(frame({"content": "a"}), end="\r")) for n in (10, 20, 30)]
    assert parse_stream(reads).token_times_ns == (10, 20, 30)


def test_a_byte_order_mark_hides_nothing() -> None:
    assert parse_stream([(1, b"\xef\xbb\xbf" + STREAM)]) == parse_stream([(1, STREAM)])


def test_a_last_event_without_its_blank_line_still_counts() -> None:
    stream = body(frame({"content": "a"})) + b"data: [DONE]"
    assert parse_stream([(1, stream)]).is_done


def test_what_follows_done_is_not_read() -> None:
    completion = parse_stream([(1, body("[DONE]", frame({"content": "late"})))])
    assert completion.completion_tokens == 0
    assert completion.ended_ns == 1


@given(st.binary(max_size=200))
def test_any_bytes_are_understood_without_a_crash(stream: bytes) -> None:
    parse_stream([(1, stream)])
