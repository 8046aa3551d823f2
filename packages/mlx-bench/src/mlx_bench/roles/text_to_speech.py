"""Models that speak: seconds of sound per second of work, and the time to the first byte."""

from mlx_bench.request import PlainRequest
from mlx_bench.roles.sounds import wav_seconds
from mlx_bench.roles.workload import (
    REAL_TIME,
    FreshMaterial,
    RoleAnswer,
    RoleLoad,
    RoleWorkload,
    json_request,
)
from mlx_bench.workload import WORDS

_SENTENCE = 10
"""Words."""


def _text(words: int, material: FreshMaterial) -> str:
    """Random words in sentences: many models speak one after the other."""
    drawn = material.draw().choices(WORDS, k=words)
    sentences = (drawn[start : start + _SENTENCE] for start in range(0, words, _SENTENCE))
    return " ".join(f"{' '.join(each).capitalize()}." for each in sentences)


def _make(model: str, load: RoleLoad, material: FreshMaterial) -> PlainRequest:
    # `stream` is of local servers; OpenAI's own streams a sound without being asked.
    body = {"model": model, "input": _text(load.size, material), "response_format": "wav"}
    return json_request("/audio/speech", {**body, "stream": True})


TEXT_TO_SPEECH = RoleWorkload(
    role="text-to-speech",
    unit=REAL_TIME,
    item=("text", "texts"),
    size_unit="words",
    items=(1,),
    sizes=(10, 50, 150),
    most_items=1,
    largest_size=300,  # shorter than the 4,096 characters that OpenAI's API takes
    streams=True,
    make=_make,
    read=lambda body, _: RoleAnswer(wav_seconds(body)),
)
"""The sound of a text, at `/audio/speech`."""
