"""A code typed here, and the Mac that shows it: what is left there when the pairing fails late."""

import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from mlx_stack.gateway.keys import list_keys
from mlx_stack.home import Home
from mlx_stack.nodes.client import NodeUnreachableError
from mlx_stack.nodes.file import Node
from mlx_stack.nodes.identity import ensure_identity
from mlx_stack.nodes.mount import HELLO_PATH
from mlx_stack.nodes.pair import add_by_code
from mlx_stack.nodes.pairing_server import Hello, PairingProof, PairingServer, show_code


@pytest.fixture
def there(tmp_path: Path) -> Home:
    return Home(tmp_path / "there")


@pytest.fixture
def url(there: Home) -> Iterator[str]:
    """A Mac that can be paired, and then says nothing of itself."""
    identity, _ = ensure_identity(there, datetime.now(UTC))
    pairing = PairingServer(there)

    class Gateway(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == HELLO_PATH:
                self._answer(200, pairing.welcome(msgspec.json.decode(said, type=Hello)))
            else:
                self._answer(200, pairing.pair(msgspec.json.decode(said, type=PairingProof)))

        def do_GET(self) -> None:
            self._answer(503, {})

        def _answer(self, status: int, said: object) -> None:
            body = msgspec.json.encode(said)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_key_that_a_failed_pairing_leaves_is_named(home: Home, there: Home, url: str) -> None:
    code = show_code(there, time.time()).code

    with pytest.raises(NodeUnreachableError) as caught:
        add_by_code(home, Node(name="studio", url=url, key="-"), code)

    (left,) = [each.name for each in list_keys(there).clients]
    assert repr(left) in (caught.value.hint or "")
    assert "keys revoke" in (caught.value.hint or "")
