"""One attempt at an upstream: the request goes there, and its answer comes back as bytes."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from mlx_gateway.engines import Engine, InFlight
from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.fields import list_in, object_in
from mlx_gateway.outbox import Headers, Outbox
from mlx_gateway.protocols.api import Api, Call
from mlx_gateway.protocols.events import Usage, status_reason
from mlx_gateway.upstream_http import ConnectionPool, Response

LONGEST_ANSWER_BYTES = 64 * 2**20
_LONGEST_REASON = 2000
_COUNT_WITHIN_S = 5.0
_PASSED_ON = ("content-type", "content-disposition", "cache-control", "retry-after")

type Count = Callable[[], Awaitable[int | None]]


@dataclass(slots=True)
class Attempt:
    """What one attempt needs.

    Attributes:
        pool: Connections.
        engine: The upstream.
        path: The path there.
        headers: What the request carries.
        body: What it says.
        api: The API that both sides speak.
        call: The request as the API understood it.
        silence_s: How long the upstream may say nothing; None for the usual.
        count: Counts the prompt, for APIs whose first event must say how long it is.
    """

    pool: ConnectionPool
    engine: Engine
    path: str
    headers: dict[str, str]
    body: bytes
    api: Api
    call: Call
    silence_s: float | None = None
    count: Count | None = None

    async def run(self, outbox: Outbox, *, on_accepted: Callable[[], None]) -> Usage:
        """Send the request, and its answer to the client.

        Args:
            outbox: Where the answer goes.
            on_accepted: Called when the upstream has accepted the request, before the answer.

        Raises:
            UpstreamFailedError: When the upstream gave no answer, or none to its end.
            ApiError: When it said that the request is at fault.
        """
        if self.engine.life.hangs:
            raise UpstreamFailedError("it does not answer")
        waiting = InFlight(len(self.body), self.silence_s)
        await self.engine.accompany()
        counting = self._start_counting()
        try:
            async with asyncio.timeout(None) as limit:
                with self.engine.watched(limit, waiting):
                    return await self._run(outbox, waiting, counting, on_accepted)
        except TimeoutError as error:
            raise UpstreamFailedError("it stopped answering") from error
        finally:
            if counting is not None:
                counting.cancel()

    async def _run(
        self,
        outbox: Outbox,
        waiting: InFlight,
        counting: "asyncio.Task[int | None] | None",
        on_accepted: Callable[[], None],
    ) -> Usage:
        async with self.pool.request(
            self.engine.address, "POST", self.path, self.headers, self.body
        ) as response:
            waiting.since = self.engine.heard()
            if response.status >= HTTPStatus.BAD_REQUEST:
                raise await _failure(response)
            on_accepted()
            kind = response.headers.get("content-type", "")
            if self.call.streams and kind.startswith("text/event-stream"):
                return await self._relay_events(response, outbox, waiting, counting)
            if kind.startswith("application/json"):
                body = await response.read(LONGEST_ANSWER_BYTES)
                waiting.since = self.engine.heard()
                answer, usage = self.api.whole(body, self.call)
                await outbox.whole(HTTPStatus.OK, answer, b"application/json")
                return usage
            await outbox.begin_raw(response.status, _passed_on(response))
            async for chunk in response.chunks():
                waiting.since = self.engine.heard()
                await outbox.raw(chunk)
            return Usage()

    async def _relay_events(
        self,
        response: Response,
        outbox: Outbox,
        waiting: InFlight,
        counting: "asyncio.Task[int | None] | None",
    ) -> Usage:
        call = self.call
        if counting is not None:
            with suppress(TimeoutError):
                counted = await asyncio.wait_for(asyncio.shield(counting), _COUNT_WITHIN_S)
                call = call.counted(counted)
        stream = self.api.stream(call)
        heard, event = self.engine.heard, outbox.event
        async for chunk in response.chunks():
            waiting.since = heard()
            events = stream.feed(chunk)
            if events:
                if not outbox.has_answered and stream.has_failed:
                    raise UpstreamFailedError(_reason_in(events))
                await event(events)
            if stream.is_over:
                return stream.usage
        if stream.has_failed:
            return stream.usage
        if not stream.has_ended:
            raise UpstreamFailedError("its stream ended early")
        return stream.usage

    def _start_counting(self) -> "asyncio.Task[int | None] | None":
        if self.count is None or not self.call.streams:
            return None
        return asyncio.ensure_future(self.count())  # pyright: ignore[reportReturnType]


async def _failure(response: Response) -> ApiError | UpstreamFailedError:
    """What an upstream's answer of 400 or more means: the client's mistake, or its own failure."""
    status = response.status
    reason = reason_of(await response.read(LONGEST_ANSWER_BYTES)) or status_reason(status)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return UpstreamFailedError(f"{status_reason(status)}: {reason}")
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        status = HTTPStatus.BAD_REQUEST
    retry_after = response.headers.get("retry-after", "")
    return ApiError(
        status, reason, retry_after_s=int(retry_after) if retry_after.isdecimal() else None
    )


def reason_of(body: bytes) -> str:
    """What an error says, in FastAPI's, OpenAI's or Anthropic's shape; "" where it says nothing."""
    try:
        document: object = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body.decode("utf-8", errors="replace").strip()[:_LONGEST_REASON]
    said = object_in(document)
    error: object = said.get("error", said.get("detail", said.get("message")))
    error = object_in(error).get("message", error)
    problems = list_in(error)
    if problems:
        error = "; ".join(map(_problem_of, problems))
    words = error if isinstance(error, str) else msgspec.json.encode(error).decode()
    return words[:_LONGEST_REASON]


def _problem_of(problem: object) -> str:
    """One of pydantic's problems in words, without the input that it repeats."""
    said = object_in(problem)
    where = ".".join(str(part) for part in list_in(said.get("loc")) if part != "body")
    words = str(said.get("msg", problem))
    return f"{where}: {words}" if where else words


def _reason_in(events: bytes) -> str:
    """What the error event among `events` says."""
    for event in events.split(b"\n\n"):
        for line in event.split(b"\n"):
            if line.startswith(b"data:") and b"error" in line:
                return reason_of(line[5:].strip()) or "its stream began with an error"
    return "its stream began with an error"


def _passed_on(response: Response) -> Headers:
    return [
        (name.encode(), value.encode("latin-1"))
        for name in _PASSED_ON
        if (value := response.headers.get(name)) is not None
    ]
