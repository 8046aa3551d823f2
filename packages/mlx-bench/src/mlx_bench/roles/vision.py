"""Models that read images: images a second, each up to the first token of what is said of it."""

import msgspec

from mlx_bench.request import PlainRequest
from mlx_bench.roles.pictures import data_url, random_picture
from mlx_bench.roles.workload import (
    FreshMaterial,
    RoleAnswer,
    RoleLoad,
    RoleWorkload,
    decoded,
    json_request,
)


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


def _make(model: str, load: RoleLoad, material: FreshMaterial) -> PlainRequest:
    pictures = [
        {
            "type": "image_url",
            "image_url": {"url": data_url(random_picture(load.size, material.draw()))},
        }
        for _ in range(load.items)
    ]
    content = [*pictures, {"type": "text", "text": "Which colours are in it?"}]
    messages = [{"role": "user", "content": content}]
    body = {"model": model, "messages": messages, "max_tokens": 1, "temperature": 0}
    return json_request("/chat/completions", body)


def _read(body: bytes, load: RoleLoad) -> RoleAnswer:
    answer = decoded(body, _Answer)
    if not answer.choices or answer.choices[0].finish_reason == "error":
        raise ValueError("the answer is empty")
    return RoleAnswer(load.items, answer.usage.prompt_tokens if answer.usage else None)


VISION = RoleWorkload(
    role="vision",
    unit="images/s",
    item=("image", "images"),
    size_unit="pixels",
    items=(1,),
    sizes=(336, 1024),
    most_items=64,
    largest_size=8_192,  # whose pixels are 201 MB before they are packed
    make=_make,
    read=_read,
)
"""Square images and a short question, at `/chat/completions`, up to the answer's first token."""
