"""The page as an ASGI application, mounted in the gateway below `/ui`."""

import asyncio
import hashlib
import ipaddress
import mimetypes
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qsl, unquote

import msgspec

from mlx_gateway import Gateway, KeyRing
from mlx_gateway.keys import ADMIN
from mlx_gateway.outbox import Receive, Scope, Send
from mlx_stack import __version__
from mlx_stack.error_table import translate
from mlx_stack.gateway.endpoint import is_exposed
from mlx_stack.home import Home
from mlx_stack.page import session as sessions
from mlx_stack.page.actions import Actions
from mlx_stack.page.answer import (
    PATH,
    SECURITY,
    Header,
    RefusedError,
    answer,
    encode,
    error_of,
    status_of,
)
from mlx_stack.page.documents import Documents
from mlx_stack.page.feed import Feed
from mlx_stack.page.folder import HomeFiles
from mlx_stack.page.link import spend_token
from mlx_stack.page.session import PageSession

_API = f"{PATH}/api/"
_FILES = Path(__file__).parent / "static"
_LONGEST_BODY_BYTES = 64 * 1024
_MODELS = frozenset(
    {
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/rerank",
        "/v1/audio/transcriptions",
        "/v1/audio/speech",
    }
)
"""What the page may ask models for."""
_STREAM = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)

type Values = dict[str, str]


class Page:
    """Answers everything below `/ui`.

    Args:
        key: The admin's.
        keys: Everyone's.
        gateway: In which it is mounted; asked when it is needed.
    """

    def __init__(self, home: Home, key: str, keys: KeyRing, gateway: Callable[[], Gateway]) -> None:
        self._home = home
        self._key = key
        self._keys = keys
        self._gateway = gateway
        self._folder = HomeFiles(home)
        self._actions = Actions(home)
        self._acting = asyncio.Lock()
        self._documents = Documents(self._folder)
        self._feed = Feed(self._folder, gateway, self._actions)

    def end(self) -> None:
        """End every stream of events."""
        self._feed.end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        is_open = False
        try:
            self._check_way(scope)
            path, method = scope["path"], scope["method"]
            if not path.startswith(_API):
                await _send_file(path, method, headers, send)
                return
            parts = tuple(unquote(part) for part in path.removeprefix(_API).split("/"))
            if method == "GET" and parts == ("events",):
                self._session(headers)
                is_open = True
                await self._stream(receive, send)
                return
            asked = path.removeprefix(_API.removesuffix("/"))
            if method == "POST" and asked in _MODELS:
                await self._ask_model(asked, scope, headers, receive, send)
                return
            query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1")))
            body, more = await self._answer(method, parts, query, headers, receive)
            not_changed = (b"etag", headers.get(b"if-none-match", b"-")) in more
            status = HTTPStatus.NOT_MODIFIED if not_changed else HTTPStatus.OK
            no_store = (b"cache-control", b"no-store")
            await answer(send, status, b"" if not_changed else body, headers=(no_store, *more))
        except Exception as error:
            problem = translate(error)
            if problem is None or is_open:
                raise
            await answer(send, status_of(problem), encode(error_of(problem)))

    def _check_way(self, scope: Scope) -> None:
        """Return if the page may be shown at all, and to this side.

        Raises:
            RefusedError: When it is switched off, or the browser is elsewhere and there is no TLS.
        """
        config = self._folder.config()
        if not config.dashboard:
            raise RefusedError(
                HTTPStatus.NOT_FOUND,
                "The page is switched off.",
                hint="`mlx-stack config set dashboard true` shows it.",
            )
        host = self._gateway().settings.host
        # the door for other Macs is not one for browsers, though it has TLS
        is_open = is_exposed(host) or scope.get("scheme") == "https"
        if is_open and not config.dashboard_on_lan and not _is_from_here(scope):
            raise RefusedError(
                HTTPStatus.FORBIDDEN,
                "Without TLS, the page is shown on this machine only.",
                hint="Put TLS in front of the gateway, on this machine; or allow it without: "
                "`mlx-stack config set dashboard-on-lan true`.",
            )

    def _session(self, headers: Mapping[bytes, bytes]) -> PageSession:
        """Who looks.

        Raises:
            RefusedError: When nobody knows.
        """
        name = sessions.cookie_name(self._gateway().settings.port)
        found = sessions.read_session(headers, name, self._key, self._keys.named, time.time())
        if found is None:
            raise RefusedError(
                HTTPStatus.UNAUTHORIZED,
                "The page needs a key.",
                hint="`mlx-stack dashboard` opens it without; `mlx-stack env` prints the key.",
            )
        return found

    def _may_change(self, headers: Mapping[bytes, bytes]) -> PageSession:
        """Who may change something.

        Raises:
            RefusedError: When it is not the admin, or another page has sent this.
        """
        found = self._session(headers)
        _check_origin(headers)
        if not found.is_admin:
            raise RefusedError(
                HTTPStatus.FORBIDDEN,
                f"The key of {found.client.name} can see everything but not change anything.",
            )
        return found

    async def _answer(
        self,
        method: str,
        parts: tuple[str, ...],
        query: Values,
        headers: Mapping[bytes, bytes],
        receive: Receive,
    ) -> tuple[bytes, list[Header]]:
        """The answer to a request, and its headers."""
        match method, parts:
            case "POST", ("session",):
                return await self._sign_in(headers, await _read_values(receive, headers))
            case "DELETE", ("session",):
                _check_origin(headers)
                name = sessions.cookie_name(self._gateway().settings.port)
                gone = sessions.set_cookie(
                    name, "", lasts_s=0, is_secure=sessions.is_secure(headers)
                )
                return encode({}), [(b"set-cookie", gone)]
            case "GET", ("session",):
                return encode(self._session_document(self._session(headers))), []
            case "GET", ("actions",):
                self._session(headers)
                async with self._acting:
                    found = await asyncio.to_thread(self._actions.all)
                return encode({"actions": [each.to_document() for each in found]}), []
            case "GET", _:
                self._session(headers)
                return await self._documents.read(parts, query)
            case (("POST" | "DELETE"), _):
                self._may_change(headers)
                values = await _read_values(receive, headers)
                return encode(await self._change(method, parts, values)), []
            case _:
                raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, f"{method} isn't supported here.")

    async def _change(
        self, method: str, parts: tuple[str, ...], values: Values
    ) -> Mapping[str, object]:
        """Change something, for the admin."""
        match method, parts:
            case "POST", ("actions",):
                do = values.pop("do", "")
                async with self._acting:
                    action = await asyncio.to_thread(self._actions.start, do, values)
            case "DELETE", ("actions", number):
                async with self._acting:
                    action = await asyncio.to_thread(self._actions.cancel, number)
            case "POST", ("keys",):
                return await self._documents.add_key(values)
            case "DELETE", ("keys", name):
                return await self._documents.revoke_key(name)
            case _:
                raise RefusedError(HTTPStatus.NOT_FOUND, "There is nothing with that name.")
        self._feed.look_soon()
        return action.to_document()

    async def _sign_in(
        self, headers: Mapping[bytes, bytes], values: Values
    ) -> tuple[bytes, list[Header]]:
        """A session for a token that is good, or a key.

        Raises:
            RefusedError: When it is neither, or another page has sent this.
        """
        _check_origin(headers)
        client = None
        if "token" in values:
            if await asyncio.to_thread(spend_token, self._home, values["token"]):
                client = ADMIN
        elif "key" in values:
            client = self._keys.holder({b"x-api-key": values["key"].strip().encode()})
        if client is None:
            what = (
                "link was used, or is older than two minutes"
                if "token" in values
                else "key is wrong"
            )
            raise RefusedError(
                HTTPStatus.UNAUTHORIZED,
                f"The {what}.",
                hint="`mlx-stack dashboard` makes another link.",
            )
        made = PageSession(client, int(time.time()) + sessions.LASTS_S)
        cookie = sessions.set_cookie(
            sessions.cookie_name(self._gateway().settings.port),
            sessions.sign(made, self._key),
            lasts_s=sessions.LASTS_S,
            is_secure=sessions.is_secure(headers),
        )
        return encode(self._session_document(made)), [(b"set-cookie", cookie)]

    def _session_document(self, session: PageSession) -> dict[str, object]:
        return {
            "client": session.client.name,
            "is_admin": session.is_admin,
            "until": session.until,
            "version": __version__,
        }

    async def _stream(self, receive: Receive, send: Send) -> None:
        """Tell what happens until the page is closed, or the gateway is to stop."""
        subscriber = self._feed.subscribe()
        head = [*_STREAM, *SECURITY]

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            subscriber.end()

        watching = asyncio.create_task(watch())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": head})
            async for piece in subscriber.messages():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            watching.cancel()
            self._feed.unsubscribe(subscriber)

    async def _ask_model(
        self, path: str, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        """Pass a question on to a model, as the client that looks at the page."""
        looks = self._session(headers)
        _check_origin(headers)
        dropped = (b"cookie", b"authorization", b"x-api-key", b"user-agent")
        kept = [(name, value) for name, value in scope["headers"] if name not in dropped]
        named = {
            **scope,
            "path": path,
            "raw_path": path.encode(),
            "headers": [*kept, (b"user-agent", b"mlx-stack-page")],
        }
        await self._gateway().serve_as(looks.client, named, receive, send)


def _check_origin(headers: Mapping[bytes, bytes]) -> None:
    """Return if this very page has sent the request.

    Raises:
        RefusedError: When another may have.
    """
    if not sessions.is_own_origin(headers):
        raise RefusedError(HTTPStatus.FORBIDDEN, "Only the page itself may send this request.")


def _is_from_here(scope: Scope) -> bool:
    """Whether the other end of the connection is on this machine."""
    client, server = scope.get("client") or ("", 0), scope.get("server") or ("", 0)
    with suppress(ValueError):
        return ipaddress.ip_address(client[0]).is_loopback or client[0] == server[0]
    return False


async def _read_values(receive: Receive, headers: Mapping[bytes, bytes]) -> Values:
    """The words in a request's body.

    Raises:
        RefusedError: When it is something else, or long.
    """
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > _LONGEST_BODY_BYTES:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "That is too long.")
        if not message.get("more_body"):
            break
    if not body:
        return {}
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip()
    try:
        if kind == b"application/json":
            return msgspec.json.decode(body, type=dict[str, str])
    except (ValueError, RecursionError):
        pass
    raise RefusedError(HTTPStatus.BAD_REQUEST, "An object of strings is expected, as JSON.")


async def _send_file(path: str, method: str, headers: Mapping[bytes, bytes], send: Send) -> None:
    """Send one of the page's files, which hold no secret.

    Raises:
        RefusedError: When there is none of that name.
    """
    if method not in ("GET", "HEAD"):
        raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, f"{method} isn't supported here.")
    if path == PATH:
        location = ((b"location", f"{PATH}/".encode()),)
        await answer(send, HTTPStatus.PERMANENT_REDIRECT, headers=location)
        return
    name = path.removeprefix(f"{PATH}/") or "index.html"
    found = _files().get(name)
    if found is None:
        raise RefusedError(HTTPStatus.NOT_FOUND, "There is no such page.")
    body, kind, tag = found
    more = ((b"etag", tag), (b"cache-control", b"no-cache"))
    if headers.get(b"if-none-match") == tag:
        await answer(send, HTTPStatus.NOT_MODIFIED, content_type=kind, headers=more)
        return
    await answer(
        send, HTTPStatus.OK, b"" if method == "HEAD" else body, content_type=kind, headers=more
    )


@cache
def _files() -> dict[str, tuple[bytes, str, bytes]]:
    """The page's files: content, type, and what tells versions apart."""
    found: dict[str, tuple[bytes, str, bytes]] = {}
    for path in sorted(_FILES.iterdir()):
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if path.suffix == ".js":
            kind = "text/javascript"
        body = path.read_bytes()
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'.encode()
        is_text = kind.startswith("text/") or kind == "image/svg+xml"
        found[path.name] = (body, f"{kind}; charset=utf-8" if is_text else kind, tag)
    return found
