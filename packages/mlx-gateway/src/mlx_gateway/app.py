"""The gateway as an ASGI application: the door, the choice of a model, and one answer a request."""

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

import msgspec

from mlx_gateway.access import Hosts, KeyRing
from mlx_gateway.activation import Activator, NothingToStart
from mlx_gateway.engines import Engines, HeadersFor
from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.fields import Fields, invalid, object_in, read_fields, too_large, unzipped
from mlx_gateway.liveness import EngineTimeouts
from mlx_gateway.metrics import CONTENT_TYPE, Metrics
from mlx_gateway.outbox import Message, Outbox, Receive, Send
from mlx_gateway.protocols.anthropic_messages import CountTokens, Messages
from mlx_gateway.protocols.api import Api, Call
from mlx_gateway.protocols.events import Usage
from mlx_gateway.protocols.openai_chat import ChatCompletions, Completions
from mlx_gateway.protocols.openai_responses import Responses
from mlx_gateway.relay import LONGEST_ANSWER_BYTES, Attempt
from mlx_gateway.routing import Candidate, candidates, longer, needs_count, resolve, too_long
from mlx_gateway.settings import GatewaySettings, Upstream
from mlx_gateway.waiting_line import WaitingLine

LONGEST_BODY_BYTES = 64 * 2**20
_BODY_SILENCE_S = 30.0
_METRICS_WITHIN_S = 1.0
_COUNT_WITHIN_S = 5.0
_FORM_MODEL = re.compile(rb'(name="model"\r\n(?:[^\r\n]+\r\n)*\r\n)([^\r\n]*)(\r\n)')
_CLOUD = "cloud"

type Scope = dict[str, Any]

_OPENAI, _ANTHROPIC = Api(), Messages()
_APIS: dict[str, Api] = {
    "/v1/chat/completions": ChatCompletions(),
    "/v1/completions": Completions(),
    "/v1/responses": Responses(),
    "/v1/messages": _ANTHROPIC,
    "/v1/messages/count_tokens": CountTokens(),
    "/v1/embeddings": _OPENAI,
    "/v1/rerank": _OPENAI,
    "/v1/audio/transcriptions": _OPENAI,
    "/v1/audio/translations": _OPENAI,
    "/v1/audio/speech": _OPENAI,
}
"""Every path that takes a request for a model, with the API that is spoken there."""
_LIVENESS = frozenset({"/health/liveliness", "/health/liveness"})
_WITHOUT_LINE = "/v1/messages/count_tokens"

_log = logging.getLogger("mlx_gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the gateway is given by whoever runs it.

    Attributes:
        keys: The keys that open it.
        hosts: The names under which it may be asked.
        activator: Starts what is not running.
        headers_for: What requests to an upstream carry, by its root.
        timeouts: How long an engine may be silent.
        sign_of_life_s: How long a stream may be silent before its client gets an event.
        header_prefix: How the names of the gateway's own headers begin.
        version: Of the settings in force, as the liveness probe shows it.
    """

    keys: KeyRing
    hosts: Hosts
    activator: Activator = NothingToStart()  # noqa: RUF009 - it has no state
    headers_for: HeadersFor = lambda _: {}
    timeouts: EngineTimeouts = EngineTimeouts()  # noqa: RUF009 - it is frozen
    sign_of_life_s: float = 5.0
    header_prefix: str = "x-mlx-stack"
    version: str = ""


@dataclass(slots=True)
class _Request:
    """A request for a model, on its way through the gateway."""

    path: str
    api: Api
    fields: Fields
    body: bytes
    content_type: str
    asked: str
    outbox: Outbox
    began: float
    queued_s: float = 0.0
    first_s: float | None = None
    answered_by: str = ""


class Gateway:
    """The application; every method runs in one event loop.

    Args:
        settings: Which models there are.
        surroundings: What it is given.
    """

    def __init__(self, settings: GatewaySettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._around = surroundings
        self._metrics = Metrics()
        self._lines = {name: WaitingLine(model) for name, model in settings.models.items()}
        self._started: Engines | None = None
        self._in_flight = 0

    @property
    def settings(self) -> GatewaySettings:
        """The settings in force."""
        return self._settings

    def reload(self, settings: GatewaySettings, *, version: str = "") -> None:
        """Go on with other settings. Requests in flight end as they began."""
        for name, model in settings.models.items():
            line = self._lines.setdefault(name, WaitingLine(model))
            line.model = model
        for name in self._lines.keys() - settings.models.keys():
            self._lines.pop(name).fail("it is not served any more")
        self._settings = settings
        self._around = replace(self._around, version=version)
        for line in self._lines.values():
            line.advance()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    @property
    def _engines(self) -> Engines:
        if self._started is None:
            self._started = Engines(
                self._around.headers_for, self._around.timeouts, self._engine_hangs
            )
        return self._started

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                if self._started is not None:
                    self._started.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _engine_hangs(self, root: str) -> None:
        """Send on those who wait for a model whose every upstream hangs."""
        _log.warning("%s does not answer", root)
        for line in self._lines.values():
            roots = [upstream.root for upstream in line.model.upstreams]
            if root in roots and all(self._engines.at(each).life.hangs for each in roots):
                line.fail("it does not answer")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        path: str = _versioned(scope["path"])
        api = _api_of(path, headers)
        try:
            self._check_door(scope, headers, path)
            await self._dispatch(scope, headers, path, receive, send)
        except ApiError as error:
            await Outbox(send, api).fail(error)

    def _check_door(self, scope: Scope, headers: Mapping[bytes, bytes], path: str) -> None:
        """Return if the request may come in.

        Raises:
            ApiError: When it may not.
        """
        server = scope.get("server") or (None, None)
        if not self._around.hosts.allow(headers.get(b"host"), server[0]):
            raise ApiError(
                HTTPStatus.FORBIDDEN,
                "This gateway does not go by that host name. Ask it as localhost.",
                code="host_not_allowed",
            )
        method = scope["method"]
        if path in _LIVENESS or (path == "/" and method in ("GET", "HEAD")):
            return
        known = path in _APIS or path == "/metrics" or path.startswith("/v1/models")
        if not self._around.keys.holder(headers):
            what = "wrong" if KeyRing.is_given(headers) else "missing"
            raise ApiError(HTTPStatus.UNAUTHORIZED, f"The API key is {what}.")
        if not known:
            raise ApiError(HTTPStatus.NOT_FOUND, f"There is nothing at {scope['path'][:200]}.")
        if method not in (("POST",) if path in _APIS else ("GET", "HEAD")):
            raise ApiError(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} does not take {method}.")

    async def _dispatch(
        self,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        path: str,
        receive: Receive,
        send: Send,
    ) -> None:
        if path in _APIS:
            await self._serve(scope, headers, path, receive, send)
        elif path in _LIVENESS:
            version = (
                f"{self._around.header_prefix}-config".encode(),
                self._around.version.encode(),
            )
            await _send_json(send, {"status": "alive"}, [version])
        elif path == "/":
            await _send_json(send, {"service": "mlx-gateway"})
        elif path == "/metrics":
            body = await self._render_metrics()
            outbox = Outbox(send, _OPENAI)
            await outbox.whole(HTTPStatus.OK, body, CONTENT_TYPE.encode())
        else:
            await _send_json(send, self._models(path, headers))

    def _models(self, path: str, headers: Mapping[bytes, bytes]) -> dict[str, object]:
        """The list of models, or one of them, in OpenAI's or Anthropic's shape.

        Raises:
            ApiError: When there is no such model.
        """
        is_anthropics = b"anthropic-version" in headers
        name = path.removeprefix("/v1/models").strip("/")
        names = [*self._settings.models, *self._settings.aliases]
        if name:
            resolve(self._settings, name)
            return self._model(name, is_anthropics=is_anthropics)
        rows = [self._model(each, is_anthropics=is_anthropics) for each in names]
        if is_anthropics:
            return {"data": rows, "has_more": False, "first_id": names[0], "last_id": names[-1]}
        return {"object": "list", "data": rows}

    def _model(self, name: str, *, is_anthropics: bool) -> dict[str, object]:
        model = self._settings.models[resolve(self._settings, name)]
        if is_anthropics:
            return {
                "type": "model",
                "id": name,
                "display_name": name,
                "created_at": "1970-01-01T00:00:00Z",
                "context_length": model.context_tokens,
            }
        return {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "mlx-gateway",
            "context_length": model.context_tokens,
        }

    async def _render_metrics(self) -> bytes:
        texts = await asyncio.gather(
            *(
                self._metrics_of(name, upstream)
                for name, model in self._settings.models.items()
                for upstream in model.upstreams
                if not self._settings.is_cloud(upstream)
            )
        )
        lines = {
            name: (sum(line.running.values()), line.waiting) for name, line in self._lines.items()
        }
        return self._metrics.render(lines, [text for text in texts if text is not None])

    async def _metrics_of(self, name: str, upstream: Upstream) -> tuple[str, str] | None:
        engine = self._engines.at(upstream.root)
        try:
            async with (
                asyncio.timeout(_METRICS_WITHIN_S),
                self._engines.pool.request(
                    engine.address, "GET", "/metrics", engine.headers
                ) as answer,
            ):
                text = await answer.read(LONGEST_ANSWER_BYTES)
                return (name, text.decode()) if answer.status == HTTPStatus.OK else None
        except (TimeoutError, UpstreamFailedError, UnicodeDecodeError):
            return None

    async def _serve(
        self,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        path: str,
        receive: Receive,
        send: Send,
    ) -> None:
        began = time.monotonic()
        api = _APIS[path]
        body = await _read_body(receive, headers)
        content_type = headers.get(b"content-type", b"application/json").decode("latin-1")
        if content_type.startswith("multipart/form-data"):
            fields, asked = Fields({}, len(body)), _model_in_form(body)
        else:
            content_type = "application/json"
            fields = read_fields(body)
            asked = fields.text("model")
        if not asked:
            raise invalid("`model` is missing.", param="model")
        streams = fields.flag("stream")
        outbox = Outbox(
            send,
            api,
            streams=streams,
            keeps=scope["http_version"] == "1.0",
            sign_of_life_s=self._around.sign_of_life_s,
        )
        request = _Request(path, api, fields, body, content_type, asked, outbox, began)
        work = asyncio.ensure_future(self._work(request))
        gone = asyncio.ensure_future(_wait_until_gone(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not work.done():
                work.cancel()
            with suppress(asyncio.CancelledError):
                await work

    async def _work(self, request: _Request) -> None:
        """Answer the request, whatever comes of it, and count it."""
        usage, problem = Usage(), ""
        self._in_flight += 1
        try:
            request.outbox.begin_waiting()
            usage = await self._try_models(request)
        except ApiError as error:
            problem = str(error.status)
            await request.outbox.fail(error)
        except asyncio.CancelledError:
            problem = "client_left"
            raise
        finally:
            self._in_flight -= 1
            request.outbox.stop_waiting()
            self._note(request, usage, problem)
        await request.outbox.close()

    def _note(self, request: _Request, usage: Usage, problem: str) -> None:
        seconds = time.monotonic() - request.began
        model = request.answered_by or request.asked[:64]
        self._metrics.finished(
            operation=request.path.rsplit("/", 1)[-1],
            model=model if model in self._settings.models else "unknown",
            seconds=seconds,
            ttft_s=request.first_s,
            usage=usage,
            error=problem,
        )
        _log.info(
            "%s %s: %s in %.2f s, %s tokens read, %s written",
            request.path,
            model,
            problem or "done",
            seconds,
            "?" if usage.prompt_tokens is None else usage.prompt_tokens,
            "?" if usage.completion_tokens is None else usage.completion_tokens,
        )

    async def _try_models(self, request: _Request) -> Usage:
        """Send the request to its model, and on to others while none of an answer has gone out.

        Raises:
            ApiError: When it is at fault, or no model answered.
        """
        settings = self._settings
        name = resolve(settings, request.asked)
        options = await self._that_take(request, candidates(settings, name))
        failures: list[str] = []
        for option in options:
            excluded: frozenset[str] = frozenset()
            while True:
                try:
                    return await self._attempt(request, option, name, excluded)
                except _AttemptFailedError as error:
                    _log.warning("%s: %s: %s", request.path, option.name, error.reason)
                    if request.outbox.has_answered:
                        raise ApiError(HTTPStatus.BAD_GATEWAY, _broke_off(error.reason)) from error
                    failures.append(f"{option.name}: {error.reason}")
                    excluded |= {error.root}
                    if len(excluded) >= len(option.model.upstreams) or not error.root:
                        break
        raise ApiError(
            HTTPStatus.SERVICE_UNAVAILABLE, f"No model could answer. {'; '.join(failures)}."
        )

    async def _that_take(
        self, request: _Request, options: tuple[Candidate, ...]
    ) -> tuple[Candidate, ...]:
        """Those that take a prompt of this length, the asked one first.

        Raises:
            ApiError: When none does.
        """
        first = options[0]
        limit = first.model.context_tokens
        if limit is None or not needs_count(first.model, request.fields.size_bytes):
            return options
        tokens = await self._count(request, first)
        if tokens is None or tokens < limit:
            return options
        fitting = longer(options[1:], tokens)
        if not fitting:
            raise too_long(first.name, tokens, limit)
        return fitting

    async def _count(self, request: _Request, option: Candidate) -> int | None:
        """The prompt's length in tokens, as the model's own engine counts it; None if it can't."""
        upstream = option.model.upstreams[0]
        engine = self._engines.at(upstream.root)
        document = {"model": upstream.model, **request.api.countable(request.fields)}
        try:
            async with (
                asyncio.timeout(_COUNT_WITHIN_S),
                self._engines.pool.request(
                    engine.address,
                    "POST",
                    "/v1/messages/count_tokens",
                    {"content-type": "application/json", **engine.headers},
                    msgspec.json.encode(document),
                ) as answer,
            ):
                counted: object = msgspec.json.decode(await answer.read(LONGEST_ANSWER_BYTES))
        except (TimeoutError, UpstreamFailedError, msgspec.DecodeError):
            return None
        tokens = object_in(counted).get("input_tokens")
        return tokens if isinstance(tokens, int) else None

    async def _attempt(
        self, request: _Request, option: Candidate, asked: str, excluded: frozenset[str]
    ) -> Usage:
        """One upstream of one model.

        Raises:
            ApiError: When the request is at fault, or the model's line is full.
            _AttemptFailedError: When the upstream gave no usable answer.
        """
        await self._around.activator.ready(option.name)
        line = self._lines.get(option.name)
        if line is None:
            raise _AttemptFailedError("it is not served any more", "")
        waited_from = time.monotonic()
        try:
            upstream = await line.take(excluded)
        except UpstreamFailedError as error:
            raise _AttemptFailedError(error.reason, "") from error
        began = time.monotonic()
        request.queued_s += began - waited_from
        try:
            attempt = self._prepare(request, option, upstream)
            self._say_who(request, option, asked)
            usage = await attempt.run(
                request.outbox, on_accepted=lambda: self._accepted(request, option)
            )
        except UpstreamFailedError as error:
            raise _AttemptFailedError(error.reason, upstream.root) from error
        finally:
            line.release(upstream, time.monotonic() - began)
            self._around.activator.finished(option.name)
        if option.name != asked:
            self._metrics.fell_back(asked, option.name)
        return usage

    def _prepare(self, request: _Request, option: Candidate, upstream: Upstream) -> Attempt:
        engine = self._engines.at(upstream.root)
        headers = {"content-type": request.content_type, **engine.headers}
        if request.content_type == "application/json":
            call = request.api.read(request.fields, sees_images=option.model.sees_images)
            body = call.fields.with_values(model=upstream.model).encode()
        else:
            call = Call(request.fields)
            model = upstream.model.encode()
            body = _FORM_MODEL.sub(lambda m: m[1] + model + m[3], request.body, count=1)
        counts = request.api.counts_first and not self._settings.is_cloud(upstream)
        return Attempt(
            pool=self._engines.pool,
            engine=engine,
            path=request.path,
            headers=headers,
            body=body,
            api=request.api,
            call=call,
            silence_s=option.model.silence_s,
            count=(lambda: self._count(request, option)) if counts else None,
        )

    def _say_who(self, request: _Request, option: Candidate, asked: str) -> None:
        """Put who answers, and how long the request waited, into the answer's headers."""
        prefix = self._around.header_prefix
        is_cloud = self._settings.is_cloud(option.model.upstreams[0])
        named = {
            "tier": _CLOUD if is_cloud else option.name,
            "queue-ms": str(round(request.queued_s * 1000)),
        }
        if option.name != asked:
            named["fallback-from"] = asked
        request.outbox.headers = [
            (f"{prefix}-{name}".encode(), value.encode("ascii", "replace"))
            for name, value in named.items()
        ]

    def _accepted(self, request: _Request, option: Candidate) -> None:
        request.answered_by = option.name
        request.first_s = time.monotonic() - request.began


class _AttemptFailedError(UpstreamFailedError):
    """An attempt that failed; another upstream or model may do better.

    Attributes:
        root: The upstream; "" where it came to none.
    """

    def __init__(self, reason: str, root: str) -> None:
        super().__init__(reason)
        self.root = root


def _api_of(path: str, headers: Mapping[bytes, bytes]) -> Api:
    """The API in whose shape a request at `path` is answered."""
    if path.startswith("/v1/messages") or b"anthropic-version" in headers:
        return _ANTHROPIC
    return _APIS.get(path, _OPENAI)


def _versioned(path: str) -> str:
    """`/models` → `/v1/models`: clients whose base URL lacks `/v1` mean the same."""
    path = path.rstrip("/") or "/"
    versioned = f"/v1{path}"
    return versioned if versioned in _APIS or versioned == "/v1/models" else path


def _model_in_form(body: bytes) -> str:
    found = _FORM_MODEL.search(body)
    return found[2].decode("utf-8", "replace") if found else ""


async def _read_body(receive: Receive, headers: Mapping[bytes, bytes]) -> bytes:
    """The request's body, unpacked.

    Raises:
        ApiError: When it is too large, too slow, or packed in a way that nobody asked for.
        asyncio.CancelledError: When the client has left.
    """
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > LONGEST_BODY_BYTES:
        raise too_large(LONGEST_BODY_BYTES)
    parts: list[bytes] = []
    size = 0
    while True:
        try:
            message = await asyncio.wait_for(_next(receive), _BODY_SILENCE_S)
        except TimeoutError as error:
            raise ApiError(
                HTTPStatus.REQUEST_TIMEOUT, "The request's body came too slowly."
            ) from error
        if message["type"] == "http.disconnect":
            raise asyncio.CancelledError
        part = message.get("body", b"")
        size += len(part)
        if size > LONGEST_BODY_BYTES:
            raise too_large(LONGEST_BODY_BYTES)
        parts.append(part)
        if not message.get("more_body"):
            break
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    encoding = headers.get(b"content-encoding", b"identity").lower()
    if encoding == b"gzip":
        return unzipped(body, LONGEST_BODY_BYTES)
    if encoding != b"identity":
        raise ApiError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the body as it is, or packed with gzip."
        )
    return body


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_json(
    send: Send, document: Mapping[str, object], headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    outbox = Outbox(send, _OPENAI)
    outbox.headers = headers or []
    await outbox.whole(HTTPStatus.OK, msgspec.json.encode(document), b"application/json")


async def _next(receive: Receive) -> Message:
    return await receive()


def _broke_off(reason: str) -> str:
    return f"The answer broke off: {reason}."
