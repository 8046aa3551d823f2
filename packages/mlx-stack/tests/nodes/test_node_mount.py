"""What the gateway answers to a Mac that has no key."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from mlx_gateway.keys import KeyRing
from mlx_stack.home import Home
from mlx_stack.nodes import mount
from mlx_stack.nodes.identity import ensure_identity
from mlx_stack.nodes.pairing import CODE_LASTS_S
from mlx_stack.nodes.pairing_server import show_code


@pytest.fixture(autouse=True)
def identity(home: Home) -> None:
    ensure_identity(home, datetime.now(UTC))


async def _never() -> Any:
    await asyncio.Event().wait()


def status_for_a_body_that_never_comes(home: Home, *, scheme: str = "https") -> int:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def ask() -> None:
        scope: dict[str, Any] = {
            "path": mount.HELLO_PATH,
            "method": "POST",
            "scheme": scheme,
            "headers": [],
        }
        answering = mount.NodeMount(home, KeyRing("sk-x", home.client_keys))
        await asyncio.wait_for(answering(scope, _never, send), timeout=60)

    asyncio.run(ask())
    return sent[0]["status"]


def test_no_body_is_awaited_without_tls_or_while_no_code_is_shown(home: Home) -> None:
    assert status_for_a_body_that_never_comes(home) == 409
    show_code(home, time.time() - CODE_LASTS_S)  # its time has run out
    assert status_for_a_body_that_never_comes(home) == 409
    show_code(home, time.time())
    assert status_for_a_body_that_never_comes(home, scheme="http") == 403


def test_a_body_that_never_comes_holds_no_connection_for_ever(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    show_code(home, time.time())
    monkeypatch.setattr(mount, "_BODY_WITHIN_S", 0.1)

    assert status_for_a_body_that_never_comes(home) == 400
