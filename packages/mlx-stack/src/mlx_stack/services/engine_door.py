"""HTTP to our own services; an engine answers only with the secret it was started with."""

import http.client
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlx_procsup import (
    Ask,
    HttpReadiness,
    ProcessSpec,
    Question,
    StateDirs,
    SupervisionError,
    secret_of,
)
from mlx_stack.engines import guard

if TYPE_CHECKING:  # the gateway uses the door, and proves nothing
    from mlx_stack.services.proof import Proof

_PROOF_TIMEOUT_S = 120.0
"""The first answer compiles the model's kernels."""
_LONGEST_STATUS_BYTES = 2**20


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


def request(
    address: str,
    method: str,
    target: str,
    body: bytes | None = None,
    *,
    headers: Mapping[str, str] = {},
    ask: Ask | None = None,
    timeout_s: float,
) -> tuple[int, bytes]:
    """The status and the body of an answer; with `ask`, nothing is sent before the engine's proof.

    Raises:
        StrangerError: Another process answers there.
        OSError: Nothing answers in time.
        HTTPException: The answer is not HTTP.
    """
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    try:
        if ask is not None:
            _exchange(connection, "GET", guard.CHALLENGE_PATH, None, {}, ask)
        status, content, _ = _exchange(connection, method, target, body, headers, ask)
    finally:
        connection.close()
    return status, content


def read_status(readiness: HttpReadiness, *, timeout_s: float) -> tuple[int, bytes, str | None]:
    """What an engine says of its work: HTTP status, body, and what its guard counted, if it did.

    Raises:
        StrangerError: Another process answers there.
        OSError: Nothing answers in time.
        HTTPException: The answer is not HTTP.
    """
    connection = http.client.HTTPConnection(urlsplit(readiness.url).netloc, timeout=timeout_s)
    try:
        status, content, said = _exchange(
            *(connection, "GET", guard.STATUS_PATH, None),
            headers={},
            ask=readiness.ask,
            longest_bytes=_LONGEST_STATUS_BYTES,
        )
    finally:
        connection.close()
    return status, content, said.get(guard.WORK_HEADER)


def _exchange(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    body: bytes | None,
    headers: Mapping[str, str],
    ask: Ask | None,
    longest_bytes: int | None = None,
) -> tuple[int, bytes, Mapping[str, str]]:
    question = ask(method, target) if ask is not None else None
    proof: Mapping[str, str] = question.headers if question is not None else {}
    connection.request(method, target, body, {**headers, **proof})
    response = connection.getresponse()
    content = response.read(longest_bytes)
    answered = {name.lower(): value for name, value in response.getheaders()}
    if question is not None and not question.is_answered(answered):
        raise StrangerError(f"what answers on port {connection.port} is not the engine")
    return response.status, content, answered


def prove(spec: ProcessSpec, model: str, proof: "Proof", *, key: str | None = None) -> None:
    """Nothing, if a service answers a small request as it must: it does its work.

    Args:
        spec: The engine, or the gateway.
        model: A model name there.
        key: What it asks for, if anything.

    Raises:
        SupervisionError: It doesn't; the message says how.
    """
    assert spec.readiness is not None  # every service that answers is asked whether it is ready
    failed = f"A request for {proof.what} to {model!r} failed"
    try:
        status, answer = request_proof(
            spec.readiness, model, proof, key=key, timeout_s=_PROOF_TIMEOUT_S
        )
    except (OSError, http.client.HTTPException) as error:
        raise SupervisionError(f"{failed}: {error}") from error
    if status != http.client.OK:
        words = answer.decode("utf-8", errors="replace").strip()[:300]
        raise SupervisionError(f"{failed}: HTTP {status}: {words}")
    problem = proof.check(answer)
    if problem:
        raise SupervisionError(f"{failed}: {problem}")


def request_proof(
    readiness: HttpReadiness,
    model: str,
    proof: "Proof",
    *,
    key: str | None = None,
    timeout_s: float,
) -> tuple[int, bytes]:
    """The status and the body of the answer to the small request that proves a model.

    Raises:
        OSError: As of `request`, and HTTPException.
    """
    content_type, body = proof.request(model)
    headers = {"Content-Type": content_type}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return request(
        *(urlsplit(readiness.url).netloc, "POST", proof.path),
        body,
        headers=headers,
        ask=readiness.ask,
        timeout_s=timeout_s,
    )
