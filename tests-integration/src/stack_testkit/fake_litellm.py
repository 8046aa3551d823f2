"""A stand-in for LiteLLM: it asks for its key, and answers as the cloud.

It takes LiteLLM's command line (flags that it doesn't know are ignored) and knows `--ready-after S`
and `--exit-after S` of its own, as the fake engine.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, override

import yaml

from stack_testkit.json_handler import JsonHandler


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="fake-litellm", allow_abbrev=False)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=4000)
    parser.add_argument("--ready-after", type=float, default=0.0)
    parser.add_argument("--exit-after", type=float)
    options, _ = parser.parse_known_args(arguments)
    if len(os.environ.get("LITELLM_MASTER_KEY", "")) < 16:
        print("LITELLM_MASTER_KEY is weak; refusing to start", file=sys.stderr, flush=True)
        return 1
    yaml.safe_load(options.config.read_text(encoding="utf-8"))
    if options.exit_after is not None:
        timer = threading.Timer(options.exit_after, os._exit, args=(3,))
        timer.daemon = True
        timer.start()
    time.sleep(options.ready_after)
    server = ThreadingHTTPServer((options.host, options.port), _Handler)
    print(f"fake litellm on {options.host}:{options.port}", flush=True)
    server.serve_forever(poll_interval=0.05)
    return 0


class _Handler(JsonHandler):
    @override
    def get(self) -> None:
        """Answer the liveness probe."""
        self.send_json(200, "I'm alive!")

    @override
    def post(self, request: Any) -> None:
        """Answer as the cloud."""
        if self.headers.get("Authorization") != f"Bearer {os.environ['LITELLM_MASTER_KEY']}":
            self.send_json(401, {"error": {"message": "wrong key"}})
            return
        print(f"asked as the cloud: {request['model']}", flush=True)
        message = {"role": "assistant", "content": "The cloud says hello."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5}
        document = {"object": "chat.completion", "model": request["model"], "choices": [choice]}
        if not request.get("stream"):
            self.send_json(200, {**document, "usage": usage})
            return
        self.start_events()
        delta = {"index": 0, "delta": message, "finish_reason": "stop"}
        chunk = {"object": "chat.completion.chunk", "choices": [delta], "usage": usage}
        self.wfile.write(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode())


if __name__ == "__main__":
    sys.exit(main())
