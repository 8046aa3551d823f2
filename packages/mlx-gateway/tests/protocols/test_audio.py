"""Speech to text and text to speech: what is asked, refused, and made of an answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.fields import Fields
from mlx_gateway.protocols.audio import LONGEST_TEXT, Speech, Transcriptions, Translations

HEARD = {
    "text": " Hello there. Bye.",
    "language": "en",
    "duration": 3700.25,
    "segments": [
        {"id": 0, "start": 0.0, "end": 2.5, "text": " Hello\n\nthere --->.", "tokens": [1]},
        {"id": 1, "start": 2.5, "end": 3.0, "text": "  "},
        {"id": 2, "start": 3661.0, "end": 3661.5, "text": " Bye."},
    ],
}


def fields(**values: object) -> Fields:
    return Fields({}, 0).with_values(**values)


def answer(heard: object, api: Transcriptions | None = None, **asked: str) -> str:
    api = api or Transcriptions()
    call = api.read(fields(model="w", **asked), sees_images=None)
    return api.whole(json.dumps(heard).encode(), call)[0].decode()


def test_the_engine_is_asked_for_all_it_knows_and_nothing_that_was_made_up() -> None:
    asked = fields(model="w", response_format="srt", prompt="p", temperature="0.5", evil="x")

    call = Transcriptions().read(asked, sees_images=None)

    assert call.fields.decoded() == {
        "prompt": "p",
        "response_format": "verbose_json",
        "temperature": "0.5",
    }


def test_each_form_of_an_answer_is_the_one_that_openai_has() -> None:
    assert answer(HEARD, response_format="text") == "Hello there. Bye.\n"
    assert json.loads(answer(HEARD)) == {
        "text": "Hello there. Bye.",
        "usage": {"type": "duration", "seconds": 3700.25},
    }
    verbose = json.loads(answer(HEARD, Translations(), response_format="verbose_json"))
    assert (verbose["task"], verbose["language"], verbose["duration"]) == (
        "translate",
        "en",
        3700.25,
    )
    assert [each["id"] for each in verbose["segments"]] == [0, 1, 2]
    assert answer(HEARD, response_format="srt") == (
        "1\n00:00:00,000 --> 00:00:02,500\nHello there ->.\n\n"
        "2\n01:01:01,000 --> 01:01:01,500\nBye.\n\n"
    )
    assert answer(HEARD, response_format="vtt").startswith(
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.500\n"
    )


def test_silence_has_subtitles_without_any() -> None:
    silence = {"text": "", "segments": []}
    assert answer(silence, response_format="srt") == ""
    assert answer(silence, response_format="vtt") == "WEBVTT\n\n"


@pytest.mark.parametrize("heard", [{}, [], {"text": 5}, {"text": "", "segments": [{"text": "x"}]}])
def test_an_answer_that_is_no_transcription_is_the_engines_failure(heard: object) -> None:
    with pytest.raises(UpstreamFailedError):
        answer(heard)


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"response_format": "ndjson"}, "response_format"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": "nan"}, "temperature"),
        ({"temperature": "2"}, "temperature"),
        ({"timestamp_granularities[]": "word,segment"}, "timestamp_granularities"),
    ],
)
def test_what_nobody_does_is_refused(asked: dict[str, str], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        Transcriptions().read(fields(model="w", **asked), sees_images=None)
    assert (caught.value.status, caught.value.param) == (400, param)


@given(st.floats(0, 20_000), st.text(max_size=40))
def test_subtitles_stay_whole_whatever_is_said(start: float, text: str) -> None:
    heard = {"text": text, "segments": [{"start": start, "end": start + 1, "text": text}]}
    made = answer(heard, response_format="srt")
    assert made.count("-->") == (1 if text.strip() else 0)


def test_speech_is_asked_for_in_pieces_and_as_the_client_wants_it() -> None:
    asked = fields(model="k", input="Hello", voice="af_heart", speed=1.5, response_format="wav")

    call = Speech().read(asked, sees_images=None)

    assert call.fields.without("model").decoded() == {
        "input": "Hello",
        "speed": 1.5,
        "voice": "af_heart",
        "response_format": "wav",
        "stream": True,
    }


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"input": " "}, "input"),
        ({"input": 5}, "input"),
        ({"input": "x" * (LONGEST_TEXT + 1)}, "input"),
        ({"input": "x", "instructions": "x" * (LONGEST_TEXT + 1)}, "instructions"),
        ({"input": "x", "voice": "x" * (LONGEST_TEXT + 1)}, "voice"),
        ({"input": "x", "speed": 9}, "speed"),
        ({"input": "x", "response_format": "aac"}, "response_format"),
        ({"input": "x", "stream_format": "sse"}, "stream_format"),
        ({"input": "x", "voice": {"id": "y"}}, "voice"),
    ],
)
def test_speech_that_nobody_makes_is_refused(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        Speech().read(fields(model="k", **asked), sees_images=None)
    assert (caught.value.status, caught.value.param) == (400, param)
