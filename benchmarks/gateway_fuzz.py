"""Damaged and absurd requests to a running stack: how many does a client turn into a 5xx?

    MLX_STACK_HOME=… uv run python benchmarks/gateway_fuzz.py [--requests 5000] [--seed 1]

Bodies are made from the engine's own OpenAPI document: for each path that the gateway takes, a
request that is right is changed in one to four fields, to values of other types, out of range,
nested or huge. After each 5xx a request that is right shows whether the stack still answers. The
exit code is 1 if there was any 5xx, or if the stack stopped answering.
"""

import argparse
import collections
import json
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from mlx_stack.credentials import read_gateway_key
from mlx_stack.gateway.endpoint import Endpoint, gateway_url
from mlx_stack.home import find_home
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.engine_door import asker, request

_SAID = [{"role": "user", "content": "Hi"}]
RIGHT: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": _SAID, "max_tokens": 2},
    "/v1/completions": {"prompt": "Hi", "max_tokens": 2},
    "/v1/responses": {"input": "Hi", "max_output_tokens": 16},
    "/v1/messages": {"messages": _SAID, "max_tokens": 2},
    "/v1/messages/count_tokens": {"messages": _SAID},
    "/v1/embeddings": {"input": "Hi"},
    "/v1/rerank": {"query": "Hi", "documents": ["a", "b"]},
    "/v1/audio/speech": {"input": "Hi", "voice": "x"},
}
_NUMBERS = (0, -1, 1, 2, 0.5, -0.5, 1e308, -1e308, 2**31, 2**63, 2**64, -(2**63), 1e-320, 10**30)
_TEXTS = ("", " ", "a", "\x00", "\ud83d\ude00", "user", "system", "tool", "auto", "none", "🦓" * 50)
_TEXTS += (
    "{",
    "[" * 50,
    "<|im_start|>",
    "json_schema",
    "../../etc/passwd",
    "data:image/png;base64,AA",
)
_PARTS = (
    {"type": "text", "text": "x"}, {"type": "text"},
    {"type": "image_url", "image_url": {"url": "x"}},
    {"type": "image_url"}, {"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}},
    {"type": "tool_use", "id": "1", "name": "f", "input": {}}, {"type": "tool_result"},
    {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{"}, {"type": "thinking"},
    {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},
    {"type": "function", "name": "f", "parameters": {"type": []}},
    {"name": "f", "input_schema": {}},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]},
    {"role": "tool", "content": "x"}, {"role": "user"}, {"role": "user", "content": [None]},
)  # fmt: skip


def main() -> int:
    """Send the requests, and say what came back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--parallel", type=int, default=4)
    options = parser.parse_args()
    opened = OpenStack(find_home())
    tier = opened.stack.tiers[0]
    root = gateway_url(opened.config.gateway_host, opened.config.litellm_port)
    endpoint = Endpoint(root, read_gateway_key(opened.home) or "")
    _, schema = request(
        *(f"127.0.0.1:{tier.port}", "GET", "/openapi.json"),
        ask=asker(opened.home.state_dirs, tier.name),
        timeout_s=10,
    )
    fields = fields_of(json.loads(schema))
    with httpx.Client(
        base_url=endpoint.root_url,
        headers={"Authorization": f"Bearer {endpoint.key}", "Content-Type": "application/json"},
        timeout=120,
        trust_env=False,
    ) as client:
        return fuzz(client, tier.name, fields, options)


def fields_of(schema: dict[str, Any]) -> dict[str, list[str]]:
    """The fields that the engine knows, by path."""
    found: dict[str, list[str]] = {}
    for path, right in RIGHT.items():
        body = schema["paths"].get(path, {}).get("post", {}).get("requestBody", {})
        reference = next(iter(body.get("content", {}).values()), {}).get("schema", {})
        name = reference.get("$ref", "").rpartition("/")[2]
        properties = schema["components"]["schemas"].get(name, {}).get("properties", {})
        found[path] = sorted({*properties, *right, "unknown"} - {"model"})
    return found


def fuzz(
    client: httpx.Client, model: str, fields: dict[str, list[str]], options: argparse.Namespace
) -> int:
    """How it went: 0 if no request was answered with a 5xx."""
    chance = random.Random(options.seed)
    bodies = [make(chance, model, fields) for _ in range(options.requests)]
    statuses: collections.Counter[tuple[str, int]] = collections.Counter()
    bad: list[str] = []

    def send(item: tuple[str, bytes]) -> None:
        path, body = item
        try:
            with client.stream("POST", path, content=body) as answer:
                content = answer.read()
                status = answer.status_code
        except httpx.HTTPError as error:
            content, status = repr(error).encode(), 599
        statuses[path, status] += 1
        if status >= 500:
            right = client.post(
                "/v1/chat/completions", json={"model": model, **RIGHT["/v1/chat/completions"]}
            )
            bad.append(
                f"{status} {path} {body[:400]!r} -> {content[:300]!r}; then {right.status_code}"
            )
            print(bad[-1], flush=True)

    with ThreadPoolExecutor(options.parallel) as pool:
        list(pool.map(send, bodies))
    for (path, status), count in sorted(statuses.items()):
        print(f"{path:<28} {status} {count:>6}")
    right = client.post(
        "/v1/chat/completions", json={"model": model, **RIGHT["/v1/chat/completions"]}
    )
    print(f"{len(bodies)} requests, {len(bad)} answered with a 5xx; then {right.status_code}")
    return 1 if bad or right.status_code != 200 else 0


def make(chance: random.Random, model: str, fields: dict[str, list[str]]) -> tuple[str, bytes]:
    """A path, and a body that is nearly right."""
    path = chance.choice(list(RIGHT)[:5] * 4 + list(RIGHT)[5:])
    body: dict[str, Any] = {"model": model, **json.loads(json.dumps(RIGHT[path]))}
    for _ in range(chance.randint(1, 4)):
        body[chance.choice(fields[path])] = value(chance)
    limits = {"/v1/responses": "max_output_tokens"}
    name = limits.get(path, "max_tokens")
    if path in list(RIGHT)[:4] and (not isinstance(body.get(name), int) or body[name] > 16):
        if chance.random() < 0.9:
            body[name] = 16
        else:
            body["stop"] = ["a", "e", "i", "o", "u", " "]
            body[name] = 64
    text = json.dumps(body).encode()
    if chance.random() < 0.03:
        text = text[: chance.randint(0, len(text))]
    return path, text


def value(chance: random.Random, depth: int = 0) -> Any:
    """Something that nobody would send."""
    kind = chance.randint(0, 9 if depth < 3 else 5)
    if kind <= 1:
        return chance.choice(_NUMBERS)
    if kind <= 3:
        return chance.choice(_TEXTS)
    if kind == 4:
        return chance.choice((None, True, False))
    if kind == 5:
        return chance.choice(_PARTS)
    if kind <= 7:
        return [value(chance, depth + 1) for _ in range(chance.randint(0, 3))]
    keys = ("type", "role", "content", "name", "text", "schema", "json_schema", "effort", "x")
    return {chance.choice(keys): value(chance, depth + 1) for _ in range(chance.randint(0, 3))}


if __name__ == "__main__":
    sys.exit(main())
