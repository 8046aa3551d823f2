"""A stand-in for LiteLLM: reads the generated configuration, routes by model name and falls back.

It takes LiteLLM's command line (flags that it doesn't know are ignored), asks for the key in
`LITELLM_MASTER_KEY` as LiteLLM does, reads its configuration again on SIGHUP and says which one is
in force as the hooks in LiteLLM do, and knows `--ready-after S`, `--exit-after S` and
`--exit-code N` of its own, as the fake engine.
"""

import argparse
import hashlib
import http.client
import json
import os
import signal
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any, override

import yaml


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="fake-gateway", allow_abbrev=False)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=4000)
    parser.add_argument("--ready-after", type=float, default=0.0)
    parser.add_argument("--exit-after", type=float)
    parser.add_argument("--exit-code", type=int, default=3)
    options, _ = parser.parse_known_args(arguments)
    if not os.environ.get("LITELLM_MASTER_KEY"):
        print("LITELLM_MASTER_KEY is not set; refusing to start", file=sys.stderr, flush=True)
        return 1
    if options.exit_after is not None:
        timer = threading.Timer(options.exit_after, os._exit, args=(options.exit_code,))
        timer.daemon = True
        timer.start()
    time.sleep(options.ready_after)
    server = _Server((options.host, options.port), options.config)

    def reload(_number: int, _frame: FrameType | None) -> None:
        server.load()

    signal.signal(signal.SIGHUP, reload)
    print(f"fake gateway on {options.host}:{options.port}", flush=True)
    server.serve_forever(poll_interval=0.05)
    return 0


class _Server(ThreadingHTTPServer):
    """The listening socket, with the routes of the configuration."""

    daemon_threads = True
    request_queue_size = 128  # clients come in bursts

    def __init__(self, address: tuple[str, int], path: Path) -> None:
        self._path = path
        self.deployments: dict[str, dict[str, str]] = {}
        self.fallbacks: dict[str, list[str]] = {}
        self.digest = ""
        self.load()
        super().__init__(address, _Handler)

    def load(self) -> None:
        """Take the configuration over as it is now."""
        content = self._path.read_bytes()
        config = yaml.safe_load(content)
        deployments: dict[str, dict[str, str]] = {}
        for model in config["model_list"]:
            deployments.setdefault(model["model_name"], model["litellm_params"])
        self.deployments = deployments
        rows = config.get("router_settings", {}).get("fallbacks", [])
        self.fallbacks = {name: chain for row in rows for name, chain in row.items()}
        self.digest = hashlib.sha256(content).hexdigest()

    def route(self, name: str) -> Iterator[dict[str, str]]:
        """The deployments to try for the model `name`, in order."""
        for candidate in (name, *self.fallbacks.get(name, ())):
            if candidate in self.deployments:
                yield self.deployments[candidate]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride] - our own server class

    def do_GET(self) -> None:
        """Answer `/health/liveliness` to anyone, `/v1/models` to who has the key."""
        if self.path == "/health/liveliness":
            self._json(200, "I'm alive!", {"x-mlx-stack-config": self.server.digest})
        elif not self._is_authorized():
            self._json(401, {"error": {"message": "wrong key", "type": "auth_error"}})
        elif self.path == "/v1/models":
            data = [{"id": name, "object": "model"} for name in self.server.deployments]
            self._json(200, {"object": "list", "data": data})
        else:
            self._json(404, {"error": {"message": "Not Found", "type": "not_found"}})

    def do_POST(self) -> None:
        """Hand a chat completion to the first deployment of the chain that answers."""
        request = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
        if not self._is_authorized():
            self._json(401, {"error": {"message": "wrong key", "type": "auth_error"}})
            return
        for deployment in self.server.route(request["model"]):
            answer = _ask(deployment, request)
            if answer is not None:
                self.send_response(200)
                self.send_header("Content-Type", answer[0])
                self.send_header("Content-Length", str(len(answer[1])))
                self.end_headers()
                self.wfile.write(answer[1])
                return
        self._json(500, {"error": {"message": "no deployment answers", "type": "fake"}})

    @override
    def log_message(self, format: str, *args: object) -> None:
        print(f"{self.address_string()} {format % args}", flush=True)

    def _is_authorized(self) -> bool:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return given == os.environ["LITELLM_MASTER_KEY"]

    def _json(
        self, status: int, document: object, headers: Mapping[str, str] | None = None
    ) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _ask(deployment: dict[str, str], request: dict[str, Any]) -> tuple[str, bytes] | None:
    """The answer of one deployment, or None where it gives none."""
    address = urllib.parse.urlsplit(deployment["api_base"])
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    body = json.dumps({**request, "model": deployment["model"].partition("/")[2]})
    try:
        connection.request("POST", f"{address.path}/chat/completions", body)
        response = connection.getresponse()
        content = response.read()
    except OSError:
        return None
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        return None
    return response.getheader("Content-Type", "application/json"), content


if __name__ == "__main__":
    sys.exit(main())
