"""How far engines have read the prompts that they work on, as they say it of themselves. Pure."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from mlx_gateway.in_flight import Reading


class _Row(msgspec.Struct):
    status: str = ""
    phase: str = ""
    prompt_tokens: Annotated[int, msgspec.Meta(ge=0)] = 0
    progress: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0


class _Status(msgspec.Struct):
    requests: list[_Row] = []


def read_rows(body: bytes) -> list[Reading]:
    """The prompts that vllm-mlx says in `/v1/status` are being read, the oldest first.

    Only its multimodal scheduler says how far it is: a progress of 0 is none.
    """
    try:
        rows = msgspec.json.decode(body, type=_Status).requests
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    return [
        Reading(row.prompt_tokens or None, row.progress or None)
        for row in rows
        if row.status == "running" and row.phase == "prefill"
    ]


def pair(numbers: Sequence[int], rows: Sequence[Reading]) -> dict[int, Reading]:
    """Which request is which row: nobody says, so that they must be as many, and stand in order."""
    return dict(zip(numbers, rows, strict=True)) if len(numbers) == len(rows) else {}
