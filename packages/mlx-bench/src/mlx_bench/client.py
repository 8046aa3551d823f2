"""Streams one request and time-stamps every read; understanding the bytes comes later.

The client is synchronous, one thread a stream: a blocking `recv` wakes its own thread, so a busy
neighbour delays a stamp by one short hold of the interpreter lock, not by a whole turn of an event
loop (decision 0060).
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

import httpx
import msgspec

from mlx_bench.completion import Completion, Read, parse_stream, server_message
from mlx_bench.errors import EndpointError, ParametersError
from mlx_bench.request import (
    JSON_TYPE,
    ChatRequest,
    Dialect,
    PlainRequest,
    build_body,
    next_dialect,
)

_CONNECT_TIMEOUT_S = 10.0
_PAGE_TIMEOUT_S = 3.0
_LONGEST_ANSWER_BYTES = 16_000_000
_END_MARKS = frozenset({"transfer-encoding", "content-length"})
_LAST_EVENT = re.compile(rb"[\r\n]data: *\[DONE\]")
_LAST_EVENT_BYTES = 32
"""At least as many as the last event has: it may come in two reads."""
_clock_ns = time.perf_counter_ns


def parse_base_url(text: str) -> str:
    """The base URL that a user means, without a slash at its end.

    A server named without a path means its `/v1`; the page of chat completions means its base.

    Raises:
        ParametersError: The text is not the HTTP URL of a server.
    """
    wrong = ParametersError(f"{text!r} is not a URL like http://127.0.0.1:8000/v1")
    try:
        parts = urlsplit(text)
        has_server = bool(parts.hostname) and parts.port != 0
    except ValueError as error:  # not a port, or not an IPv6 address
        raise wrong from error
    is_plain = text.isprintable() and " " not in text and not (parts.query or parts.fragment)
    if parts.scheme not in {"http", "https"} or not has_server or not is_plain:
        raise wrong
    path = parts.path.rstrip("/").removesuffix("/chat/completions").rstrip("/")
    return parts._replace(path=path or "/v1").geturl()


@dataclass(frozen=True, slots=True)
class ModelEndpoint:
    """An OpenAI-compatible server and the model asked of it.

    Attributes:
        base_url: Up to and with the version, as `http://127.0.0.1:8000/v1`.
        model: The name that goes into each request.
        api_key: Sent as a bearer token; never shown or saved.
        auth: Signs requests and checks answers, where a token isn't enough.

    Raises:
        ParametersError: The key can't be sent in an HTTP header.
    """

    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    auth: httpx.Auth | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse a key that the transport would refuse, in words that would show it."""
        key = self.api_key or ""
        if not (key.isascii() and key.isprintable()):
            raise ParametersError("The key contains a line break or a character outside ASCII.")

    @property
    def completions_url(self) -> str:
        """Where chat completions are asked."""
        return f"{self.base_url.rstrip('/')}/chat/completions"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer, as stamps and bytes; all stamps are monotonic nanoseconds.

    Attributes:
        connect_ns: How long TCP (and TLS) took; 0 where a connection was reused.
        sent_ns: When the request's last byte was handed to the socket: TTFT starts here.
        failure: Why the exchange broke off, or None.
        server: The `Server` header, empty if there was none.
        has_marked_end: Whether HTTP itself marks the body's end, so that a whole body is known to
            be whole; without it a lost connection looks like an end.
    """

    started_ns: int
    connect_ns: int
    sent_ns: int | None
    status: int | None
    reads: tuple[Read, ...]
    failure: str | None
    server: str = ""
    has_marked_end: bool = False

    def parse(self) -> Completion:
        """What the body said."""
        return parse_stream(self.reads)

    @property
    def body_text(self) -> str:
        """The body as text: a refusal, or whatever came instead of a stream."""
        return b"".join(block for _, block in self.reads).decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class ReadLimit:
    """How much to read of a server that was asked for one token and sends many.

    Attributes:
        reads: So many reads are fine, however long they take: a long prefill is one of them.
        seconds: Further reads are, up to so long after the first.
    """

    reads: int = 20
    seconds: float = 10.0

    def is_reached(self, reads: Sequence[Read]) -> bool:
        """Whether what was read so far is enough."""
        return len(reads) > self.reads and reads[-1][0] - reads[0][0] > self.seconds * 1e9


class ServedModel(msgspec.Struct, frozen=True):
    """A model as `GET /v1/models` lists it.

    Attributes:
        owned_by: Whom the server names, often its own software.
        context_length: The most tokens of a prompt and its answer, or None where the server
            doesn't say.
        max_model_len: vLLM's name for it.
    """

    id: str
    owned_by: str | None = None
    context_length: int | None = None
    max_model_len: int | None = None

    @property
    def context_tokens(self) -> int | None:
        """The context, under either name."""
        return self.context_length or self.max_model_len


class _ModelList(msgspec.Struct):
    data: list[ServedModel] | None = None
    """Null where Ollama has no model."""


class _Stamps:
    """Takes the stamps of one request's way out."""

    __slots__ = ("connect_ns", "connect_started_ns", "sent_ns")

    def __init__(self) -> None:
        self.connect_ns = 0
        self.connect_started_ns = 0
        self.sent_ns: int | None = None

    def trace(self, name: str, _info: Mapping[str, object]) -> None:
        """Httpx's `trace` extension: how long connecting takes."""
        if name in {"connection.connect_tcp.started", "connection.start_tls.started"}:
            self.connect_started_ns = _clock_ns()
        elif name in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
            self.connect_ns += _clock_ns() - self.connect_started_ns

    def body(self, content: bytes) -> Iterator[bytes]:
        """The body in two writes, stamped between them: before its last byte goes out.

        A stamp after the write would come late whenever the woken server takes the sender's core
        first, which makes a TTFT shorter than it was.
        """
        yield content[:-1]
        self.sent_ns = _clock_ns()
        yield content[-1:]


class StreamingClient:
    """Sends chat requests to one endpoint; safe to share between threads.

    Each request opens its own connection, so that connecting is seen (and counted apart)
    every time, and no request waits for another's. Proxy variables of the environment are ignored:
    a benchmark says exactly what it measured.

    Args:
        timeout_s: How long a single read may take; a long prefill needs minutes.
    """

    def __init__(self, endpoint: ModelEndpoint, *, timeout_s: float = 600.0) -> None:
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self.dialect: Dialect = Dialect()
        self._http = httpx.Client(
            headers=_headers(endpoint),
            auth=endpoint.auth,
            timeout=httpx.Timeout(timeout_s, connect=_CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,
            verify=endpoint.base_url.startswith("https"),  # loading certificates takes time
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open."""
        self._http.close()

    def get[T](self, url: str, kind: type[T]) -> T | None:
        """The JSON at an address of the same server, or None where there is none of this shape."""
        try:
            return self._ask("GET", url, kind, timeout_s=_PAGE_TIMEOUT_S)
        except EndpointError:
            return None

    def list_models(self) -> tuple[ServedModel, ...]:
        """The models that the server lists; empty where it lists none.

        Raises:
            EndpointError: The server can't be reached, refuses, or answers something else.
        """
        url = f"{self.endpoint.base_url.rstrip('/')}/models"
        return tuple(self._ask("GET", url, _ModelList, timeout_s=10.0).data or ())

    def listed_context_tokens(self) -> int | None:
        """The context of the endpoint's model as the server lists it; None where it doesn't."""
        try:
            models = self.list_models()
        except EndpointError:
            return None
        name = self.endpoint.model
        return next((model.context_tokens for model in models if model.id == name), None)

    def post[T](self, url: str, body: Mapping[str, object], kind: type[T]) -> T:
        """What the server answers to a request that is not streamed.

        Raises:
            EndpointError: The server can't be reached, refuses, or answers something else.
        """
        return self._ask("POST", url, kind, body=body)

    def _ask[T](
        self,
        method: str,
        url: str,
        kind: type[T],
        *,
        body: Mapping[str, object] | None = None,
        timeout_s: float | None = None,
    ) -> T:
        timeout = self._http.timeout if timeout_s is None else timeout_s
        content = bytearray()
        try:
            with self._http.stream(method, url, json=body, timeout=timeout) as response:
                for block in response.iter_bytes():
                    content += block
                    if len(content) > _LONGEST_ANSWER_BYTES:
                        raise EndpointError(f"{url} gave an answer larger than 16 MB.", url=url)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise unreachable(url, str(error)) from error
        if not response.is_success:
            text = content.decode(errors="replace")
            raise _refusal(self.endpoint, url, response.status_code, text)
        try:
            return msgspec.json.decode(content, type=kind)
        except (ValueError, RecursionError) as error:
            raise EndpointError(f"{url} gave an unexpected answer: {error}.", url=url) from error

    def stream(self, request: ChatRequest, *, limit: ReadLimit | None = None) -> Exchange:
        """Send one request in the dialect found so far; failures are in the result, not raised.

        Reading stops at `[DONE]`: what a server does with the connection afterwards is not
        part of its answer.

        Args:
            limit: When to stop reading an answer that goes on and on, or None to read it all.
        """
        body = build_body(self.dialect, self.endpoint.model, request)
        content = msgspec.json.encode(body)
        return self._exchange(self.endpoint.completions_url, content, JSON_TYPE, limit)

    def send(self, request: PlainRequest) -> Exchange:
        """Send one request that isn't of chat; failures are in the result, not raised."""
        url = self.endpoint.base_url.rstrip("/") + request.path
        return self._exchange(url, request.content, request.content_type, None)

    def _exchange(
        self, url: str, content: bytes, content_type: str, limit: ReadLimit | None
    ) -> Exchange:
        stamps = _Stamps()
        reads: list[Read] = []
        keep = reads.append
        status = failure = None
        server, has_marked_end = "", False
        tail = b"\n"
        started_ns = _clock_ns()
        try:
            with self._http.stream(
                "POST",
                url,
                content=stamps.body(content),
                headers={"Content-Length": str(len(content)), "Content-Type": content_type},
                extensions={"trace": stamps.trace},
            ) as response:
                status = response.status_code
                server = response.headers.get("server", "")
                has_marked_end = not _END_MARKS.isdisjoint(response.headers)
                for block in response.iter_bytes():
                    keep((_clock_ns(), block))
                    tail = tail[-_LAST_EVENT_BYTES:] + block
                    if b"[DONE]" in tail and _LAST_EVENT.search(tail):
                        break
                    if limit is not None and limit.is_reached(reads):
                        break
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            failure = f"{type(error).__name__}: {error}"
        return Exchange(
            started_ns=started_ns,
            connect_ns=stamps.connect_ns,
            sent_ns=stamps.sent_ns,
            status=status,
            reads=tuple(reads),
            failure=failure,
            server=server,
            has_marked_end=has_marked_end,
        )

    def negotiate(self, request: ChatRequest, *, limit: ReadLimit | None = None) -> Exchange:
        """Send one request, dropping optional fields that the server refuses, and remember them.

        Args:
            limit: When to stop reading an answer that goes on and on.

        Raises:
            EndpointError: The server can't be reached, or refuses the plainest request too.
        """
        while True:
            exchange = self.stream(request, limit=limit)
            if exchange.status is not None and exchange.status < 300:
                return exchange
            body = exchange.body_text
            dialect = next_dialect(self.dialect, exchange.status, body)
            if dialect is None:
                url = self.endpoint.completions_url
                if exchange.status is None:
                    raise unreachable(url, exchange.failure or "no answer")
                raise _refusal(self.endpoint, url, exchange.status, body)
            self.dialect = dialect


def _headers(endpoint: ModelEndpoint) -> dict[str, str]:
    headers = {
        "Accept": "text/event-stream",
        # A compressed stream would be cut and delayed by the compressor.
        "Accept-Encoding": "identity",
        "Content-Type": JSON_TYPE,
        "User-Agent": "mlx-bench",
    }
    if endpoint.api_key:
        headers["Authorization"] = f"Bearer {endpoint.api_key}"
    return headers


def unreachable(url: str, reason: str) -> EndpointError:
    """What is raised where no server answers."""
    return EndpointError(
        f"Nothing answers at {url} ({reason}).",
        url=url,
        hint="Is the server running, and is the address right?",
    )


def _refusal(endpoint: ModelEndpoint, url: str, status: int, body: str) -> EndpointError:
    hints = {
        401: "The server requires a key: name the variable that contains it with --api-key-env.",
        403: "The server requires a key: name the variable that contains it with --api-key-env.",
        404: f"Does the server know the model {endpoint.model!r}, and does the URL end in /v1?"
        if endpoint.model
        else "Name a model with --model; and does the URL end in /v1?",
    }
    elsewhere = "Redirects are not followed: give the address they lead to."
    return EndpointError(
        f"The server answered {status}: {server_message(body)}",
        url=url,
        status=status,
        hint=hints.get(status, elsewhere if 300 <= status < 400 else ""),
    )
