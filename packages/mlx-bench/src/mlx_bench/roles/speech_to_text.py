"""Models that transcribe: seconds of sound per second of work."""

import msgspec

from mlx_bench.request import PlainRequest
from mlx_bench.roles.sounds import random_sound
from mlx_bench.roles.workload import (
    REAL_TIME,
    FreshMaterial,
    RoleAnswer,
    RoleLoad,
    RoleWorkload,
    decoded,
)

_TOLERANCE_S = 1.0
"""Servers round to whole seconds."""


class _Usage(msgspec.Struct):
    seconds: float | None = None


class _Answer(msgspec.Struct):
    text: str
    duration: float | None = None
    usage: _Usage | None = None


def _make(model: str, load: RoleLoad, material: FreshMaterial) -> PlainRequest:
    import httpx  # noqa: PLC0415 - the names of the roles are shown without it

    # The language and the temperature are given: a model that is unsure would try several.
    fields = {"model": model, "language": "en", "temperature": "0", "response_format": "json"}
    sound = random_sound(load.size, material.draw())
    files = {"file": ("sound.wav", sound, "audio/wav")}
    form = httpx.Request("POST", "http://localhost", data=fields, files=files)
    return PlainRequest("/audio/transcriptions", form.read(), form.headers["content-type"])


def _read(body: bytes, load: RoleLoad) -> RoleAnswer:
    answer = decoded(body, _Answer)
    heard_s = answer.duration
    if heard_s is None and answer.usage is not None:
        heard_s = answer.usage.seconds
    if heard_s is not None and abs(heard_s - load.size) > _TOLERANCE_S:
        raise ValueError(f"{heard_s:g} of {load.size:,} seconds were heard")
    return RoleAnswer(load.size)


SPEECH_TO_TEXT = RoleWorkload(
    role="speech-to-text",
    unit=REAL_TIME,
    item=("sound", "sounds"),
    size_unit="seconds",
    items=(1,),
    sizes=(10, 30, 120),
    most_items=1,
    largest_size=30 * 60,  # whose 58 MB are an upload that gateways take
    make=_make,
    read=_read,
)
"""The words of a sound, at `/audio/transcriptions`."""
