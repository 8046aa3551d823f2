"""What the stand-ins for servers share: keep-alive HTTP, JSON answers, a log on stdout."""

import json
from http.server import BaseHTTPRequestHandler
from typing import Any, override


class JsonHandler(BaseHTTPRequestHandler):
    """A connection that is asked in JSON and answers in JSON."""

    protocol_version = "HTTP/1.1"

    def get(self) -> None:
        """Answer a GET of `self.path`."""
        raise NotImplementedError

    def post(self, request: Any) -> None:
        """Answer a POST of the document `request` to `self.path`."""
        raise NotImplementedError

    def do_GET(self) -> None:
        """What the server calls."""
        self.get()

    def do_POST(self) -> None:
        """What the server calls."""
        self.post(json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0")))))

    def send_json(self, status: int, document: object) -> None:
        """Answer with `document`."""
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def start_events(self) -> None:
        """Answer with events, which end with the connection; the caller writes them."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    @override
    def log_message(self, format: str, *args: object) -> None:
        print(f"{self.address_string()} {format % args}", flush=True)
