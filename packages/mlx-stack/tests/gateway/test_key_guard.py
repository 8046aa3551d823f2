"""Who gets through the gateway's door, and what the others are told."""

import asyncio
import json
from typing import Any

import pytest
from mlx_stack_gateway.guard import KeyGuard

KEY = "sk-right-0123456789"


async def _application(scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ARG001 - ASGI's
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


def _ask(path: str, *headers: tuple[str, str], kind: str = "http") -> list[dict[str, Any]]:
    """What comes back for a request with `headers`."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    lines = [(name.encode(), value.encode()) for name, value in headers]
    guard = KeyGuard(_application, KEY, lambda: "abc")
    asyncio.run(guard({"type": kind, "path": path, "headers": lines}, receive, send))
    return sent


@pytest.mark.parametrize(
    "header",
    [
        ("authorization", f"Bearer {KEY}"),
        ("authorization", f"bearer  {KEY} "),
        ("x-api-key", KEY),
    ],
)
def test_the_key_opens_wherever_a_client_puts_it(header: tuple[str, str]) -> None:
    assert _ask("/v1/chat/completions", header)[-1]["body"] == b"inside"


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("authorization", ""),),
        (("authorization", "Bearer"),),
        (("authorization", f"Basic {KEY}"),),
        (("authorization", KEY),),
        (("authorization", "Bearer \u00e4"),),
        (("x-api-key", KEY[:-1]),),
    ],
)
def test_anything_else_is_refused_with_401(headers: tuple[tuple[str, str], ...]) -> None:
    start, body = _ask("/v1/chat/completions", *headers)
    assert start["status"] == 401
    assert json.loads(body["body"])["error"]["code"] == "invalid_api_key"


def test_anthropics_clients_are_refused_in_their_own_shape() -> None:
    _, body = _ask("/v1/messages", ("x-api-key", "wrong"))
    document = json.loads(body["body"])
    assert document["type"] == "error"
    assert document["error"]["type"] == "authentication_error"


def test_the_liveness_probe_is_open_and_says_which_configuration_is_in_force() -> None:
    start, body = _ask("/health/liveliness")
    assert body["body"] == b"inside"
    assert (b"x-mlx-stack-config", b"abc") in start["headers"]


def test_a_websocket_without_the_key_is_closed() -> None:
    assert _ask("/v1/realtime", kind="websocket") == [{"type": "websocket.close", "code": 1008}]
