"""Byte ranges over real sockets, from a server that answers as each test says."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import override

import pytest

from mlx_catalog.hub import HubCommit
from mlx_stack.models.disk.manifest import FileRecord
from mlx_stack.models.download.hub_files import HubFiles, RangesUnsupported
from mlx_stack.models.errors import (
    GatedModelError,
    HubRefusedError,
    PullError,
    TransientError,
    WrongContentError,
)
from mlx_stack.models.hub.environment import HubEnvironment

CONTENT = bytes(range(256)) * 4
FILE = FileRecord(
    path="sub folder/model.safetensors",
    size_bytes=len(CONTENT),
    algorithm="sha256",
    digest=hashlib.sha256(CONTENT).hexdigest(),
)
PATH = "/org/a/resolve/c/sub%20folder/model.safetensors"

type Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Server:
    """One origin.

    Attributes:
        url: Its address.
        answer: What it answers to a path and the bytes that are asked for.
        tokens: The `Authorization` of every request, by path.
    """

    url: str
    answer: Callable[[str, str | None], Answer]
    tokens: list[tuple[str, str | None]] = field(default_factory=list)


def in_part(_path: str, wanted: str | None) -> Answer:
    if wanted is None:
        return 200, {}, CONTENT
    start, end = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
    part = CONTENT[start : end + 1]
    return 206, {"Content-Range": f"bytes {start}-{end}/{len(CONTENT)}"}, part


def always(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Server:
    return Server("", lambda _path, _wanted: (status, headers or {}, body))


@pytest.fixture
def serve() -> Iterator[Callable[[Server], Server]]:
    """Starts servers, and stops them in the end."""
    running: list[ThreadingHTTPServer] = []

    def start(server: Server) -> Server:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.tokens.append((self.path, self.headers["Authorization"]))
                status, headers, body = server.answer(self.path, self.headers["Range"])
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            @override
            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()
        running.append(listener)
        server.url = f"http://127.0.0.1:{listener.server_port}"
        return server

    yield start
    for listener in running:
        listener.shutdown()
        listener.server_close()


def files_of(server: Server, *, is_gated: bool = False) -> HubFiles:
    environment = HubEnvironment(endpoint=server.url, token="hf_secret", timeout_s=2.0)
    return HubFiles(environment, HubCommit("org/a", "c", is_gated))


def fetched(files: HubFiles, start: int, end: int) -> bytes:
    response = files.open(FILE, start, end)
    try:
        return response.read()
    finally:
        response.close()


type Serve = Callable[[Server], Server]


def test_a_range_is_what_was_asked_for(serve: Serve):
    with files_of(serve(Server("", in_part))) as files:
        assert fetched(files, 10, 500) == CONTENT[10:500]
        assert fetched(files, 0, len(CONTENT)) == CONTENT
        assert fetched(files, 0, FILE.size_bytes) == CONTENT


def test_the_token_stays_with_the_hub_and_the_other_address_is_remembered(serve: Serve):
    cdn = serve(Server("", in_part))
    hub = serve(
        always(302, {"Location": f"{cdn.url}/blob ü?sign=x%2By".encode().decode("latin-1")})
    )
    with files_of(hub) as files:
        assert fetched(files, 0, 9) + fetched(files, 9, 20) == CONTENT[:20]
    assert hub.tokens == [(PATH, "Bearer hf_secret")]
    assert cdn.tokens == [("/blob%20%C3%BC?sign=x%2By", None)] * 2


def test_an_address_that_has_expired_is_asked_for_again(serve: Serve):
    cdn = serve(Server("", in_part))
    hub = serve(always(302, {"Location": f"{cdn.url}/blob"}))
    with files_of(hub) as files:
        fetched(files, 0, 9)
        cdn.answer = always(403).answer
        with pytest.raises(TransientError, match="HTTP 403"):
            files.open(FILE, 0, 9)
        cdn.answer = in_part
        assert fetched(files, 0, 9) == CONTENT[:9]
    assert len(hub.tokens) == 2


def test_a_server_that_sends_whole_files_only_is_known_by_its_answer(serve: Serve):
    with files_of(serve(always(200, body=CONTENT))) as files:
        with pytest.raises(RangesUnsupported):
            files.open(FILE, 0, 9)
        assert fetched(files, 0, len(CONTENT)) == CONTENT


@pytest.mark.parametrize("said", [None, "bytes 1-9/1024", "bytes */1024", "9"])
def test_another_range_than_the_one_asked_for_is_not_taken(serve: Serve, said: str | None):
    headers = {} if said is None else {"Content-Range": said}
    with (
        files_of(serve(always(206, headers, CONTENT[1:10]))) as files,
        pytest.raises(TransientError, match="a different range"),
    ):
        files.open(FILE, 0, 9)


@pytest.mark.parametrize(
    ("status", "headers"), [(206, {"Content-Range": "bytes 0-8/1025"}), (416, {})]
)
def test_another_size_than_the_hub_gave_is_found_before_the_body_comes(
    serve: Serve, status: int, headers: dict[str, str]
):
    with (
        files_of(serve(always(status, headers, b"x" * 9))) as files,
        pytest.raises(WrongContentError),
    ):
        files.open(FILE, 0, 9)


@pytest.mark.parametrize(
    ("location", "match"),
    [
        ("file:///etc/passwd", "invalid address"),
        (PATH, "form a loop"),
        ("/elsewhere", "form a loop"),
    ],
)
def test_redirects_lead_to_a_web_address_in_the_end(serve: Serve, location: str, match: str):
    with (
        files_of(serve(always(307, {"Location": location}))) as files,
        pytest.raises(PullError, match=match),
    ):
        files.open(FILE, 0, 9)


@pytest.mark.parametrize(
    ("status", "headers", "is_gated", "expected"),
    [
        (401, {"X-Error-Code": "GatedRepo"}, False, GatedModelError),
        (403, {}, True, GatedModelError),
        (403, {"X-Error-Message": "not from here"}, False, HubRefusedError),
        (404, {}, False, HubRefusedError),
        (408, {}, False, TransientError),
        (500, {}, False, TransientError),
    ],
)
def test_a_refusal_of_the_hub_says_what_it_means(
    serve: Serve,
    status: int,
    headers: dict[str, str],
    is_gated: bool,
    expected: type[Exception],
):
    with files_of(serve(always(status, headers)), is_gated=is_gated) as files:
        with pytest.raises(expected) as refused:
            files.open(FILE, 0, 9)
        assert type(refused.value) is expected
        assert headers.get("X-Error-Message", "") in str(refused.value)


def test_a_throttling_server_says_for_how_long(serve: Serve):
    with files_of(serve(always(429, {"Retry-After": "7"}))) as files:
        with pytest.raises(TransientError) as throttled:
            files.open(FILE, 0, 9)
        assert (throttled.value.retry_after_s, throttled.value.is_throttled) == (7.0, True)


def test_a_server_that_is_not_there_is_told_by_its_name():
    with (
        files_of(Server("http://127.0.0.1:9", in_part)) as files,
        pytest.raises(TransientError, match=r"no connection to 127\.0\.0\.1"),
    ):
        files.open(FILE, 0, 9)
