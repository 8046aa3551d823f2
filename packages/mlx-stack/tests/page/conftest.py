"""A gateway with the page in it, on a real socket, over a state folder without services."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from mlx_gateway.access import Hosts
from mlx_gateway.app import Gateway
from mlx_gateway.keys import KeyRing
from mlx_gateway.ledger import Ledger
from mlx_gateway.options import GatewayOptions
from mlx_gateway.server import GatewayServer, server_config
from mlx_gateway.settings import parse_settings
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.page.answer import PATH
from mlx_stack.page.link import make_link
from mlx_stack.page.mount import PageMount
from mlx_stack.page.session import HEADER

KEY = "the-admins-key-of-the-test"
SETTINGS = """
schema_version: 1
host: 127.0.0.1
port: 4000
models: {standard: {upstreams: [{url: "http://127.0.0.1:9", model: a-model}]}}
"""


@dataclass
class Said:
    """What the page's server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@dataclass
class Browser:
    """Asks as the page's own script does, as long as a test says nothing else."""

    port: int
    home: Home
    gateway: Gateway
    cookie: str = ""

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def open(
        self, method: str, path: str, values: object = None, **headers: str | None
    ) -> Iterator[HTTPResponse]:
        """An answer that has begun; a header of None is left out."""
        sent: dict[str, str | None] = {"host": f"127.0.0.1:{self.port}", "cookie": self.cookie}
        if method != "GET":
            sent |= {"origin": self.origin, HEADER.decode(): "1"}
        body = None if values is None else json.dumps(values)
        sent |= {"content-type": "application/json"} if body else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        kept: Mapping[str, str] = {name: value for name, value in sent.items() if value}
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request(method, path, body, kept)
            with connection.getresponse() as answer:
                yield answer

    def ask(self, method: str, path: str, values: object = None, **headers: str | None) -> Said:
        with self.open(method, path, values, **headers) as answer:
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Said(answer.status, names, answer.read())

    def get(self, path: str, **headers: str | None) -> Said:
        return self.ask("GET", f"/ui/api/{path}", **headers)

    def sign_in(self, key: str = KEY) -> "Browser":
        said = self.ask("POST", "/ui/api/session", {"key": key})
        assert said.status == 200
        self.cookie = said.headers["set-cookie"].partition(";")[0]
        return self

    def token(self) -> str:
        """The token of a link that `dashboard` makes now."""
        return make_link(OpenStack(self.home)).url.partition("#token=")[2]


@pytest.fixture
def settings_text() -> str:
    """The gateway's settings; a test may give others."""
    return SETTINGS


@pytest.fixture
def browser(tmp_path: Path, settings_text: str) -> Iterator[Browser]:
    """A browser in front of the page."""
    home = Home(tmp_path / "home")
    home.create()
    keys = KeyRing(KEY, home.client_keys)
    gateway = Gateway(
        parse_settings(settings_text),
        GatewayOptions(
            keys=keys,
            hosts=Hosts(),
            ledger=Ledger(home.ledger),
            mounts={PATH: PageMount(home, KEY, keys, lambda: gateway)},
        ),
    )
    server = GatewayServer(gateway, server_config(gateway))
    with socket.create_server(("127.0.0.1", 0)) as listener, running(server, listener):
        yield Browser(listener.getsockname()[1], home, gateway)


@contextmanager
def running(server: GatewayServer, listener: socket.socket) -> Iterator[None]:
    """The server in a thread of its own."""
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        loop = runner.get_loop()
        thread = threading.Thread(target=runner.run, args=(server.serve([listener]),))
        thread.start()
        yield
        loop.call_soon_threadsafe(server.end)
        thread.join()
