"""One attempt at an upstream: the request goes there, and its answer comes back as bytes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from mlx_gateway.engines import Engine
from mlx_gateway.errors import CLIENT_LEFT, ApiError, UpstreamFailedError
from mlx_gateway.fields import list_in, object_in
from mlx_gateway.liveness import Wait
from mlx_gateway.outbox import Headers, Outbox
from mlx_gateway.protocols.api import Api, Call, countable
from mlx_gateway.protocols.events import EventStream, Usage
from mlx_gateway.upstream_http import Response

LONGEST_ANSWER_BYTES = 64 * 2**20
_LONGEST_REASON = 2000
_PASSED_ON = ("content-type", "content-disposition", "cache-control", "retry-after")
_NOT_THE_CLIENTS = frozenset({401, 403, 407, 408, CLIENT_LEFT})
"""Statuses that speak of the gateway or the upstream itself, rather than of the request."""

type CountPrompt = Callable[[dict[str, Any]], Awaitable[int | None]]
"""Counts the tokens of what an `Api` made `counted`, or `countable`; None after a few seconds."""


@dataclass(slots=True)
class Attempt:
    """What one attempt needs.

    Attributes:
        call: The request as the API understood it.
        count: Counts tokens as the upstream does; None for an upstream that does so itself.
        silence_s: How long the upstream may say nothing; None for the usual.
        is_to_node: Whether the upstream is the gateway of another machine, which knows a model by
            the name that our settings give.
    """

    engine: Engine
    path: str
    headers: dict[str, str]
    body: bytes
    api: Api
    call: Call
    count: CountPrompt | None = None
    silence_s: float | None = None
    is_to_node: bool = False

    async def run(self, outbox: Outbox) -> Usage:
        """Send the request, and its answer to the client.

        Raises:
            UpstreamFailedError: When the upstream gave no answer, or none to its end.
            ApiError: When it said that the request is at fault.
        """
        counting = self._start_counting()
        try:
            stopped, usage = await self._watched(lambda it: self._run(outbox, it, counting))
        finally:
            if counting is not None:
                counting.cancel()
        if stopped is not None:
            await self._end(stopped, outbox)
        return usage

    async def fetch(self) -> bytes:
        """Send the request; the whole answer, from which the client's is made.

        Raises:
            UpstreamFailedError: When the upstream gave no answer, or none to its end.
            ApiError: When it said that the request is at fault.
        """
        return await self._watched(self._fetch)

    async def _fetch(self, waiting: Wait) -> bytes:
        async with self.engine.request("POST", self.path, self.headers, self.body) as response:
            waiting.since = self.engine.heard()
            if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                raise await self._failure(response)
            body = await response.read(LONGEST_ANSWER_BYTES)
            waiting.since = self.engine.heard()
            return body

    async def _watched[T](self, work: Callable[[Wait], Awaitable[T]]) -> T:
        """What `work` gives, unless the upstream hangs meanwhile.

        Raises:
            UpstreamFailedError: When it does.
        """
        now = time.monotonic()
        waiting = Wait(now, now, len(self.body), self.silence_s, bool(self.call.form_param))
        try:
            async with asyncio.timeout(None) as limit:
                with self.engine.watched(limit, waiting):
                    return await work(waiting)
        except TimeoutError as error:
            raise UpstreamFailedError("it stopped answering") from error

    async def _run(
        self, outbox: Outbox, waiting: Wait, counting: "asyncio.Future[int | None] | None"
    ) -> tuple[EventStream | None, Usage]:
        """Relay the answer; the stream, if a stop sequence has ended it, and what was used."""
        async with self.engine.request("POST", self.path, self.headers, self.body) as response:
            waiting.since = self.engine.heard()
            if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                raise await self._failure(response)
            kind = response.headers.get("content-type", "")
            if self.call.streams and kind.startswith("text/event-stream"):
                stream = self.api.stream(await self._counted(counting))
                await self._relay_events(stream, response, outbox, waiting)
                return stream if stream.is_over else None, stream.usage
            if kind.startswith("application/json"):
                body = await response.read(LONGEST_ANSWER_BYTES)
                waiting.since = self.engine.heard()
                answer, usage = self.api.whole(body, self.call)
                await outbox.whole(HTTPStatus.OK, answer, self.api.answer_type(self.call))
                return None, usage
            await outbox.begin_raw(response.status, _passed_on(response))
            async for chunk in response.chunks():
                waiting.since = self.engine.heard()
                await outbox.raw(chunk)
            return None, Usage()

    async def _relay_events(
        self, stream: EventStream, response: Response, outbox: Outbox, waiting: Wait
    ) -> None:
        heard, feed, event = self.engine.heard, stream.feed, outbox.event
        says_its_end = not stream.has_ended
        async for chunk in response.chunks():
            waiting.since = heard()
            events = feed(chunk) if outbox.first_at else await self._first(stream, chunk, outbox)
            if events:
                await event(events)
            if stream.is_over:
                return
            if says_its_end and stream.has_ended and stream.failure is None:
                outbox.delivered = stream.usage
        if stream.failure is not None:
            outbox.problem = "engine_error"
        elif not stream.has_ended:
            raise UpstreamFailedError("its stream ended early")

    async def _first(self, stream: EventStream, chunk: bytes, outbox: Outbox) -> bytes:
        """The events to begin the answer with; empty as long as it has only been opened."""
        if outbox.opened:
            stream.resume(outbox.opened)
        events = stream.feed(chunk)
        outbox.opening = stream.opening
        if events and stream.failure is not None:
            raise stream.failure
        if stream.is_opened and not outbox.opened:
            await outbox.open()
        is_open = outbox.opened and self.api.signs_open
        return stream.opening + events if events and not is_open else events

    async def _end(self, stream: EventStream, outbox: Outbox) -> None:
        """End an answer that met a stop sequence; its engine has been left in the middle."""
        used = stream.usage
        used.prompt_tokens = self.call.prompt_tokens
        if stream.counts_at_stop and self.count is not None:
            written = countable(stream.text)
            used.completion_tokens = await self.count(written) if stream.text else 0
            used.prompt_tokens = used.prompt_tokens or await self._prompt_tokens(self.count)
        await outbox.event(stream.ending(used))

    def _start_counting(self) -> "asyncio.Future[int | None] | None":
        if self.count is None or not self.call.streams or not self.api.counts_first:
            return None
        return asyncio.ensure_future(self._prompt_tokens(self.count))

    async def _prompt_tokens(self, count: CountPrompt) -> int | None:
        return await count(self.api.counted(self.call))

    async def _counted(self, counting: "asyncio.Future[int | None] | None") -> Call:
        """The call, with the prompt's length where the first event must say it."""
        if counting is not None:
            self.call = self.call.counted(await counting)
        return self.call

    async def _failure(self, response: Response) -> ApiError | UpstreamFailedError:
        """What an answer of 300 or more means: the client's mistake, or the upstream's failure.

        A redirection is the latter: nothing is sent elsewhere than the settings say.
        """
        status = response.status
        reason = reason_of(await response.read(LONGEST_ANSWER_BYTES))
        if status == HTTPStatus.INTERNAL_SERVER_ERROR and self.call.form_param:
            return ApiError(
                HTTPStatus.BAD_REQUEST,
                "The engine could not produce the requested format (without Metal, "
                f"vllm-mlx can't follow a JSON schema): {reason}",
                param=self.call.form_param,
            )
        lacks_model = self.is_to_node and status == HTTPStatus.NOT_FOUND
        is_clients = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
        is_upstreams = not is_clients or status in _NOT_THE_CLIENTS
        if is_upstreams or lacks_model:
            return UpstreamFailedError(f"HTTP {status}", reason, has_answered=True)
        if status == HTTPStatus.UNPROCESSABLE_ENTITY:
            status = HTTPStatus.BAD_REQUEST
        later = response.headers.get("retry-after", "")
        return ApiError(
            status,
            reason or f"HTTP {status}",
            retry_after_s=int(later) if later.isdecimal() else None,
        )


def reason_of(body: bytes) -> str:
    """What an error says, in FastAPI's, OpenAI's or Anthropic's shape; "" where it says nothing."""
    try:
        document: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode("utf-8", errors="replace").strip()[:_LONGEST_REASON]
    said = object_in(document)
    error: object = said.get("error", said.get("detail", said.get("message")))
    error = object_in(error).get("message", error)
    problems = list_in(error)
    if problems:
        error = "; ".join(map(_problem_of, problems))
    if error is None:
        return ""
    words = error if isinstance(error, str) else msgspec.json.encode(error).decode()
    return words[:_LONGEST_REASON]


def _problem_of(problem: object) -> str:
    """One of pydantic's problems in words, without the input that it repeats."""
    said = object_in(problem)
    where = ".".join(str(part) for part in list_in(said.get("loc")) if part != "body")
    words = str(said.get("msg", problem))
    return f"{where}: {words}" if where else words


def _passed_on(response: Response) -> Headers:
    return [
        (name.encode(), value.encode("latin-1"))
        for name in _PASSED_ON
        if (value := response.headers.get(name)) is not None
    ]
