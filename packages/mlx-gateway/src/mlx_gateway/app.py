"""The gateway as an ASGI application: the door, the choice of a model, and one answer a request.

(decision 0003)
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import count
from typing import Any

import msgspec

from mlx_gateway.access import Hosts
from mlx_gateway.activation import Activator, NothingToStart
from mlx_gateway.engines import AskFor, Engines, HeadersFor, TlsFor
from mlx_gateway.errors import CLIENT_LEFT, ApiError, ClientLeftError, UpstreamFailedError
from mlx_gateway.fields import Fields, invalid, object_in, read_fields
from mlx_gateway.form import encode_form, is_form, read_form
from mlx_gateway.heartbeat import Heartbeat
from mlx_gateway.in_flight import InFlight, Line, Mounted, Reading, RequestPhase
from mlx_gateway.keys import ADMIN, ClientKey, KeyRing
from mlx_gateway.ledger import Ledger, RequestRow, program_of
from mlx_gateway.liveness import EngineTimeouts
from mlx_gateway.metrics import CONTENT_TYPE, Metrics
from mlx_gateway.model_list import (
    model_list,
    model_row,
    not_allowed,
    ollama_details,
    ollama_running,
    ollama_tags,
)
from mlx_gateway.outbox import Outbox, Receive, Send
from mlx_gateway.prompts.conversations import Conversations, in_words, reread
from mlx_gateway.prompts.read_prefixes import ReadPrefixes
from mlx_gateway.prompts.segments import Prompt
from mlx_gateway.prompts.stable_head import with_stable_head
from mlx_gateway.protocols.api import Api, Call, countable, prompt_text
from mlx_gateway.protocols.audio import Speech, Transcriptions, Translations
from mlx_gateway.protocols.embeddings import Embeddings
from mlx_gateway.protocols.events import Usage
from mlx_gateway.protocols.media import require_media
from mlx_gateway.protocols.messages_by_chat import CountTokensByChat, MessagesByChat
from mlx_gateway.protocols.ollama import API_VERSION, OllamaChat, OllamaEmbed, OllamaGenerate
from mlx_gateway.protocols.openai_chat import ChatCompletions, Completions
from mlx_gateway.protocols.rerank import Rerank
from mlx_gateway.protocols.responses_by_chat import ResponsesByChat
from mlx_gateway.reading import pair, read_rows
from mlx_gateway.relay import LONGEST_ANSWER_BYTES, Attempt
from mlx_gateway.request_body import read_body
from mlx_gateway.routing import (
    RouteOption,
    candidates,
    needs_count,
    refuse_far_too_long,
    require_role,
    resolve,
    too_long,
)
from mlx_gateway.settings import GatewaySettings, Role, Upstream
from mlx_gateway.waiting_line import WaitingLine

_TOLD_WITHIN_S = 1.0
_COUNT_WITHIN_S = 5.0
_CHARACTERS_PER_TOKEN = 6
"""More than a token of ordinary text has."""
_BYTES_PER_TOKEN = 4
_AWAKE_WITHIN_S = 20.0
"""How long a Mac may take to wake up; most need two or three seconds."""
_LOOK_AGAIN_S = 0.1
_CLOUD = "cloud"
_JSON = "application/json"

type Scope = dict[str, Any]

_OPENAI, _ANTHROPIC, _RERANK = Api(), MessagesByChat(), Rerank()
_OLLAMA, _COUNTING = OllamaChat(), CountTokensByChat()
_APIS: dict[str, Api] = {
    "/v1/chat/completions": ChatCompletions(),
    "/v1/completions": Completions(),
    "/v1/responses": ResponsesByChat(),
    "/v1/messages": _ANTHROPIC,
    "/v1/messages/count_tokens": _COUNTING,
    "/v1/embeddings": Embeddings(),
    "/v1/rerank": _RERANK,
    "/v2/rerank": _RERANK,
    "/v1/audio/transcriptions": Transcriptions(),
    "/v1/audio/translations": Translations(),
    "/v1/audio/speech": Speech(),
    "/api/chat": _OLLAMA,
    "/api/generate": OllamaGenerate(),
    "/api/embed": OllamaEmbed(),
}
"""Every path that takes a request for a model, with the API that is spoken there."""
_CONVERSATIONS = frozenset({"/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/chat"})
"""Where each request holds the whole of its conversation."""
_LIVENESS = frozenset({"/health/liveliness", "/health/liveness"})
_MODELS = "/v1/models"
_OLLAMA_SHOW = "/api/show"
_STATUS = "/v1/status"
_SHOWN = frozenset({_STATUS, "/metrics", "/api/tags", "/api/ps", "/api/version"})
"""What is read, besides the list of models."""

_log = logging.getLogger("mlx_gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """What whoever runs the gateway gives it, besides its settings.

    Attributes:
        headers_for: What a request to an upstream must carry, by its root; asked each time.
        ask_for: What proves this side to an upstream, and it to us; asked for each connection.
        tls_for: By what an upstream with a certificate of its own is known.
        is_wedged: Whether whoever watches the upstream at a root found that it answers and
            delivers nothing; it gets no request then.
        wake: Wakes the machine of the node at a root; whether there is a way to do so.
        ledger: Where requests are noted; None notes them nowhere.
        sign_of_life_s: How long a stream may be silent before its client gets an event.
        header_prefix: How the names of the gateway's own headers begin.
        remote_images_by: What sets `remote_images`, in words.
        mounts: What answers everything below a path such as `/ui`, whoever asks: it checks keys
            itself.
        version: Of the settings in force, as the liveness probe shows it.
    """

    keys: KeyRing
    hosts: Hosts
    activator: Activator = field(default_factory=NothingToStart)
    headers_for: HeadersFor = lambda _: {}
    ask_for: AskFor = lambda _: None
    tls_for: TlsFor = lambda _: None
    is_wedged: Callable[[str], bool] = lambda _: False
    wake: Callable[[str], bool] = lambda _: False
    ledger: Ledger | None = None
    timeouts: EngineTimeouts = field(default_factory=EngineTimeouts)
    sign_of_life_s: float = 5.0
    header_prefix: str = "x-mlx-stack"
    remote_images_by: str = "`remote_images: true` in its settings"
    mounts: Mapping[str, Mounted] = field(default_factory=dict[str, Mounted])
    version: str = ""


@dataclass(slots=True, kw_only=True)
class _Request:
    """A request for a model, on its way through the gateway.

    Attributes:
        asked: Its fields as the client sent them.
        fields: The same for engines.
        file: The file of one that came as a form; None for one in JSON.
        is_forwarded: Whether another gateway sent it here: it is for an engine of this machine.
        upstream: Who has it, or had it last.
    """

    path: str
    api: Api
    asked: Fields
    fields: Fields
    body: bytes
    file: memoryview | None
    name: str
    outbox: Outbox
    began: float
    client: ClientKey
    program: str
    is_forwarded: bool = False
    queued_s: float = 0.0
    answered_by: str = ""
    upstream: Upstream | None = None
    was_alone: bool = False
    phase: RequestPhase = RequestPhase.QUEUED
    prompt: Prompt | None = None
    is_prompt_read: bool = False

    @property
    def shown_tier(self) -> str:
        """Who answers, or is asked now, as people see it: `standard`, or `standard@studio`."""
        tier = self.answered_by or self.name
        return tier if self.upstream is None else self.upstream.shown(tier)


@dataclass(slots=True)
class _Reading:
    """A request's prompt at the upstreams of one model."""

    model: str
    prompt: Prompt | None
    size_bytes: int
    read: ReadPrefixes

    def unseen_tokens(self, upstream: Upstream) -> int:
        """How many of its tokens the upstream has not read."""
        if self.prompt is None:
            return self.size_bytes // _BYTES_PER_TOKEN
        return self.read.unseen_tokens((self.model, upstream.root), self.prompt)

    def begin(self, upstream: Upstream) -> None:
        """Note that the upstream reads it from now on."""
        if self.prompt is not None:
            self.read.note((self.model, upstream.root), self.prompt.trace)


class Gateway:
    """The application; every method runs in one event loop."""

    def __init__(self, settings: GatewaySettings, options: GatewayOptions) -> None:
        self._settings = self._given = settings
        self._options = options
        self._metrics = Metrics()
        self._engines = Engines(
            self._headers_for,
            options.ask_for,
            options.tls_for,
            options.timeouts,
            self._engine_hangs,
            options.is_wedged,
        )
        self._lines: dict[str, WaitingLine] = {}
        self._in_flight: Counter[str] = Counter()
        self._at_the_door: Counter[str] = Counter()
        self._speeds: dict[str, float] = {}
        self._requests: dict[int, _Request] = {}
        self._conversations = Conversations()
        self._read = ReadPrefixes()
        self._forwarded = f"{options.header_prefix}-forwarded"
        self._numbers = count(1)
        self._finished = 0
        self._node_roots: set[str] = set()
        self._heartbeat = None
        if options.ledger is not None:
            self._heartbeat = Heartbeat(options.ledger, self._engines, lambda: self._settings)
        self.reload(settings, version=options.version)

    @property
    def settings(self) -> GatewaySettings:
        """The settings in force."""
        return self._settings

    @property
    def finished(self) -> int:
        """How many requests for a model have ended since the start."""
        return self._finished

    def requests(self) -> tuple[InFlight, ...]:
        """The requests for a model that are on their way now, the oldest first."""
        now = time.monotonic()
        return tuple(_in_flight(number, each, now) for number, each in self._requests.items())

    async def readings(self) -> dict[int, Reading]:
        """How far prompts have been read, by the ids of `requests`, where their engine says so."""
        by_root: dict[str, list[int]] = {}
        for number, each in self._requests.items():
            is_read = each.phase is RequestPhase.READING and each.outbox.first_at is None
            upstream = each.upstream
            if not is_read or upstream is None or upstream.node is not None:
                continue
            if not self._settings.is_cloud(upstream.root):
                by_root.setdefault(upstream.root, []).append(number)
        bodies = await asyncio.gather(*(self._told_by(root, _STATUS) for root in by_root))
        found: dict[int, Reading] = {}
        for numbers, body in zip(by_root.values(), bodies, strict=True):
            found |= pair(numbers, read_rows(body or b""))
        return found

    def lines(self) -> dict[str, Line]:
        """For each model, how many requests it works on, and how many wait for it.

        Those on a node have a line of their own, such as `standard@studio`; all wait together.
        """
        found: dict[str, Line] = {}
        for name, line in self._lines.items():
            found[name] = Line(0, line.waiting)
            for each in line.upstreams:
                known = found.get(each.shown(name), Line(0, 0))
                running = known.running + line.running_at(each.root)
                found[each.shown(name)] = Line(running, known.waiting)
        return found

    def end_soon(self) -> None:
        """Let every mounted application end what would never end by itself."""
        for mounted in self._options.mounts.values():
            mounted.end()

    def reload(self, settings: GatewaySettings, *, version: str = "") -> None:
        """Go on with other settings. Requests in flight end as they began."""
        self._given = settings
        self._options = replace(self._options, version=version)
        self._apply()

    def _apply(self) -> None:
        self._settings = settings = self._options.activator.extended(self._given)
        for name in self._lines.keys() - settings.models.keys():
            self._lines.pop(name).fail("it is not served any more")
        for name, model in settings.models.items():
            if name in self._lines:
                self._lines[name].change(model)
            else:
                self._lines[name] = WaitingLine(model, self._engines.is_up)
        self._node_roots = {
            each.root for model in settings.models.values() for each in model.upstreams if each.node
        }
        used = {each.root for model in settings.models.values() for each in model.upstreams}
        self._engines.forget_others(used)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._options.activator.begin()
                if self._heartbeat is not None:
                    self._heartbeat.start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._options.activator.end()
                self._engines.close()
                if self._heartbeat is not None:
                    await self._heartbeat.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _look_for_models(self) -> None:
        """Know what could be started by now."""
        if await self._options.activator.look():
            self._apply()

    def _headers_for(self, root: str) -> dict[str, str]:
        """What requests to an upstream carry; another gateway must not send them any further."""
        given = dict(self._options.headers_for(root))
        return {**given, self._forwarded: "1"} if root in self._node_roots else given

    def _engine_hangs(self, root: str, hangs: bool) -> None:
        """Send on those who wait for nothing but an engine that hangs."""
        _log.warning("%s %s", root, "does not answer" if hangs else "answers again")
        if hangs and root in self._node_roots:
            for name in self._settings.models:
                self._read.forget((name, root))
            self._options.wake(root)
        if self._heartbeat is not None:
            self._heartbeat.note_hang(root, hangs=hangs)
        for line in self._lines.values():
            line.advance()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        path = _versioned(scope["path"])
        try:
            self._check_host(scope, headers)
            mounted = self._options.mounts.get("/" + path.split("/", 2)[1])
            if mounted is not None:
                await mounted(scope, receive, send)
                return
            client = self._check_door(scope, headers, path)
            if client is not None and self._options.ledger is not None:
                self._options.ledger.note_key(client.name)
            if path in _APIS:
                await self._serve(client or ADMIN, headers, path, receive, send)
            else:
                await self._show(client or ADMIN, headers, path, receive, send)
        except ClientLeftError:
            pass
        except ApiError as error:
            await Outbox(send, _api_of(path, headers)).fail(error)

    async def serve_as(self, client: ClientKey, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for a model that a mounted application has let in for `client`."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        path = _versioned(scope["path"])
        try:
            await self._serve(client, headers, path, receive, send)
        except ClientLeftError:
            pass
        except ApiError as error:
            await Outbox(send, _api_of(path, headers)).fail(error)

    def _check_host(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        """Return if the request names this machine.

        Raises:
            ApiError: When it doesn't.
        """
        server = scope.get("server") or (None, None)
        if not self._options.hosts.allow(headers.get(b"host"), server[0]):
            raise ApiError(
                HTTPStatus.FORBIDDEN,
                "This gateway does not go by that host name. Ask it as localhost.",
                code="host_not_allowed",
            )

    def _check_door(
        self, scope: Scope, headers: Mapping[bytes, bytes], path: str
    ) -> ClientKey | None:
        """Whose request may come in; None for what is open to everyone.

        Raises:
            ApiError: When it may not.
        """
        method = scope["method"]
        if path in _LIVENESS or (path == "/" and method in ("GET", "HEAD")):
            return None
        client = self._options.keys.holder(headers)
        if client is None:
            what = "wrong" if KeyRing.is_given(headers) else "missing"
            raise ApiError(HTTPStatus.UNAUTHORIZED, f"The API key is {what}.")
        is_asked = path in _APIS or path == _OLLAMA_SHOW
        is_list = path == _MODELS or path.startswith(f"{_MODELS}/")
        if not is_asked and path not in _SHOWN and not is_list:
            raise ApiError(HTTPStatus.NOT_FOUND, f"There is nothing at {scope['path'][:200]}.")
        if method not in (("POST",) if is_asked else ("GET", "HEAD")):
            raise ApiError(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} doesn't accept {method}.")
        return client

    async def _show(
        self,
        client: ClientKey,
        headers: Mapping[bytes, bytes],
        path: str,
        receive: Receive,
        send: Send,
    ) -> None:
        """Answer what is no request for a model."""
        outbox = Outbox(send, _api_of(path, headers))
        if path == "/metrics":
            await outbox.whole(HTTPStatus.OK, await self._render_metrics(), CONTENT_TYPE.encode())
            return
        document: dict[str, object] = {"service": "mlx-gateway"}
        at_rest = self._options.activator.is_at_rest
        if path.startswith(_MODELS) or path in (_OLLAMA_SHOW, "/api/tags"):
            await self._look_for_models()
        if path in _LIVENESS:
            name, version = f"{self._options.header_prefix}-config", self._options.version
            outbox.headers = [(name.encode(), version.encode())]
            document = {"status": "alive"}
        elif path.startswith(_MODELS):
            name, is_anthropics = path[len(_MODELS) + 1 :], b"anthropic-version" in headers
            document = (
                model_row(self._settings, name, client, at_rest, is_anthropics=is_anthropics)
                if name
                else model_list(self._settings, client, at_rest, is_anthropics=is_anthropics)
            )
        elif path == _OLLAMA_SHOW:
            fields = read_fields(await read_body(receive, headers))
            name = fields.text("model") or fields.text("name") or ""
            document = ollama_details(self._settings, name, client)
        elif path == "/api/tags":
            document = ollama_tags(self._settings, client)
        elif path == "/api/ps":
            ready = await self._engines.ready_models(self._settings)
            now, presence = datetime.now(UTC), self._options.activator.presence
            document = ollama_running(self._settings, client, ready, presence, now)
        elif path == _STATUS:
            document = self._status(client)
        elif path == "/api/version":
            document = {"version": API_VERSION}
        await outbox.whole(HTTPStatus.OK, msgspec.json.encode(document), _JSON.encode())

    def _status(self, client: ClientKey) -> dict[str, object]:
        """What every model does that the client may use."""
        rows: list[dict[str, object]] = []
        for name, line in self._lines.items():
            if client.may_use(name):
                presence = self._options.activator.presence(name)
                lines = self.lines()
                row: dict[str, object] = {
                    "name": name,
                    "requests_running": lines[name].running,
                    "requests_waiting": line.waiting + self._at_the_door[name],
                    "generation_tps": self._speeds.get(name),
                }
                rows.append(row | (asdict(presence) if presence is not None else {}))
                for each in line.upstreams:
                    if each.node is not None:
                        shown = each.shown(name)
                        row = {
                            "name": shown,
                            "requests_running": lines[shown].running,
                            "requests_waiting": 0,
                            "generation_tps": self._speeds.get(shown),
                            "node": each.node,
                            "is_up": self._engines.is_up(each.root),
                        }
                        rows.append(row)
        return {"models": rows}

    async def _render_metrics(self) -> bytes:
        texts = await asyncio.gather(
            *(
                self._metrics_of(name, upstream)
                for name, model in self._settings.models.items()
                for upstream in model.upstreams
                if upstream.node is None and not self._settings.is_cloud(upstream.root)
            )
        )
        engines = [text for text in texts if text is not None]
        return self._metrics.render(self.lines(), engines, self._options.ledger)

    async def _metrics_of(self, name: str, upstream: Upstream) -> tuple[str, str, str] | None:
        body = await self._told_by(upstream.root, "/metrics")
        try:
            return None if body is None else (name, upstream.root, body.decode())
        except UnicodeDecodeError:
            return None

    async def _told_by(self, root: str, path: str) -> bytes | None:
        """What the engine at a root says there; None where it doesn't, or not at once."""
        try:
            async with (
                asyncio.timeout(_TOLD_WITHIN_S),
                self._engines.at(root).request("GET", path) as answer,
            ):
                body = await answer.read(LONGEST_ANSWER_BYTES)
                return body if answer.status == HTTPStatus.OK else None
        except (TimeoutError, UpstreamFailedError):
            return None

    async def _serve(
        self,
        client: ClientKey,
        headers: Mapping[bytes, bytes],
        path: str,
        receive: Receive,
        send: Send,
    ) -> None:
        """Answer a request for a model, unless its client leaves."""
        began = time.monotonic()
        api = _APIS[path]
        body = await read_body(receive, headers)
        fields, file = _read(api, body, headers.get(b"content-type", b"").decode("latin-1"))
        asked = fields.text("model")
        if not asked:
            raise invalid("`model` is missing.", param="model")
        outbox = Outbox(
            send,
            api,
            streams=api.streams(fields),
            sign_of_life_s=self._options.sign_of_life_s,
            model=asked,
        )
        name = await self._resolve(asked)
        require_role(self._settings, name, api.roles)
        is_stable = self._settings.stable_prompts and file is None
        request = _Request(
            path=path,
            api=api,
            asked=fields,
            fields=with_stable_head(fields) if is_stable else fields,
            body=body,
            file=file,
            name=name,
            outbox=outbox,
            began=began,
            client=client,
            program=program_of(headers.get(b"user-agent", b"").decode("latin-1")),
            is_forwarded=self._forwarded.encode() in headers,
        )
        work = asyncio.ensure_future(self._work(request))
        gone = asyncio.ensure_future(_wait_until_gone(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work

    async def _resolve(self, asked: str) -> str:
        """The model of that name, looked for again where it isn't known or has to be started.

        Raises:
            ApiError: When there is no such model, or it can't be served.
        """
        with suppress(ApiError):
            name = resolve(self._settings, asked)
            activator = self._options.activator
            presence = activator.presence(name) if activator.is_at_rest(name) else None
            if presence is None or presence.state == "starting":
                return name
        await self._look_for_models()
        try:
            return resolve(self._settings, asked)
        except ApiError:
            refusal = self._options.activator.refusal(asked)
            if refusal is not None:
                raise refusal from None
            raise

    async def _work(self, request: _Request) -> None:
        """Answer the request, whatever comes of it, and count it."""
        outbox, usage, problem = request.outbox, Usage(), ""
        number = next(self._numbers)
        self._requests[number] = request
        try:
            with self._admitted(request):
                if not request.is_forwarded:  # whoever sent it here gives its client signs of life
                    outbox.begin_waiting()
                usage = await self._try_models(request)
                await outbox.close()
        except ApiError as error:
            problem = str(error.status)
            await outbox.fail(error)
            await outbox.close()
        except asyncio.CancelledError:
            if outbox.delivered is None:
                problem = "client_left"
            else:  # it hung up at the last event, before the engine had ended its answer
                usage = outbox.delivered
            raise
        finally:
            outbox.stop_waiting()
            self._requests.pop(number)
            self._note(request, usage, problem or outbox.problem)

    @contextmanager
    def _admitted(self, request: _Request) -> Generator[None]:
        """Around a request that its client may make now.

        Raises:
            ApiError: When it may not use the model, or has too many requests in flight.
        """
        client, most = request.client, request.client.max_in_flight
        if not client.may_use(request.name):
            raise not_allowed(client, request.name)
        if most is not None and self._in_flight[client.name] >= most:
            raise ApiError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"The key {client.name!r} may have {most} requests in flight, and has them.",
                code="rate_limit_exceeded",
                retry_after_s=1,
            )
        self._in_flight[client.name] += 1
        try:
            yield
        finally:
            self._in_flight[client.name] -= 1

    def _note(self, request: _Request, usage: Usage, problem: str) -> None:
        """Count a request that has ended, in the metrics, the ledger and the log."""
        outbox, now = request.outbox, time.monotonic()
        row = RequestRow(
            at=time.time() - (now - request.began),
            key=request.client.name,
            program=request.program,
            model=self._model_of(request),
            tier=request.shown_tier,
            protocol=request.path.removeprefix("/v1/").removeprefix("/"),
            status=_status_of(problem, outbox.status),
            seconds=now - request.began,
            queue_s=request.queued_s,
            ttft_s=None if outbox.first_at is None else outbox.first_at - request.began,
            generation_tps=_speed(usage.completion_tokens, outbox, now),
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            fallback_from=request.name if request.answered_by not in ("", request.name) else "",
            received_bytes=len(request.body),
            sent_bytes=outbox.sent_bytes,
            was_alone=request.was_alone,
        )
        row = self._explained(request, row)
        self._finished += 1
        self._metrics.finished(row, problem)
        if row.generation_tps is not None:
            self._speeds[row.tier] = row.generation_tps
        if self._options.ledger is not None:
            is_stream = outbox.first_at is not None and outbox.streams
            self._options.ledger.note(row if is_stream else replace(row, ttft_s=None))
        _log.info(
            "%s %s: %s in %.2f s%s%s",
            request.path,
            row.tier,
            problem or "done",
            row.seconds,
            "" if usage.prompt_tokens is None else f", {usage.prompt_tokens} tokens read",
            "" if usage.completion_tokens is None else f", {usage.completion_tokens} written",
        )

    def _explained(self, request: _Request, row: RequestRow) -> RequestRow:
        """The row with what was read again, and why; the log says it, too."""
        was_read = row.status == HTTPStatus.OK or row.ttft_s is not None
        is_turn = request.path in _CONVERSATIONS and "previous_response_id" not in request.fields
        tier = request.answered_by or request.name
        model = self._settings.models.get(tier)
        is_here = model is not None and not self._settings.is_cloud(model.upstreams[0].root)
        prompt = self._prompt_of(request) if was_read and is_turn and is_here else None
        if prompt is None:
            return row
        whose = (tier, row.key, row.program)
        found = self._conversations.compare(whose, prompt, row.prompt_tokens)
        reading_s = None
        if row.ttft_s is not None and request.outbox.streams:
            reading_s = max(row.ttft_s - row.queue_s, 0.0)
        again = reread(
            found,
            prompt_tokens=row.prompt_tokens,
            cached_tokens=row.cached_tokens,
            reading_s=reading_s,
        )
        if again.tokens:
            words = in_words(again.prefix, again.place, row.program)
            _log.info(
                "%s: %s: %d of %d tokens had been read before",
                row.tier, words, again.tokens, row.prompt_tokens,
            )  # fmt: skip
        return replace(
            row,
            prefix=again.prefix.value,
            prefix_place=again.place,
            reread_tokens=again.tokens,
            reread_s=again.seconds,
        )

    def _prompt_of(self, request: _Request) -> Prompt | None:
        """The parts of the request's prompt, read once; None for what is no conversation."""
        if not request.is_prompt_read:
            request.is_prompt_read = True
            if request.path in _CONVERSATIONS:
                request.prompt = self._conversations.read(request.fields)
        return request.prompt

    def _reading(self, request: _Request, option: RouteOption) -> _Reading | None:
        """The prompt for the choice among the model's upstreams; None where there is none."""
        if len(option.model.upstreams) == 1:
            return None
        return _Reading(
            option.name, self._prompt_of(request), request.fields.size_bytes, self._read
        )

    def _model_of(self, request: _Request) -> str:
        """What the engine that answered, or would have, calls its model; `standard@studio` there.

        Only the other machine knows which model it has for that name.
        """
        if request.upstream is not None and request.upstream.node is not None:
            return request.shown_tier
        tier = request.answered_by or request.name
        model = self._settings.models.get(tier)
        return tier if model is None else model.upstreams[0].model

    async def _try_models(self, request: _Request) -> Usage:
        """Send the request to its model, and on to others while none of an answer has gone out.

        Raises:
            ApiError: When it is at fault, or no model answered.
        """
        failures: list[str] = []
        retries_s: list[int] = []
        overflow: ApiError | None = None
        at_rest = self._options.activator.is_at_rest
        options = candidates(self._settings, request.name, at_rest)
        # who sent it here has others to go on to, and knows which is next
        for option in options[:1] if request.is_forwarded else options:
            if not request.client.may_use(option.name):
                continue
            if overflow is not None and not option.model.takes_overflow:
                continue
            try:
                return await self._try_upstreams(request, option)
            except UpstreamFailedError as error:
                failures.append(f"{option.name}: {error.reason}")
                if error.retry_after_s is not None:
                    retries_s.append(error.retry_after_s)
            except ApiError as error:
                if error.tokens is None:
                    raise
                overflow = overflow or error
        if overflow is not None and not failures:
            raise overflow
        raise ApiError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"No model could answer. {'; '.join(failures)}.",
            retry_after_s=min(retries_s, default=None),
        )

    async def _try_upstreams(self, request: _Request, option: RouteOption) -> Usage:
        """Send the request to the model's upstreams, one after the other, until one answers.

        Raises:
            ApiError: When it is at fault, or the answer broke off.
            UpstreamFailedError: When none gave a usable answer.
        """
        nodes = {each.root for each in option.model.upstreams if each.node is not None}
        failed: set[str] = set(nodes) if request.is_forwarded else set()
        is_awaited = False
        while True:
            tried = len(failed)
            try:
                return await self._attempt(request, option, failed)
            except UpstreamFailedError as error:
                _log.warning("%s: %s: %s", request.path, request.shown_tier, error.what)
                if request.upstream is not None and len(failed) > tried:
                    self._note_failure(option.name, request.upstream, error)
                if request.outbox.first_at is not None:
                    raise ApiError(
                        HTTPStatus.BAD_GATEWAY, f"The answer was cut off: {error.reason}."
                    ) from error
                if len(failed) in (tried, len(option.model.upstreams)):
                    if request.is_forwarded or is_awaited:
                        raise
                    awake = await self._awakened(nodes)
                    if awake is None:
                        raise
                    is_awaited = True
                    failed.discard(awake)

    def _note_failure(self, model: str, upstream: Upstream, error: UpstreamFailedError) -> None:
        """Let a node that failed get nothing until it answers, or for a while if it is there."""
        if upstream.node is None:
            return
        if error.has_answered:
            self._read.forget((model, upstream.root))
            if model in self._lines:
                self._lines[model].rest(upstream)
        else:
            self._engines.at(upstream.root).lose()

    async def _awakened(self, nodes: Collection[str]) -> str | None:
        """A node that could be woken and answers now; None where none does in time."""
        asleep = [
            root for root in nodes if not self._engines.is_up(root) and self._options.wake(root)
        ]
        until = time.monotonic() + (_AWAKE_WITHIN_S if asleep else 0.0)
        while time.monotonic() < until:
            awake = next((root for root in asleep if self._engines.is_up(root)), None)
            if awake is not None:
                return awake
            await asyncio.sleep(_LOOK_AGAIN_S)
        return None

    async def _attempt(self, request: _Request, option: RouteOption, failed: set[str]) -> Usage:
        """One upstream of one model, none of those that have `failed`, where it is noted first.

        Raises:
            ApiError: When the request is at fault, or the model's line is full.
            UpstreamFailedError: When the upstream gave no usable answer.
        """
        call = self._call(request, option)
        if call.unloads:
            await self._options.activator.unload(option.name)
            return await self._answer_ready(request, option, call)
        waited_from = time.monotonic()
        request.phase = RequestPhase.STARTING
        await self._make_ready(request, option, failed)
        request.phase = RequestPhase.QUEUED
        try:
            if call.ready_answer:
                return await self._answer_ready(request, option, call)
            await self._refuse_too_long(request, option, call)
            if call.parts:
                usage = await self._ask_in_parts(request, option, call, failed, waited_from)
            else:
                async with self._turn(request, option, failed, waited_from) as upstream:
                    attempt = self._prepare(request, option, upstream, call)
                    usage = await attempt.run(request.outbox)
        finally:
            self._options.activator.finished(option.name, call.keep_s)
        if option.name != request.name:
            self._metrics.fell_back(request.name, option.name)
        return usage

    async def _make_ready(self, request: _Request, option: RouteOption, failed: set[str]) -> None:
        """Return once the model can be asked; its own engine is out if only others can.

        Raises:
            ApiError: As of the activator, and UpstreamFailedError.
        """
        own = {each.root for each in option.model.upstreams if each.node is None}
        others = {each.root for each in option.model.upstreams} - own - failed
        if own <= failed:
            return
        try:
            await self._options.activator.ready(option.name, request.client.priority)
        except UpstreamFailedError as error:
            if not any(self._engines.is_up(root) for root in others):
                raise
            _log.warning("%s: %s: %s", request.path, option.name, error.what)
            failed |= own

    async def _answer_ready(self, request: _Request, option: RouteOption, call: Call) -> Usage:
        """Answer a request for which no engine has to do anything."""
        self._say_who(request, option)
        await request.outbox.whole(HTTPStatus.OK, call.ready_answer, _JSON.encode())
        return Usage()

    async def _ask_in_parts(
        self,
        request: _Request,
        option: RouteOption,
        call: Call,
        failed: set[str],
        waited_from: float,
    ) -> Usage:
        """Ask for the parts of a call, one turn each, and answer with all of them together.

        Raises:
            ApiError: When the request is at fault, or the model's line is full.
            UpstreamFailedError: When an upstream gave no usable answer.
        """
        bodies: list[bytes] = []
        for part in call.parts:
            async with self._turn(request, option, failed, waited_from) as upstream:
                attempt = self._prepare(request, option, upstream, replace(call, fields=part))
                bodies.append(await attempt.fetch())
            failed.discard(upstream.root)
            waited_from = time.monotonic()
        answer, usage = request.api.joined(bodies, call)
        await request.outbox.whole(HTTPStatus.OK, answer, _JSON.encode())
        return usage

    @asynccontextmanager
    async def _turn(
        self, request: _Request, option: RouteOption, failed: set[str], waited_from: float
    ) -> AsyncGenerator[Upstream]:
        """Around one request to an upstream, which is noted in `failed` first.

        Raises:
            ApiError: When the model's line is full.
            UpstreamFailedError: When the model is gone.
        """
        line = self._lines.get(option.name)
        if line is None:
            raise UpstreamFailedError("it is not served any more")
        reading = self._reading(request, option)
        turn = await line.take(frozenset(failed), request.client.priority, reading)
        request.upstream = upstream = turn.upstream
        failed.add(upstream.root)
        began = time.monotonic()
        request.queued_s += began - waited_from
        is_alone = line.running_at(upstream.root) == 1
        try:
            self._say_who(request, option)
            request.phase = RequestPhase.READING
            yield upstream
        finally:
            request.was_alone = is_alone and line.running_at(upstream.root) == 1
            line.release(turn, time.monotonic() - began)

    def _call(self, request: _Request, option: RouteOption, *, at_node: bool = False) -> Call:
        """What the model is asked; a node's gateway speaks every API, whatever its engine does.

        Raises:
            ApiError: When the request is at fault.
        """
        if self._settings.is_cloud(option.model.upstreams[0].root):
            return request.api.as_sent(request.asked)
        if Role.CHAT in request.api.roles:
            require_media(
                request.fields,
                allows_remote=self._settings.remote_images,
                allowed_by=self._options.remote_images_by,
            )
        call = request.api.read(request.fields, sees_images=option.model.sees_images)
        request.api.require(request.fields, option.model)
        if option.model.chat_only and not at_node:
            sees = option.model.sees_images
            call = request.api.by_chat(call, request.fields, sees_images=sees)
        return call

    async def _refuse_too_long(self, request: _Request, option: RouteOption, call: Call) -> None:
        """Return if the model takes a prompt of this length, or nobody knows.

        Raises:
            ApiError: When it does not.
        """
        limit = option.model.context_tokens
        if limit is not None and call.longest_text:
            refuse_far_too_long(option.name, call.longest_text, limit)
            return
        if limit is None or not needs_count(option.model, request.fields.size_bytes):
            return
        if request.api is _COUNTING or request.file is not None:
            return
        tokens = await self._length(request, option.model.upstreams[0], call, limit)
        if tokens is not None and tokens >= limit:
            raise too_long(option.name, tokens, limit)

    async def _length(
        self, request: _Request, upstream: Upstream, call: Call, limit: int
    ) -> int | None:
        """How many tokens the prompt has; about, if its beginning alone is longer than `limit`.

        An engine takes seconds to count megabytes, and answers nobody meanwhile.
        """
        text = prompt_text(call.fields)
        begin = text[: limit * _CHARACTERS_PER_TOKEN]
        if len(begin) < len(text):
            tokens = await self._count(upstream, countable(begin))
            if tokens is None or tokens >= limit:
                return tokens and tokens * len(text) // len(begin)
        return await self._count(upstream, request.api.counted(call))

    async def _count(self, upstream: Upstream, counted: dict[str, Any]) -> int | None:
        """The tokens of what is `counted`, as the upstream counts; None if it can't."""
        if not self._engines.is_up(upstream.root):
            return None
        engine = self._engines.at(upstream.root)
        try:
            async with (
                asyncio.timeout(_COUNT_WITHIN_S),
                engine.request(
                    "POST",
                    "/v1/messages/count_tokens",
                    {"content-type": _JSON},
                    msgspec.json.encode({**counted, "model": upstream.model}),
                ) as answer,
            ):
                said: object = msgspec.json.decode(await answer.read(LONGEST_ANSWER_BYTES))
        except (TimeoutError, UpstreamFailedError, msgspec.DecodeError, UnicodeDecodeError):
            return None
        tokens = object_in(said).get("input_tokens")
        return tokens if isinstance(tokens, int) else None

    def _prepare(
        self, request: _Request, option: RouteOption, upstream: Upstream, call: Call
    ) -> Attempt:
        if upstream.node is not None and option.model.chat_only:
            call = self._call(request, option, at_node=True)
        named, kind = call.fields.with_values(model=upstream.model), _JSON
        if request.file is None:
            body = named.encode()
        else:
            kind, body = encode_form(named.decoded(), request.file)
        return Attempt(
            engine=self._engines.at(upstream.root),
            path=call.path or request.path,
            headers={"content-type": kind},
            body=body,
            api=request.api,
            call=call,
            count=None
            if self._settings.is_cloud(upstream.root)
            else lambda counted: self._count(upstream, counted),
            # a node's gateway answers questions while its engine reads in silence
            silence_s=option.model.silence_s if upstream.node is None else None,
        )

    def _say_who(self, request: _Request, option: RouteOption) -> None:
        """Name the model that answers, in the answer's headers."""
        request.answered_by = option.name
        is_cloud = self._settings.is_cloud(option.model.upstreams[0].root)
        named = {
            "tier": _CLOUD if is_cloud else request.shown_tier,
            "queue-ms": str(round(request.queued_s * 1000)),
        }
        if option.name != request.name:
            named["fallback-from"] = request.name
        request.outbox.headers = [
            (f"{self._options.header_prefix}-{name}".encode(), value.encode("ascii", "replace"))
            for name, value in named.items()
        ]


def _read(api: Api, body: bytes, content_type: str) -> tuple[Fields, memoryview | None]:
    """The fields of a request, and its file where the API takes one.

    Raises:
        ApiError: When it doesn't come as the API takes it.
    """
    if not api.takes_form:
        if is_form(content_type):
            raise invalid("The request's body must be a JSON object, not a form.")
        return read_fields(body), None
    if not is_form(content_type):
        raise invalid("A sound is sent as a multipart form, with the fields `file` and `model`.")
    form = read_form(body, content_type)
    if not form.file:
        raise invalid("`file` is missing or empty.", param="file")
    return form.fields, form.file


def _in_flight(number: int, request: _Request, now: float) -> InFlight:
    outbox = request.outbox
    first_at = outbox.first_at
    return InFlight(
        id=number,
        key=request.client.name,
        program=request.program,
        model=request.name,
        tier=request.shown_tier,
        protocol=request.path.removeprefix("/v1/"),
        phase=request.phase if first_at is None else RequestPhase.WRITING,
        seconds=now - request.began,
        queue_s=request.queued_s,
        ttft_s=None if first_at is None else first_at - request.began,
        writing_s=None if first_at is None else now - first_at,
        received_bytes=len(request.body),
        sent_bytes=outbox.sent_bytes,
        events=outbox.events,
    )


def _api_of(path: str, headers: Mapping[bytes, bytes]) -> Api:
    """The API in whose shape a request at `path` is answered."""
    other = _ANTHROPIC if b"anthropic-version" in headers else _OPENAI
    if path.startswith("/api/"):
        return _APIS.get(path, _OLLAMA)
    return _ANTHROPIC if path.startswith("/v1/messages") else _APIS.get(path, other)


def _versioned(path: str) -> str:
    """`/models` → `/v1/models`: clients whose base URL lacks `/v1` mean the same."""
    path = path.rstrip("/") or "/"
    versioned = f"/v1{path}"
    return versioned if versioned in _APIS or versioned.startswith(_MODELS) else path


def _status_of(problem: str, sent: int | None) -> int:
    """The status under which a request is noted."""
    if problem.isdecimal():
        return int(problem)
    if problem:
        return CLIENT_LEFT if problem == "client_left" else HTTPStatus.BAD_GATEWAY
    return sent or HTTPStatus.OK


def _speed(tokens: int | None, outbox: Outbox, now: float) -> float | None:
    """Tokens a second after the first; None where the answer was no stream, or too short."""
    if tokens is None or tokens < 2 or outbox.first_at is None or not outbox.streams:
        return None
    seconds = now - outbox.first_at
    return (tokens - 1) / seconds if seconds > 0 else None


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
