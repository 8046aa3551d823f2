"""The smallest real request: it shows that a service does its work, not only that it listens."""

import http.client
import json
from urllib.parse import urlsplit

from mlx_procsup import SupervisionError


def ask_one_token(base_url: str, model: str, *, key: str | None = None, timeout_s: float) -> None:
    """Nothing, if a chat completion of one token succeeds.

    Args:
        base_url: The endpoint, ending in `/v1`.
        model: A model name there.
        key: What it asks for, if anything.
        timeout_s: How long the answer may take; the first one compiles the model's kernels.

    Raises:
        SupervisionError: It fails; the message says how.
    """
    parts = urlsplit(base_url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    try:
        connection.request("POST", f"{parts.path}/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise SupervisionError(f"A request for one token to {model!r} failed: {error}") from error
    finally:
        connection.close()
    if response.status != http.client.OK:
        words = answer.decode("utf-8", errors="replace").strip()[:300]
        raise SupervisionError(
            f"A request for one token to {model!r} failed: HTTP {response.status}: {words}"
        )
