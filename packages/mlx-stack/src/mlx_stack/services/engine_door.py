"""Requests to an engine, which answers nobody but who knows what it was started with."""

import http.client
from collections.abc import Mapping
from functools import partial

from mlx_procsup import Ask, Question, StateDirs, secret_of
from mlx_stack.engines import guard
from mlx_stack.gateway.endpoint import LOOPBACK


class StrangerError(OSError):
    """Another process answers on an engine's port."""


def asker(dirs: StateDirs, name: str) -> Ask:
    """What makes the proof for requests to the engine of the tier `name`, as it runs now."""
    return partial(guard.ask, secret_of(dirs, name))


def latest_asker(dirs: StateDirs, name: str) -> Ask:
    """The same, looked up for each request: for an engine that is yet to be started again."""

    def ask(method: str, target: str) -> Question:
        return guard.ask(secret_of(dirs, name), method, target)

    return ask


def ask_engine(
    ask: Ask,
    port: int,
    method: str,
    target: str,
    body: bytes | None = None,
    *,
    headers: Mapping[str, str] = {},
    timeout_s: float,
) -> tuple[int, bytes]:
    """The status and the body of an engine's answer; nothing is sent before it has proven itself.

    Raises:
        StrangerError: Another process answers there.
        OSError: Nothing answers in time.
        HTTPException: The answer is not HTTP.
    """
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=timeout_s)
    try:
        _exchange(connection, ask, "GET", guard.CHALLENGE_PATH, None, {})
        return _exchange(connection, ask, method, target, body, headers)
    finally:
        connection.close()


def _exchange(
    connection: http.client.HTTPConnection,
    ask: Ask,
    method: str,
    target: str,
    body: bytes | None,
    headers: Mapping[str, str],
) -> tuple[int, bytes]:
    question = ask(method, target)
    connection.request(method, target, body, {**headers, **question.headers})
    response = connection.getresponse()
    content = response.read()
    if not question.is_answered({name.lower(): value for name, value in response.getheaders()}):
        raise StrangerError(f"what answers on port {connection.port} is not the engine")
    return response.status, content
