"""What the running gateway says of each model: requests, speed, and when its engine will rest."""

import http.client
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from mlx_stack.credentials import read_gateway_key
from mlx_stack.errors import StackError
from mlx_stack.home import Home
from mlx_stack.models.shelf import service_of
from mlx_stack.services.engine_door import request

_WITHIN_S = 1.0


class AtGateway(msgspec.Struct, frozen=True):
    """One model at the gateway.

    Attributes:
        name: What it is called there.
        generation_tps: How fast its last answer was written.
        state: `at-rest`, `starting`, `up` or `ending`; "" where the gateway starts nothing.
        for_s: How long it has been starting, or unused.
        rests_in_s: When its engine is ended if no request comes.
        waits_for: Those that have to make room in memory before it is started.
        problem: Why it could not be started when it was last tried.
        node: The Mac that serves it; None for this one.
        is_up: Whether that Mac answers, as far as is known; None for this one.
    """

    name: str
    requests_running: Annotated[int, msgspec.Meta(ge=0)]
    requests_waiting: Annotated[int, msgspec.Meta(ge=0)]
    generation_tps: float | None = None
    state: str = ""
    for_s: float | None = None
    rests_in_s: float | None = None
    waits_for: tuple[str, ...] = ()
    problem: str = ""
    node: str | None = None
    is_up: bool | None = None


class _Answer(msgspec.Struct, frozen=True):
    models: tuple[AtGateway, ...]


def ask_gateway(home: Home, url: str) -> dict[str, AtGateway]:
    """What it says, by service; nothing where it doesn't answer.

    Args:
        url: Its root.
    """
    try:
        headers = {"Authorization": f"Bearer {read_gateway_key(home) or ''}"}
        address = urlsplit(url).netloc
        status, text = request(address, "GET", "/v1/status", headers=headers, timeout_s=_WITHIN_S)
        models = msgspec.json.decode(text, type=_Answer).models if status == 200 else ()
    except (OSError, http.client.HTTPException, StackError, ValueError, RecursionError):
        return {}
    return {name: model for model in models for name in (service_of(model.name), model.name)}
