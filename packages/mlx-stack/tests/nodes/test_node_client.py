"""A node as a command asks it: what it says may be anything."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mlx_stack.nodes.client import NodeUnreachableError, ask
from mlx_stack.nodes.file import Node


class _Nonsense(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"name": "\xff\xfe"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def nonsense() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Nonsense) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_an_answer_that_is_no_text_is_said_in_words(nonsense: str) -> None:
    with pytest.raises(NodeUnreachableError, match="not as mlx-stack does"):
        ask(Node(name="studio", url=nonsense, key="sk-1"))


@pytest.mark.parametrize(("ca", "setting"), [(None, "gateway-host"), ("AAAA", "node-host")])
def test_the_hint_names_the_setting_that_lets_this_mac_in(ca: str | None, setting: str) -> None:
    with pytest.raises(NodeUnreachableError) as caught:
        ask(Node(name="studio", url="http://127.0.0.1:1", key="sk-1", ca=ca))

    assert f"`{setting}`" in (caught.value.hint or "")
