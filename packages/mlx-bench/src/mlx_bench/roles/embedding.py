"""Embedders: texts a second."""

import msgspec

from mlx_bench.request import PlainRequest
from mlx_bench.roles.workload import (
    RoleAnswer,
    RoleLoad,
    RoleWorkload,
    decoded,
    json_request,
)


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None


class _Row(msgspec.Struct):
    embedding: list[float]


class _Answer(msgspec.Struct):
    data: list[_Row]
    usage: _Usage | None = None


def _request(model: str, texts: list[str]) -> PlainRequest:
    # Clients for Node.js and Python ask for base64; not every server has it.
    return json_request("/embeddings", {"model": model, "input": texts})


def _read(body: bytes, load: RoleLoad) -> RoleAnswer:
    answer = decoded(body, _Answer)
    if len(answer.data) != load.items or not all(row.embedding for row in answer.data):
        raise ValueError(f"{len(answer.data)} vectors came for {load.items} texts")
    return RoleAnswer(load.items, answer.usage.prompt_tokens if answer.usage else None)


EMBEDDING = RoleWorkload(
    role="embedding",
    unit="texts/s",
    item=("text", "texts"),
    size_unit="tokens",
    items=(1, 32),
    sizes=(32, 128, 512),
    make=lambda model, load, material: _request(model, material.texts(load)),
    read=_read,
    probe=lambda model, text: _request(model, [text]),
)
"""Vectors of texts, at `/embeddings`."""
