"""A node as a command asks it: what it says may be anything."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mlx_stack.nodes.client import NodeUnreachableError, ask
from mlx_stack.nodes.file import Node


class _Says(BaseHTTPRequestHandler):
    status, body = 200, b""

    def do_GET(self) -> None:
        body = self.body
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


class _Nonsense(_Says):
    body = b'{"name": "\xff\xfe"}'


class _IsNewer(_Says):
    body = b'{"schema_version": 2, "version": "3.1", "called": "studio"}'


class _RefusesTheName(_Says):
    status, body = 403, b'{"error": {"code": "host_not_allowed"}}'


@contextmanager
def serving(handler: type[_Says]) -> Generator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (_Nonsense, "not as mlx-stack does"),
        (_IsNewer, "runs mlx-stack 3.1, whose answer this one"),
        (_RefusesTheName, "doesn't have this name"),
    ],
)
def test_an_answer_that_is_none_is_said_in_words(handler: type[_Says], said: str) -> None:
    with serving(handler) as url, pytest.raises(NodeUnreachableError, match=said):
        ask(Node(name="studio", url=url, key="sk-1"))


@pytest.mark.parametrize(("ca", "setting"), [(None, "gateway-host"), ("AAAA", "node-host")])
def test_the_hint_names_the_setting_that_lets_this_mac_in(ca: str | None, setting: str) -> None:
    with pytest.raises(NodeUnreachableError) as caught:
        ask(Node(name="studio", url="http://127.0.0.1:1", key="sk-1", ca=ca))

    assert f"`{setting}`" in (caught.value.hint or "")
