"""The HTTP server: two origins, as the Hub and its content network are, and a log of requests."""

import contextlib
import hashlib
import json
import os
import re
import socket
import struct
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self, override
from urllib.parse import parse_qs, quote, unquote, urlsplit

import msgspec

from stack_testkit.hub.faults import Fault, Faults, Settings
from stack_testkit.hub.repository import Repository
from stack_testkit.hub.xet import XetFile, store

_API = re.compile(
    r"^/api/models/(?P<repo>[^/]+/[^/]+)"
    r"(?:/(?P<what>revision|tree|xet-read-token)/(?P<rev>.+))?$"
)
_RESOLVE = re.compile(r"^/(?P<repo>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)$")
_CDN = re.compile(r"^/lfs/(?P<repo>[^/]+/[^/]+)/(?P<path>.+)$")
_RECONSTRUCTION = re.compile(r"^/v2/reconstructions/(?P<digest>[0-9a-f]{64})$")
_XORB = re.compile(r"^/xorbs/(?P<name>[0-9a-f]{64})$")
_RANGE = re.compile(r"^bytes=(\d+)-(\d*)$")
_BEFORE = frozenset({"status", "expired", "wrong-size"})
_DURING = frozenset({"cut", "stall", "slow", "wrong-hash"})
_BLOCK_BYTES = 1 << 18
_SLICE_S = 0.02
_TCP_INFO_BYTES = 192
_BYTES_ACKED_OFFSET = 120  # `tcpi_bytes_acked` in <linux/tcp.h>

CDN_HOST = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
"""Another host where loopback has one; elsewhere another port makes it another origin."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came in.

    Attributes:
        method: `GET`, `HEAD`, …
        path: With the query.
        range: The `Range` header, or None.
        authorization: The `Authorization` header, or None.
        origin: `hub` or `cdn`.
    """

    method: str
    path: str
    range: str | None
    authorization: str | None
    origin: str


class HubServer:
    """A hub that serves the repositories under a folder until it is closed.

    Attributes:
        url: Its address, for `HF_ENDPOINT`.
        requests: What was asked of it so far.
        sent_bytes: Bodies of files, as handed to the sockets.
        acknowledged_bytes: What of all answers reached the client's machine, over connections
            that have ended (Linux; 0 elsewhere).
    """

    def __init__(self, root: Path, settings: Settings | None = None, *, port: int = 0) -> None:
        self.root = root
        self.requests: list[Request] = []
        self.sent_bytes = 0
        self.acknowledged_bytes = 0
        self.configure(settings or Settings())
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._xorbs = tempfile.TemporaryDirectory(prefix="hub-xorbs-")
        self._xet_files: dict[str, XetFile] = {}
        self.closing = threading.Event()
        self._hub = _Listener(("127.0.0.1", port), self, "hub")
        self._cdn = _Listener((CDN_HOST, 0), self, "cdn")
        self.url = f"http://127.0.0.1:{self._hub.server_port}"
        self.cdn_url = f"http://{CDN_HOST}:{self._cdn.server_port}"
        self._threads = [
            threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
            for listener in (self._hub, self._cdn)
        ]
        for thread in self._threads:
            thread.start()

    def variables(self, hf_home: Path) -> dict[str, str]:
        """The environment of a program for which it is the Hub, and which has no token."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(hf_home),
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": "",
            "NO_PROXY": "*",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def configure(self, settings: Settings) -> None:
        """Behave by `settings` from now on, the counts of faults at zero."""
        self.settings, self.faults = settings, Faults(settings.faults)

    def close(self) -> None:
        """Stop listening and break every open connection."""
        self.closing.set()
        for listener in (self._hub, self._cdn):
            listener.shutdown()
            listener.server_close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._xorbs.cleanup()

    def repository(self, repo: str) -> Repository | None:
        """The repository of that name, or None."""
        folder = self.root / repo
        return Repository(folder) if folder.is_dir() else None

    def xet_file(self, repository: Repository, path: str) -> XetFile:
        """A file of a repository as its Xet storage has it."""
        digest = hashlib.sha256(f"xet {repository.sha256(path)}".encode()).hexdigest()
        with self._lock:
            if digest not in self._xet_files:
                file = store(repository.folder / path, digest, Path(self._xorbs.name))
                self._xet_files[digest] = file
            return self._xet_files[digest]

    def reconstruction(self, digest: str, start: int, end: int) -> dict[str, object] | None:
        """How `[start, end)` of a stored file is put together; None where there is nothing."""
        with self._lock:
            file = self._xet_files.get(digest)
        if file is None or start >= file.size_bytes:
            return None
        return file.reconstruction(f"{self.cdn_url}/xorbs", start, end)

    def xorb(self, name: str) -> Path | None:
        """The file of a xorb, or None."""
        path = Path(self._xorbs.name, name)
        return path if path.is_file() else None

    def note(self, request: Request) -> None:
        """Write a request into the log."""
        with self._lock:
            self.requests.append(request)

    def count(self, sent_bytes: int) -> None:
        """Count bytes of files."""
        with self._lock:
            self.sent_bytes += sent_bytes

    def opened(self, connection: socket.socket) -> None:
        """Remember a connection, to break it when the hub closes."""
        with self._lock:
            self._open.add(connection)

    def closed(self, connection: socket.socket, acknowledged: int) -> None:
        """Forget a connection, and count what of its answers reached the client's machine."""
        with self._lock:
            self._open.discard(connection)
            self.acknowledged_bytes += acknowledged


def acknowledged_bytes(connection: socket.socket) -> int:
    """How many bytes of a connection its other end has acknowledged, by Linux's TCP_INFO."""
    if sys.platform != "linux":
        return 0
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    (count,) = struct.unpack_from("Q", info, _BYTES_ACKED_OFFSET)
    return count


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], hub: HubServer, origin: str) -> None:
        super().__init__(address, _Handler)
        self.hub, self.origin = hub, origin

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are what this is for."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # pyright: ignore[reportArgumentType]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener  # pyright: ignore[reportIncompatibleVariableOverride]

    @override
    def setup(self) -> None:
        super().setup()
        self.hub = self.server.hub
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.hub.opened(self.connection)

    @override
    def finish(self) -> None:
        self.hub.closed(self.connection, acknowledged_bytes(self.connection))
        with contextlib.suppress(OSError):
            super().finish()

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the log is `HubServer.requests`."""

    @override
    def end_headers(self) -> None:
        if not self.hub.settings.keeps_alive:
            self.send_header("Connection", "close")  # and the base closes it
        super().end_headers()

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        """`PUT /_settings` changes how the hub behaves."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.configure(msgspec.json.decode(body, type=Settings))
        self._json({})

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        if path == "/_stats":
            requests = [msgspec.to_builtins(request) for request in self.hub.requests]
            self._json({"sent_bytes": self.hub.sent_bytes, "requests": requests})
            return
        headers = self.headers
        self.hub.note(
            Request(
                self.command, self.path, headers["Range"], headers["Authorization"],
                self.server.origin,
            )
        )  # fmt: skip
        if self.hub.settings.latency_s:
            self.hub.closing.wait(self.hub.settings.latency_s)
        if self.server.origin == "cdn":
            self._from_cdn(path)
        elif path == "/api/models":
            self._list(parse_qs(parts.query))
        elif found := _API.match(path):
            self._api(found["repo"], found["what"], parts.query)
        elif found := _RESOLVE.match(path):
            self._resolve(found["repo"], found["path"])
        else:
            self._error(404, "NotFound")

    def _list(self, query: dict[str, list[str]]) -> None:
        """Every repository whose name contains `search`, in name order, at most `limit`."""
        fault = self.hub.faults.next(self.path, frozenset({"status"}))
        if fault is not None:
            self._error(fault.status, "", fault)
            return
        wanted = query.get("search", [""])[0].lower()
        folders = [folder for folder in sorted(self.hub.root.glob("*/*")) if folder.is_dir()]
        found = [
            {
                "id": f"{folder.parent.name}/{folder.name}",
                "downloads": 100 * (len(folders) - number), "likes": number, "tags": ["mlx"],
                "gated": self.hub.settings.gate_of(str(folder)),
                "lastModified": "2026-10-01T00:00:00.000Z",
                "safetensors": {"parameters": Repository(folder).parameters()},
            }
            for number, folder in enumerate(folders)
            if wanted in f"{folder.parent.name}/{folder.name}".lower()
        ]  # fmt: skip
        self._json(found[: int(query.get("limit", ["1000"])[0])])

    def _api(self, repo: str, what: str | None, query: str) -> None:
        fault = self.hub.faults.next(self.path, frozenset({"status"}))
        if fault is not None:
            self._error(fault.status, "", fault)
            return
        repository = self.hub.repository(repo)
        if repository is None:
            self._error(404 if self._has_token() else 401, "RepoNotFound")
        elif what == "tree":
            if self._may_read():
                self._tree(repository, query)
        elif what == "xet-read-token":
            if self._may_read():
                self._xet_token()
        else:
            siblings = [{"rfilename": path} for path in repository.paths()]
            self._json(
                {
                    "id": repo, "modelId": repo, "sha": repository.commit, "private": False,
                    "gated": self.hub.settings.gate_of(self.path), "disabled": False, "tags": [],
                    "downloads": 0, "likes": 0, "siblings": siblings,
                }
            )  # fmt: skip

    def _tree(self, repository: Repository, query: str) -> None:
        settings = self.hub.settings
        start = int(parse_qs(query).get("cursor", ["0"])[0])
        entries = repository.tree(settings.lfs_from_bytes)
        for entry in entries if settings.offers_xet else ():
            if "lfs" in entry:
                entry["xetHash"] = self.hub.xet_file(repository, str(entry["path"])).digest
        end = start + settings.page_size
        headers: dict[str, str] = {}
        if end < len(entries):
            page = f"{self.hub.url}{urlsplit(self.path).path}?recursive=true&cursor={end}"
            headers["Link"] = f'<{page}>; rel="next"'
        self._json(entries[start:end], headers)

    def _resolve(self, repo: str, path: str) -> None:
        repository = self.hub.repository(repo)
        if repository is None or not (repository.folder / path).is_file():
            self._error(404, "RepoNotFound" if repository is None else "EntryNotFound")
            return
        if not self._may_read():
            return
        size = repository.size(path)
        common = {"X-Repo-Commit": repository.commit}
        if size < self.hub.settings.lfs_from_bytes:
            self._file(repository, path, {**common, "ETag": f'"{repository.git_sha1(path)}"'})
            return
        fault = self.hub.faults.next(path, frozenset({"status"}))
        if fault is not None:
            self._error(fault.status, "", fault)
            return
        name = path if self.hub.settings.quotes_badly else quote(path)
        where = f"{self.hub.cdn_url}/lfs/{repo}/{name}?signature=0123456789abcdef"
        linked = {"X-Linked-Size": str(size), "X-Linked-Etag": f'"{repository.sha256(path)}"'}
        if self.hub.settings.offers_xet:
            token_url = f"{self.hub.url}/api/models/{repo}/xet-read-token/{repository.commit}"
            linked["X-Xet-Hash"] = self.hub.xet_file(repository, path).digest
            linked["Link"] = f'<{token_url}>; rel="xet-auth"'
        headers = {**common, **linked, "Location": where.encode().decode("latin-1")}
        if self.hub.faults.next(path, frozenset({"endless"})) is None:
            self._empty(302, headers)
        else:
            self._empty(302, headers, length=100)
            self._wait_for_the_client()

    def _xet_token(self) -> None:
        """Where the storage is and what opens it."""
        expires = int(time.time()) + 3600
        headers = {
            "X-Xet-Cas-Url": self.hub.cdn_url,
            "X-Xet-Access-Token": "xet_right",
            "X-Xet-Token-Expiration": str(expires),
        }
        self._json(
            {"casUrl": self.hub.cdn_url, "accessToken": "xet_right", "exp": expires}, headers
        )

    def _reconstruction(self, digest: str) -> None:
        asked = _RANGE.match(self.headers["Range"] or "")
        start = int(asked[1]) if asked else 0
        end = int(asked[2]) + 1 if asked and asked[2] else sys.maxsize
        answer = self.hub.reconstruction(digest, start, end)
        if self.headers["Authorization"] != "Bearer xet_right":
            self._error(401, "")
        elif answer is None:
            self._error(416, "")
        else:
            self._json(answer)

    def _xorb(self, file: Path) -> None:
        size = file.stat().st_size
        asked = _RANGE.match(self.headers["Range"] or "")
        start, end = (int(asked[1]), min(int(asked[2]) + 1, size)) if asked else (0, size)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(end - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        self._body(file, file.name, start, end)

    def _from_cdn(self, path: str) -> None:
        if found := _RECONSTRUCTION.match(path):
            self._reconstruction(found["digest"])
            return
        if (found := _XORB.match(path)) and (xorb := self.hub.xorb(found["name"])):
            self._xorb(xorb)
            return
        found = _CDN.match(path)
        repository = self.hub.repository(found["repo"]) if found else None
        if found is None or repository is None:
            self._error(404, "")
            return
        etag = f'"{repository.sha256(found["path"])}"'
        self._file(repository, found["path"], {"ETag": etag})

    def _file(self, repository: Repository, path: str, headers: dict[str, str]) -> None:
        size = announced = repository.size(path)
        fault = self.hub.faults.next(path, _BEFORE)
        if fault is not None and fault.kind != "wrong-size":
            self._error(403 if fault.kind == "expired" else fault.status, "", fault)
            return
        if fault is not None:
            announced += 1
        start, end, status = 0, size, 200
        asked = _RANGE.match(self.headers["Range"] or "")
        if asked and not self.hub.settings.ignores_ranges:
            start, end = int(asked[1]), min(int(asked[2]) + 1 if asked[2] else size, size)
            if start >= size:
                self._empty(416, {"Content-Range": f"bytes */{size}"})
                return
            status = 206
            headers = {**headers, "Content-Range": f"bytes {start}-{end - 1}/{announced}"}
        length = end - start if status == 206 else announced
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "GET":
            self._body(repository.folder / path, path, start, end)
            if length != end - start:
                self.close_connection = True

    def _body(self, file: Path, path: str, start: int, end: int) -> None:
        self.wfile.flush()
        fault = self.hub.faults.next(path, _DURING)
        kind = fault.kind if fault is not None else ""
        rate = self.hub.settings.rate_bytes_s
        if fault is not None and kind == "slow":
            rate = fault.rate_bytes_s
        stop = end
        if fault is not None and kind in {"cut", "stall"}:
            stop = min(start + fault.after_bytes, end)
        with file.open("rb") as content:
            if kind == "wrong-hash":
                self._send_damaged(content.fileno(), start, end)
            else:
                self._send(content.fileno(), start, stop, rate)
        if kind == "stall" and stop < end:
            self._wait_for_the_client()
        if kind in {"cut", "stall"}:
            self.close_connection = True

    def _send(self, file: int, start: int, end: int, rate: int | None) -> None:
        """Send a range, evenly at `rate` bytes a second where there is one."""
        began = time.monotonic()
        position = start
        while position < end and not self.hub.closing.is_set():
            most = _BLOCK_BYTES if rate is None else max(int(rate * _SLICE_S), 1)
            sent = os.sendfile(self.connection.fileno(), file, position, min(most, end - position))
            position += sent
            self.hub.count(sent)
            if rate is not None:
                early_s = (position - start) / rate - (time.monotonic() - began)
                if early_s > 0:
                    self.hub.closing.wait(early_s)

    def _send_damaged(self, file: int, start: int, end: int) -> None:
        """Send a range with a bit of its first byte turned."""
        position = start
        while position < end:
            block = os.pread(file, min(_BLOCK_BYTES, end - position), position)
            if position == start:
                block = bytes([block[0] ^ 1]) + block[1:]
            self.connection.sendall(block)
            position += len(block)
            self.hub.count(len(block))

    def _wait_for_the_client(self) -> None:
        """Be silent until the client has gone or the hub closes."""
        self.connection.settimeout(0.05)
        while not self.hub.closing.is_set():
            try:
                if not self.connection.recv(1):
                    return
            except TimeoutError:
                continue

    def _has_token(self) -> bool:
        return self.headers["Authorization"] is not None

    def _may_read(self) -> bool:
        """Whether the client may read the repository; it has its answer otherwise."""
        settings = self.hub.settings
        is_open = settings.gate_of(self.path) is False
        if is_open or self.headers["Authorization"] == f"Bearer {settings.token}":
            return True
        self._error(403 if self._has_token() else 401, "GatedRepo")
        return False

    def _json(self, value: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _empty(self, status: int, headers: dict[str, str], length: int = 0) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _error(self, status: int, code: str, fault: Fault | None = None) -> None:
        headers = {"X-Error-Code": code} if code else {}
        if fault is not None and fault.retry_after is not None:
            headers["Retry-After"] = fault.retry_after
        if fault is not None and fault.message is not None:
            headers["X-Error-Message"] = fault.message
        self._empty(status, headers)
