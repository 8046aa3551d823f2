"""`/v1/audio/*`: speech to text, and text to speech.

An engine is always asked for all that it knows of a sound, and the form that the client wants is
made here: mlx_vlm.server 0.7.10 has no subtitles for silence, and answers without the length of the
sound (decision 0109).
"""

import re
from collections.abc import Iterable
from typing import Any, Literal, override

import msgspec

from mlx_gateway.fields import Fields, invalid
from mlx_gateway.protocols.api import Api, Call, decoded_answer
from mlx_gateway.protocols.checks import checked
from mlx_gateway.protocols.events import Usage
from mlx_gateway.settings import Role

LONGEST_TEXT = 4096
"""Characters: as many as OpenAI speaks at once."""
_FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
_PASSED_ON = ("language", "prompt")
_TIMES, _SEGMENT = "timestamp_granularities[]", "segment"


class Transcriptions(Api):
    """OpenAI's API: the words of a sound, in its own language."""

    roles: frozenset[Role] = frozenset({Role.SPEECH_TO_TEXT})
    takes_form = True
    task = "transcribe"

    @override
    def streams(self, fields: Fields) -> bool:
        return False  # as OpenAI does for Whisper, whatever `stream` says

    @override
    def read(self, fields: Fields, *, sees_images: bool | None) -> Call:
        form = fields.text("response_format") or "json"
        if form not in _FORMATS:
            raise invalid(
                f"`response_format` must be one of {', '.join(_FORMATS)}.", param="response_format"
            )
        if {*(fields.text(_TIMES) or _SEGMENT).split(",")} != {_SEGMENT}:
            raise invalid("Timestamps are per segment, not per word: `timestamp_granularities` "
                          "may only be 'segment'.", param="timestamp_granularities")  # fmt: skip
        sent = fields.only(*_PASSED_ON).with_values(response_format="verbose_json")
        temperature = fields.text("temperature")
        if temperature:
            sent = sent.with_values(temperature=_temperature(temperature))
        return Call(sent, asked=fields)

    @override
    def whole(self, body: bytes, call: Call) -> tuple[bytes, Usage]:
        heard = decoded_answer(body, _Heard, "a transcription")
        form = (call.asked or call.fields).text("response_format") or "json"
        return render(heard, form, self.task), Usage()

    @override
    def answer_type(self, call: Call) -> bytes:
        form = (call.asked or call.fields).text("response_format") or "json"
        return b"application/json" if form.endswith("json") else b"text/plain; charset=utf-8"


class Translations(Transcriptions):
    """OpenAI's API: the words of a sound, in English."""

    task = "translate"


class Speech(Api):
    """OpenAI's API: a sound of a text, passed on while it is made."""

    roles: frozenset[Role] = frozenset({Role.TEXT_TO_SPEECH})

    @override
    def streams(self, fields: Fields) -> bool:
        return False  # its bytes come as they are made, and are no events

    @override
    def read(self, fields: Fields, *, sees_images: bool | None) -> Call:
        asked = checked(fields, _Speech)
        if not asked.input.strip():
            raise invalid("`input` must be a non-empty string.", param="input")
        for name in ("input", "instructions", "voice"):
            length = len(getattr(asked, name))
            if length > LONGEST_TEXT:
                raise invalid(
                    f"`{name}` is {length:,} characters long, and at most {LONGEST_TEXT:,} are "
                    "allowed.",
                    param=name,
                )
        if not 0.25 <= asked.speed <= 4:
            raise invalid("`speed` must be a number from 0.25 to 4.", param="speed")
        sent: dict[str, object] = {"input": asked.input, "speed": asked.speed}
        if asked.voice:
            sent["voice"] = asked.voice
        if asked.instructions:
            sent["instruct"] = asked.instructions
        sent |= {"response_format": asked.response_format, "stream": True}
        return Call(Fields({}, 0).with_values(model="", **sent))


class _Speech(msgspec.Struct):
    input: str
    voice: str = ""
    instructions: str = ""
    response_format: Literal["mp3", "opus", "flac", "wav", "pcm"] = "mp3"
    speed: float = 1.0
    stream_format: Literal["audio"] = "audio"


class _Segment(msgspec.Struct):
    start: float
    end: float
    text: str = ""
    id: int = 0
    seek: int = 0
    tokens: list[int] = []
    temperature: float = 0.0
    avg_logprob: float = 0.0
    compression_ratio: float = 0.0
    no_speech_prob: float = 0.0


class _Heard(msgspec.Struct):
    text: str
    segments: list[_Segment] | None = None
    language: str | None = None
    duration: float | None = None


def render(heard: _Heard, form: str, task: str) -> bytes:
    """What was heard, in the form that the client wants."""
    text, segments = heard.text.strip(), heard.segments or []
    spoken = [each for each in segments if each.text.strip()]
    if form == "text":
        return f"{text}\n".encode()
    if form in ("srt", "vtt"):
        return "".join(_subtitles(spoken, form)).encode()
    document: dict[str, Any] = {"text": text}
    if heard.duration is not None:
        document["usage"] = {"type": "duration", "seconds": round(heard.duration, 3)}
    if form == "verbose_json":
        document = {"task": task, "language": heard.language, "duration": heard.duration,
                    **document, "segments": segments}  # fmt: skip
    return msgspec.json.encode(document)


def _subtitles(segments: Iterable[_Segment], form: str) -> Iterable[str]:
    """The lines of a file of subtitles."""
    mark = "," if form == "srt" else "."
    if form == "vtt":
        yield "WEBVTT\n\n"
    for number, each in enumerate(segments, start=1):
        if form == "srt":
            yield f"{number}\n"
        # a blank line or an arrow would end or begin another subtitle
        text = re.sub(r"-{2,}>", "->", " ".join(each.text.split()))
        yield f"{_clock(each.start, mark)} --> {_clock(each.end, mark)}\n{text}\n\n"


def _clock(seconds: float, mark: str) -> str:
    """`3661.5` → `01:01:01,500`."""
    whole, milliseconds = divmod(round(max(seconds, 0.0) * 1000), 1000)
    minutes, second = divmod(whole, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}{mark}{milliseconds:03}"


def _temperature(text: str) -> str:
    """The value of `temperature` in a form.

    Raises:
        ApiError: When it isn't a number from 0 to 1.
    """
    try:
        is_right = 0 <= float(text) <= 1
    except ValueError:
        is_right = False
    if not is_right:
        raise invalid("`temperature` must be a number from 0 to 1.", param="temperature")
    return text
