"""An OpenAI-compatible server that emits tokens on an exact schedule, in one thread.

Every event has an absolute deadline counted from the moment at which the request's last byte was
read, so that lateness never adds up. The loop sleeps in `select` up to a fraction of a millisecond
before the next deadline and spins the rest. What was sent when is kept, stamped just before the
`send`, and can be asked for at `/calibration/requests` (decision 0063).
"""

import heapq
import itertools
import selectors
import socket
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

import msgspec

from mlx_bench.calibration.schedule import (
    Failure,
    Schedule,
    TokenEvent,
    parse_schedule,
    plan_events,
)
from mlx_bench.calibration.wire import (
    HEADERS,
    RequestBody,
    StreamWriter,
    answer_words,
    as_lines,
    call_words,
    http_response,
    prompt_words,
    shared_words,
)
from mlx_bench.errors import ParametersError

_SPIN_NS = 150_000
_MODEL_NAME = "calibration"
_ARGUMENTS = '{"path": "notes.txt"}'
_clock_ns = time.perf_counter_ns  # the client's clock, so that stamps are comparable


class ServedRequest(msgspec.Struct):
    """The server's own account of one request; stamps are monotonic nanoseconds.

    Attributes:
        waited_ns: How long it waited for a lane.
    """

    response_id: str
    prompt: str
    prompt_tokens: int
    cached_tokens: int
    received_ns: int
    waited_ns: int = 0
    sent_ns: list[int] = []


class ServedRequests(msgspec.Struct):
    """What `/calibration/requests` answers: every request so far."""

    requests: list[ServedRequest]


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    received: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class _Arrival:
    """A whole request, stamped when its last byte was read."""

    connection: _Connection
    head: bytes
    body: bytes
    at_ns: int


@dataclass(slots=True)
class _Due:
    """One step: bytes to send at a time, and whether the connection then closes."""

    at_ns: int
    payload: bytes
    served: ServedRequest | None = None
    closes: bool = False


@dataclass(slots=True)
class _Pending:
    """A connection's next step, and where the one after it comes from."""

    connection: _Connection
    due: _Due
    rest: Iterator[_Due]


class CalibrationServer:
    """Serves until `stop` is called from another thread, or the process ends.

    Args:
        port: 0 lets the system choose; see `port` afterwards.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._listener = socket.create_server((host, port), backlog=128)
        self._listener.setblocking(False)
        # epoll and kqueue round a timeout up to a millisecond; select keeps its microseconds.
        self._selector = selectors.SelectSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._due: list[tuple[int, int, _Pending]] = []
        self._order = itertools.count()
        self._served: list[ServedRequest] = []
        self._caches: dict[str, list[str]] = {}
        self._lanes: dict[str, list[int]] = {}
        self._stopping = False
        self.port: int = self._listener.getsockname()[1]

    def stop(self) -> None:
        """Make `serve` return soon."""
        self._stopping = True

    def serve(self) -> None:
        """Accept, read and send until stopped."""
        try:
            while not self._stopping:
                self._send_what_is_due()
                self._read_what_is_there(self._sleep_s())
        finally:
            self._selector.close()
            self._listener.close()

    def _sleep_s(self) -> float:
        if not self._due:
            return 0.2
        remaining_ns = self._due[0][0] - _clock_ns() - _SPIN_NS
        return min(max(remaining_ns, 0) / 1e9, 0.2)

    def _send_what_is_due(self) -> None:
        while self._due and self._due[0][0] - _clock_ns() <= _SPIN_NS:
            deadline_ns, _, pending = heapq.heappop(self._due)
            while (now := _clock_ns()) < deadline_ns:
                pass
            if pending.due.served is not None:
                pending.due.served.sent_ns.append(now)
            if self._send(pending.connection, pending.due):
                self._wait_for_next(pending.connection, pending.rest)

    def _wait_for_next(self, connection: _Connection, rest: Iterator[_Due]) -> None:
        """Queue a stream's next step; its bytes are made here, well before they are due."""
        due = next(rest, None)
        if due is not None:
            entry = (due.at_ns, next(self._order), _Pending(connection, due, rest))
            heapq.heappush(self._due, entry)

    def _send(self, connection: _Connection, due: _Due) -> bool:
        if connection.socket.fileno() < 0:
            return False
        try:
            connection.socket.sendall(due.payload)
        except OSError:
            self._close(connection)
            return False
        if due.closes:
            self._close(connection)
        return not due.closes

    def _close(self, connection: _Connection) -> None:
        if connection.socket.fileno() >= 0:
            self._selector.unregister(connection.socket)
            connection.socket.close()

    def _read_what_is_there(self, timeout_s: float) -> None:
        """Stamp every request that has arrived before answering the first of them."""
        arrived: list[_Arrival] = []
        for key, _ in self._selector.select(timeout_s):
            if key.fileobj is self._listener:
                self._accept()
            else:
                arrived += self._receive(key.data)
        for arrival in arrived:
            self._answer(arrival)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(client, selectors.EVENT_READ, _Connection(client))

    def _receive(self, connection: _Connection) -> Iterator[_Arrival]:
        try:
            block = connection.socket.recv(1 << 20)
        except OSError:
            block = b""
        now = _clock_ns()
        if not block:
            self._close(connection)
            return
        connection.received += block
        head, separator, body = bytes(connection.received).partition(b"\r\n\r\n")
        if separator and len(body) >= _content_length(head):
            connection.received.clear()
            yield _Arrival(connection, head, body, now)

    def _answer(self, arrival: _Arrival) -> None:
        path = arrival.head.split(b" ", 2)[1].decode()
        now = arrival.at_ns
        if path.endswith("/chat/completions"):
            steps = self._answer_chat(arrival.body, now)
        elif path.endswith("/models"):
            models = {"object": "list", "data": [{"id": _MODEL_NAME, "object": "model"}]}
            steps = _once(now, 200, models)
        elif path == "/health":
            steps = _once(now, 200, {"status": "healthy"})
        elif path == "/calibration/requests":
            steps = _once(now, 200, ServedRequests(self._served))
        elif path == "/v1/status":
            saved = sum(served.cached_tokens for served in self._served)
            steps = _once(now, 200, {"cache": {"tokens_saved": saved}})
        else:
            steps = _refusal(now, 404, "no such page")
        self._wait_for_next(arrival.connection, steps)

    def _answer_chat(self, body: bytes, now: int) -> Iterator[_Due]:
        try:
            fields = msgspec.json.decode(body, type=dict[str, object])
            request = msgspec.convert(fields, RequestBody)
            schedule = parse_schedule("" if request.model == _MODEL_NAME else request.model)
        except msgspec.DecodeError as error:
            return _refusal(now, 400, str(error))
        except ParametersError as error:
            return _refusal(now, 404, error.message)
        if schedule.refuse and schedule.refuse in fields:
            return _refusal(now, 400, f"Unknown field: {schedule.refuse}")
        if schedule.status:
            return _refusal(now, schedule.status, "as the schedule says")
        words = prompt_words(request, schedule)
        answer = _Answer.to(request, schedule)
        cached = self._cached_tokens(words, answer.words, request.model, schedule)
        response_id = f"cal-{len(self._served)}"
        served = ServedRequest(response_id, " ".join(words), len(words), cached, now)
        self._served.append(served)
        uncached = len(words) - cached
        events = plan_events(schedule, tokens=answer.tokens, uncached_tokens=uncached)
        if schedule.lanes:
            served.waited_ns = self._wait_for_lane(request.model, schedule.lanes, now, events)
        return _stream(served, schedule, request, answer, events)

    def _cached_tokens(
        self, words: list[str], answer: list[str], model: str, schedule: Schedule
    ) -> int:
        """How much of a prompt this model's cache has; it is kept for the next one."""
        if not schedule.cache:
            return 0
        kept, prompt = self._caches.setdefault(model, []), as_lines(words)
        shared = [shared_words(seen, prompt) for seen in kept]
        longest = max(shared, default=0)
        if schedule.cache_entries and longest:
            used = kept.pop(shared.index(longest))
            # What goes on where an entry ends takes its place: a conversation is one entry.
            if not prompt.startswith(used):
                kept.append(used)
        kept.append(prompt + (as_lines(answer) if schedule.cache > 1 else ""))
        if schedule.cache_entries:
            del kept[: -schedule.cache_entries]
        # As real engines do, the last token is always computed.
        return min(longest, len(words) - 1)

    def _wait_for_lane(self, model: str, lanes: int, now: int, events: Sequence[TokenEvent]) -> int:
        """Take the lane that is free first, and say in how many nanoseconds that is."""
        free_at = self._lanes.setdefault(model, [0] * lanes)
        start_ns = max(now, heapq.heappop(free_at))
        heapq.heappush(free_at, start_ns + round(events[-1].at_s * 1e9))
        return start_ns - now


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the answer to a request holds, known before it begins."""

    tokens: int
    tool: str
    calls: int
    finish_reason: str

    @classmethod
    def to(cls, request: RequestBody, schedule: Schedule) -> Self:
        wanted = schedule.tokens or request.limit
        is_stopped = bool(schedule.stop_after and schedule.stop_after < wanted)
        tokens = schedule.stop_after if is_stopped else wanted
        calls = schedule.tool_calls if request.first_tool else 0
        finish_reason = "tool_calls" if calls else "stop" if is_stopped else "length"
        return cls(tokens, request.first_tool, calls, finish_reason)

    @property
    def words(self) -> list[str]:
        """Its tokens, those of its tool calls last."""
        calls = [call_words(self.tool, _ARGUMENTS)] * self.calls
        return [*answer_words(range(self.tokens)), *itertools.chain(*calls)]


def _once(now: int, status: int, body: object) -> Iterator[_Due]:
    return iter([_Due(now, http_response(status, body))])


def _refusal(now: int, status: int, message: str) -> Iterator[_Due]:
    return _once(now, status, {"error": {"message": message}})


def _stream(
    served: ServedRequest,
    schedule: Schedule,
    request: RequestBody,
    answer: _Answer,
    events: Sequence[TokenEvent],
) -> Generator[_Due]:
    """The steps of one stream, each made when the one before it has left."""
    start_ns = served.received_ns + served.waited_ns
    writer = StreamWriter(schedule, served.response_id, request.model)
    yield _Due(start_ns, HEADERS + (writer.role() if schedule.role else b""))
    first = 0
    at_ns = start_ns
    for event in events:
        at_ns = start_ns + round(event.at_s * 1e9)
        if schedule.fail_after and first >= schedule.fail_after:
            gone = schedule.failure is Failure.DISCONNECT
            yield _Due(at_ns, b"" if gone else writer.error(), closes=gone)
            return
        yield _Due(at_ns, writer.tokens(first, event.tokens), served)
        first += event.tokens
    for index in range(answer.calls):
        yield _Due(at_ns, writer.tool_call(index, answer.tool, _ARGUMENTS))
    is_asked = schedule.usage and request.stream_options
    usage = _usage(served, len(answer.words), schedule) if is_asked else None
    yield _Due(at_ns, writer.end(answer.finish_reason, usage))


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _usage(served: ServedRequest, tokens: int, schedule: Schedule) -> dict[str, object]:
    usage: dict[str, object] = {
        "prompt_tokens": served.prompt_tokens,
        "completion_tokens": tokens,
        "total_tokens": served.prompt_tokens + tokens,
    }
    if schedule.tell_cache:
        usage["prompt_tokens_details"] = {"cached_tokens": served.cached_tokens}
    return usage
