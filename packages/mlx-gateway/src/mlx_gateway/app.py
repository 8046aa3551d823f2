"""The gateway as an ASGI application: the door, what it shows, and one answer a request.

(decision 0003)
"""

import asyncio
import time
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import count

import msgspec

from mlx_gateway.errors import ApiError, ClientLeftError
from mlx_gateway.fields import Fields, invalid, read_fields
from mlx_gateway.form import is_form, read_form
from mlx_gateway.in_flight import InFlight, Line, Reading, RequestPhase
from mlx_gateway.keys import ADMIN, ClientKey, KeyRing
from mlx_gateway.ledger import program_of
from mlx_gateway.metrics import CONTENT_TYPE, Metrics
from mlx_gateway.model_list import (
    model_list,
    model_row,
    not_allowed,
    ollama_details,
    ollama_running,
    ollama_tags,
)
from mlx_gateway.model_request import ModelRequest
from mlx_gateway.options import GatewayOptions
from mlx_gateway.outbox import Outbox, Receive, Scope, Send
from mlx_gateway.paths import (
    APIS,
    LIVENESS,
    MODELS,
    OLLAMA_SHOW,
    SHOWN,
    STATUS,
    api_of,
    versioned,
)
from mlx_gateway.prompts.stable_head import with_stable_head
from mlx_gateway.protocols.api import Api
from mlx_gateway.protocols.events import Usage
from mlx_gateway.protocols.ollama import API_VERSION
from mlx_gateway.reading import pair, read_rows
from mlx_gateway.request_body import read_body
from mlx_gateway.request_notes import RequestNotes
from mlx_gateway.routing import require_role
from mlx_gateway.sending import Sender
from mlx_gateway.served_models import ServedModels
from mlx_gateway.settings import GatewaySettings

_JSON = "application/json"


class Gateway:
    """The application; every method runs in one event loop."""

    def __init__(self, settings: GatewaySettings, options: GatewayOptions) -> None:
        self._options = options
        self._version = options.version
        self._metrics = Metrics()
        self._models = ServedModels(settings, options)
        self._notes = RequestNotes(self._models, self._metrics, options.ledger)
        self._sender = Sender(self._models, options, self._metrics)
        self._in_flight: Counter[str] = Counter()
        self._requests: dict[int, ModelRequest] = {}
        self._numbers = count(1)

    @property
    def settings(self) -> GatewaySettings:
        """The settings in force."""
        return self._models.settings

    @property
    def finished(self) -> int:
        """How many requests for a model have ended since the start."""
        return self._notes.finished

    def reload(self, settings: GatewaySettings, *, version: str = "") -> None:
        """Go on with other settings. Requests in flight end as they began."""
        self._version = version
        self._models.reload(settings)

    def requests(self) -> tuple[InFlight, ...]:
        """The requests for a model that are on their way now, the oldest first."""
        now = time.monotonic()
        return tuple(each.shown(number, now) for number, each in self._requests.items())

    async def readings(self) -> dict[int, Reading]:
        """How far prompts have been read, by the ids of `requests`, where their engine says so."""
        by_root: dict[str, list[int]] = {}
        for number, each in self._requests.items():
            is_read = each.phase is RequestPhase.READING and each.outbox.first_at is None
            upstream = each.upstream
            if is_read and upstream is not None and self._models.settings.is_here(upstream):
                by_root.setdefault(upstream.root, []).append(number)
        bodies = await asyncio.gather(*(self._models.told_by(root, STATUS) for root in by_root))
        found: dict[int, Reading] = {}
        for numbers, body in zip(by_root.values(), bodies, strict=True):
            found |= pair(numbers, read_rows(body or b""))
        return found

    def lines(self) -> dict[str, Line]:
        """For each model, how many requests it works on, and how many wait for it.

        Those on a node have a line of their own, such as `standard@studio`; all wait together.
        """
        return self._models.shown_lines()

    def end_soon(self) -> None:
        """Let every mounted application end what would never end by itself."""
        for mounted in self._options.mounts.values():
            mounted.end()

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
                if self._models.heartbeat is not None:
                    self._models.heartbeat.start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._options.activator.end()
                self._models.engines.close()
                if self._models.heartbeat is not None:
                    await self._models.heartbeat.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        path = versioned(scope["path"])
        try:
            self._check_host(scope)
            mounted = self._options.mounts.get("/" + path[1:].partition("/")[0])
            if mounted is not None:
                await mounted(scope, receive, send)
                return
            client = self._check_door(scope, headers, path)
            if client is not None and self._options.ledger is not None:
                self._options.ledger.note_key(client.name)
            if path in APIS:
                await self._serve(client or ADMIN, headers, path, receive, send)
            else:
                await self._show(client or ADMIN, headers, path, receive, send)
        except ClientLeftError:
            pass
        except ApiError as error:
            await Outbox(send, api_of(path, headers)).fail(error)

    async def serve_as(self, client: ClientKey, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for a model that a mounted application has let in for `client`."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        path = versioned(scope["path"])
        try:
            await self._serve(client, headers, path, receive, send)
        except ClientLeftError:
            pass
        except ApiError as error:
            await Outbox(send, api_of(path, headers)).fail(error)

    def _check_host(self, scope: Scope) -> None:
        """Return if the request names this machine, and no other besides.

        Raises:
            ApiError: When it doesn't.
        """
        server = scope.get("server") or (None, None)
        named = [value for name, value in scope["headers"] if name == b"host"] or [None]
        if not all(self._options.hosts.allow(each, server[0]) for each in named):
            raise ApiError(
                HTTPStatus.FORBIDDEN,
                "This gateway doesn't accept that host name. Use localhost.",
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
        if path in LIVENESS or (path == "/" and method in ("GET", "HEAD")):
            return None
        client = self._options.keys.holder(headers)
        if client is None:
            what = "wrong" if KeyRing.is_given(headers) else "missing"
            raise ApiError(HTTPStatus.UNAUTHORIZED, f"The API key is {what}.")
        is_asked = path in APIS or path == OLLAMA_SHOW
        is_list = path == MODELS or path.startswith(f"{MODELS}/")
        if not is_asked and path not in SHOWN and not is_list:
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
        outbox = Outbox(send, api_of(path, headers))
        if path == "/metrics":
            await outbox.whole(HTTPStatus.OK, await self._render_metrics(), CONTENT_TYPE.encode())
            return
        document: dict[str, object] = {"service": "mlx-gateway"}
        if path.startswith(MODELS) or path in (OLLAMA_SHOW, "/api/tags"):
            await self._models.look()
        if path in LIVENESS:
            name, version = f"{self._options.header_prefix}-config", self._version
            outbox.headers = [(name.encode(), version.encode())]
            document = {"status": "alive"}
        elif path.startswith(MODELS):
            name, is_anthropics = path[len(MODELS) + 1 :], b"anthropic-version" in headers
            settings, loaded = self._models.settings, await self._loaded()
            document = (
                model_row(settings, name, client, loaded, is_anthropics=is_anthropics)
                if name
                else model_list(settings, client, loaded, is_anthropics=is_anthropics)
            )
        elif path == OLLAMA_SHOW:
            fields = read_fields(await read_body(receive, headers))
            name = fields.text("model") or fields.text("name") or ""
            document = ollama_details(self._models.settings, name, client)
        elif path == "/api/tags":
            document = ollama_tags(self._models.settings, client)
        elif path == "/api/ps":
            ready = await self._models.engines.ready_models(self._models.settings)
            now, presence = datetime.now(UTC), self._options.activator.presence
            document = ollama_running(self._models.settings, client, ready, presence, now)
        elif path == STATUS:
            document = self._status(client)
        elif path == "/api/version":
            document = {"version": API_VERSION}
        await outbox.whole(HTTPStatus.OK, msgspec.json.encode(document), _JSON.encode())

    async def _loaded(self) -> set[str]:
        """The models that can be asked now; those in the cloud where what leads there runs."""
        settings, is_at_rest = self._models.settings, self._options.activator.is_at_rest
        ready = set(await self._models.engines.ready_models(settings))
        return {
            name
            for name, model in settings.models.items()
            if any(
                not is_at_rest(name) if settings.is_cloud(each.root) else each.shown(name) in ready
                for each in model.upstreams
            )
        }

    def _status(self, client: ClientKey) -> dict[str, object]:
        """What every model does that the client may use."""
        rows: list[dict[str, object]] = []
        for name, line in self._models.lines.items():
            if client.may_use(name):
                presence = self._options.activator.presence(name)
                lines = self.lines()
                row: dict[str, object] = {
                    "name": name,
                    "requests_running": lines[name].running,
                    "requests_waiting": line.waiting,
                    "generation_tps": self._notes.speeds.get(name),
                }
                rows.append(row | (asdict(presence) if presence is not None else {}))
                for each in line.upstreams:
                    if each.node is not None:
                        shown = each.shown(name)
                        row = {
                            "name": shown,
                            "requests_running": lines[shown].running,
                            "requests_waiting": 0,
                            "generation_tps": self._notes.speeds.get(shown),
                            "node": each.node,
                            "is_up": self._models.engines.is_up(each.root),
                        }
                        rows.append(row)
        return {"models": rows}

    async def _render_metrics(self) -> bytes:
        texts = await asyncio.gather(
            *(self._metrics_of(name, root) for name, root in self._models.own_engines())
        )
        engines = [text for text in texts if text is not None]
        return self._metrics.render(self.lines(), engines, self._options.ledger)

    async def _metrics_of(self, name: str, root: str) -> tuple[str, str, str] | None:
        body = await self._models.told_by(root, "/metrics")
        try:
            return None if body is None else (name, root, body.decode())
        except UnicodeDecodeError:
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
        api = APIS[path]
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
        name = await self._models.resolve(asked)
        require_role(self._models.settings, name, api.roles)
        is_stable = self._models.settings.stable_prompts and file is None
        request = ModelRequest(
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
            read_prompt=self._notes.conversations.read,
            is_forwarded=self._models.forwarded.encode() in headers,
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

    async def _work(self, request: ModelRequest) -> None:
        """Answer the request, whatever comes of it, and count it."""
        outbox, usage, problem = request.outbox, Usage(), ""
        number = next(self._numbers)
        self._requests[number] = request
        try:
            with self._admitted(request):
                if not request.is_forwarded:  # whoever sent it here gives its client signs of life
                    outbox.begin_waiting()
                usage = await self._sender.send(request)
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
            self._notes.note(request, usage, problem or outbox.problem)

    @contextmanager
    def _admitted(self, request: ModelRequest) -> Generator[None]:
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
                f"The key {client.name!r} has reached its limit of {most} concurrent requests.",
                code="rate_limit_exceeded",
                retry_after_s=1,
            )
        self._in_flight[client.name] += 1
        try:
            yield
        finally:
            self._in_flight[client.name] -= 1


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
        raise invalid("Send audio as a multipart form with the fields `file` and `model`.")
    form = read_form(body, content_type)
    if not form.file:
        raise invalid("`file` is missing or empty.", param="file")
    return form.fields, form.file


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
