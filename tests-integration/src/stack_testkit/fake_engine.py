"""A stand-in for vllm-mlx: a real process with a real port that answers like an engine.

It takes the command line of `vllm-mlx serve` (flags that it doesn't know are ignored) and these of
its own, which say how it misbehaves:

    --ready-after S    listen only after S seconds, as an engine that loads a large model
    --exit-after S     exit by itself after S seconds
    --exit-code N      … with this code (3)
    --ignore-sigterm   only SIGKILL ends it
    --spawn-child      start a child of its own, which a careless stop would leave behind
    --token-delay S    wait so long before each token
    --hang             accept connections and never answer
    --status N         answer everything with this HTTP status
    --chat-status N    answer requests for a completion with this HTTP status
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from http.server import ThreadingHTTPServer
from typing import Any, override

from stack_testkit.json_handler import JsonHandler

_LONG_S = 3600


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop."""
    options = _parse(arguments)
    print(f"fake engine {os.getpid()}: loading {options.model}", flush=True)
    if options.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.spawn_child:
        child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({_LONG_S})"])
        print(f"child {child.pid}", flush=True)
    if options.exit_after is not None:
        threading.Thread(target=_exit_later, args=(options,), daemon=True).start()
    time.sleep(options.ready_after)
    server = _Server((options.host, options.port), options)
    print(f"listening on {options.host}:{options.port}", flush=True)
    server.serve_forever(poll_interval=0.05)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fake-engine", allow_abbrev=False)
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--served-model-name", default="fake")
    parser.add_argument("--ready-after", type=float, default=0.0)
    parser.add_argument("--exit-after", type=float)
    parser.add_argument("--exit-code", type=int, default=3)
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--spawn-child", action="store_true")
    parser.add_argument("--token-delay", type=float, default=0.0)
    parser.add_argument("--hang", action="store_true")
    parser.add_argument("--status", type=int, default=200)
    parser.add_argument("--chat-status", type=int, default=200)
    options, _ = parser.parse_known_args(arguments)
    return options


def _exit_later(options: argparse.Namespace) -> None:
    time.sleep(options.exit_after)
    print(f"fake engine: exiting with {options.exit_code}", file=sys.stderr, flush=True)
    os._exit(options.exit_code)


class _Server(ThreadingHTTPServer):
    """The listening socket, with the options that its handlers obey."""

    daemon_threads = True
    request_queue_size = 128  # clients come in bursts

    def __init__(self, address: tuple[str, int], options: argparse.Namespace) -> None:
        self.options = options
        super().__init__(address, _Handler)


class _Handler(JsonHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride] - our own server class

    @override
    def get(self) -> None:
        """Answer `/health` and `/v1/models`."""
        if self._misbehaves():
            return
        name = self.server.options.served_model_name
        match self.path:
            case "/health":
                self.send_json(200, {"status": "healthy"})
            case "/v1/models":
                self.send_json(200, {"object": "list", "data": [{"id": name, "object": "model"}]})
            case _:
                self.send_json(404, {"error": {"message": "Not Found", "type": "not_found"}})

    @override
    def post(self, request: Any) -> None:
        """Answer `/v1/chat/completions` by repeating the last message."""
        if self._misbehaves():
            return
        if self.path != "/v1/chat/completions":
            self.send_json(404, {"error": {"message": "Not Found", "type": "not_found"}})
            return
        options = self.server.options
        if options.chat_status != 200:
            self.send_json(options.chat_status, {"error": {"message": "as told", "type": "fake"}})
            return
        if request.get("model") != options.served_model_name:
            message = f"The model `{request.get('model')}` does not exist."
            self.send_json(404, {"error": {"message": message, "type": "not_found"}})
            return
        prompt = str(request["messages"][-1]["content"]).split()
        tokens = ["You", "said:", *prompt][: request.get("max_tokens") or None]
        usage = {
            "prompt_tokens": len(prompt),
            "completion_tokens": len(tokens),
            "total_tokens": len(prompt) + len(tokens),
        }
        if request.get("stream"):
            self._stream(tokens, usage)
        else:
            time.sleep(options.token_delay * len(tokens))
            message = {"role": "assistant", "content": " ".join(tokens)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self.send_json(200, self._completion("chat.completion", [choice], usage))

    def _misbehaves(self) -> bool:
        options = self.server.options
        if options.hang:
            time.sleep(_LONG_S)
        if options.status != 200:
            self.send_json(options.status, {"error": {"message": "as told", "type": "fake"}})
            return True
        return False

    def _completion(
        self, kind: str, choices: Sequence[Mapping[str, object]], usage: dict[str, int] | None
    ) -> dict[str, object]:
        return {
            "id": f"chatcmpl-{os.getpid()}",
            "object": kind,
            "created": int(time.time()),
            "model": self.server.options.served_model_name,
            "choices": choices,
            "usage": usage,
        }

    def _stream(self, tokens: list[str], usage: dict[str, int]) -> None:
        self.start_events()
        kind = "chat.completion.chunk"
        deltas: list[dict[str, str]] = [{"role": "assistant"}]
        deltas += [{"content": token if i == 0 else f" {token}"} for i, token in enumerate(tokens)]
        for delta in deltas:
            if "content" in delta:
                time.sleep(self.server.options.token_delay)
            self._event(self._completion(kind, [{"index": 0, "delta": delta}], None))
        last: dict[str, object] = {"index": 0, "delta": {}, "finish_reason": "stop"}
        self._event(self._completion(kind, [last], usage))
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, document: dict[str, object]) -> None:
        self.wfile.write(f"data: {json.dumps(document)}\n\n".encode())
        self.wfile.flush()


if __name__ == "__main__":
    sys.exit(main())
