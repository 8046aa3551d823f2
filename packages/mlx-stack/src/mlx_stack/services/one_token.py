"""The smallest real request: it shows that a service does its work, not only that it listens."""

import http.client
import json
from urllib.parse import urlsplit

from mlx_procsup import Ask, SupervisionError
from mlx_stack.services.engine_door import ask_engine

_PATH = "/v1/chat/completions"


def ask_engine_for_one_token(ask: Ask, port: int, model: str, *, timeout_s: float) -> None:
    """As `ask_one_token`, of the engine on `port`."""
    headers = {"Content-Type": "application/json"}
    try:
        answer = ask_engine(
            ask, port, "POST", _PATH, _body(model), headers=headers, timeout_s=timeout_s
        )
    except (OSError, http.client.HTTPException) as error:
        raise _failed(model, str(error)) from error
    _check(model, *answer)


def ask_one_token(root_url: str, model: str, *, key: str, timeout_s: float) -> None:
    """Nothing, if a chat completion of one token succeeds.

    Args:
        root_url: The gateway.
        model: A model name there.
        key: What it asks for.
        timeout_s: How long the answer may take; the first one compiles the model's kernels.

    Raises:
        SupervisionError: It fails; the message says how.
    """
    address = urlsplit(root_url).netloc
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    try:
        connection.request("POST", _PATH, _body(model), headers)
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise _failed(model, str(error)) from error
    finally:
        connection.close()
    _check(model, response.status, answer)


def _body(model: str) -> bytes:
    messages = [{"role": "user", "content": "Hi"}]
    return json.dumps({"model": model, "messages": messages, "max_tokens": 1}).encode()


def _check(model: str, status: int, answer: bytes) -> None:
    if status != http.client.OK:
        words = answer.decode("utf-8", errors="replace").strip()[:300]
        raise _failed(model, f"HTTP {status}: {words}")


def _failed(model: str, reason: str) -> SupervisionError:
    return SupervisionError(f"A request for one token to {model!r} failed: {reason}")
