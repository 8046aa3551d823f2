"""One stream of events for every open page: each topic's whole state, whenever it has changed.

A page that comes back, after sleep or a restart of the gateway, gets every topic anew and so needs
to know nothing of what it missed. Nothing is looked at while no page is open.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime

import msgspec

from mlx_gateway import Gateway
from mlx_gateway.in_flight import Reading, RequestPhase
from mlx_gateway.ledger import LedgerError
from mlx_gateway.requests import read_requests
from mlx_gateway.usage import read_events
from mlx_procsup import Pressure, read_pressure
from mlx_stack.error_table import translate
from mlx_stack.page.actions import Actions
from mlx_stack.page.answer import JsonDocument, error_of
from mlx_stack.page.folder import HomeFiles, stamp

_BUSY_S = 0.5
_IDLE_S = 1.0
_STATUS_S = 20.0
_MACHINE_S = 5.0
_RECENT_S = 2.0
"""Reading the ledger costs as much as relaying dozens of tokens."""
_SIGN_OF_LIFE_S = 15.0
_LONG_READ_S = 1.0
"""A prompt that takes longer is asked after: how far its engine has read it."""
_NOT_TOLD = Reading(None, None)
_RECENT = 30
_EVENTS = 30
_EVENTS_SINCE_S = 7 * 86_400


class Subscriber:
    """One open page: what it has not been sent yet, of each topic the latest only."""

    def __init__(self) -> None:
        self._pending: dict[str, bytes] = {}
        self._something = asyncio.Event()
        self._is_over = False

    def put(self, topic: str, data: bytes) -> None:
        """Send this before long, in place of an older state of the topic."""
        self._pending[topic] = data
        self._something.set()

    def end(self) -> None:
        """End the stream."""
        self._is_over = True
        self._something.set()

    async def messages(self) -> AsyncIterator[bytes]:
        """What to send, a piece at a time; a comment where nothing happens for long."""
        yield b"retry: 1000\n\n"
        while not self._is_over:
            try:
                async with asyncio.timeout(_SIGN_OF_LIFE_S):
                    await self._something.wait()
            except TimeoutError:
                yield b"event: alive\ndata: {}\n\n"
                continue
            self._something.clear()
            waiting, self._pending = self._pending, {}
            pieces = (b"event: %b\ndata: %b\n\n" % (t.encode(), d) for t, d in waiting.items())
            yield b"".join(pieces)


class Feed:
    """Looks at what the pages show, as long as there is one."""

    def __init__(self, folder: HomeFiles, gateway: Callable[[], Gateway], actions: Actions) -> None:
        self._folder = folder
        self._gateway = gateway
        self._actions = actions
        self._subscribers: set[Subscriber] = set()
        self._latest: dict[str, bytes] = {}
        self._watching: tuple[asyncio.Task[None], ...] = ()
        self._signature: object = None
        self._status_at = self._machine_at = self._recent_at = float("-inf")
        self._finished = -1
        self._is_over = False

    def subscribe(self) -> Subscriber:
        """A page that was opened; it gets every topic now, and then what changes."""
        subscriber = Subscriber()
        if self._is_over:
            subscriber.end()
            return subscriber
        self._subscribers.add(subscriber)
        for topic, data in self._latest.items():
            subscriber.put(topic, data)
        if not self._watching:
            self._status_at = float("-inf")
            both = (self._watch_requests(), self._watch_the_rest())
            self._watching = tuple(map(asyncio.create_task, both))
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Forget a page; after the last one nothing is looked at any more."""
        self._subscribers.discard(subscriber)
        if not self._subscribers:
            for task in self._watching:
                task.cancel()
            self._watching = ()

    def end(self) -> None:
        """End every stream: the gateway is to stop."""
        self._is_over = True
        for subscriber in self._subscribers:
            subscriber.end()

    def look_soon(self) -> None:
        """Look at the services and the actions with the next turn: something was done."""
        self._status_at = float("-inf")

    async def _watch_requests(self) -> None:
        while True:
            busy = await self._look_at_requests()
            finished, now = self._gateway().finished, time.monotonic()
            if self._finished != finished and now - self._recent_at >= _RECENT_S:
                self._finished, self._recent_at = finished, now
                await asyncio.sleep(_BUSY_S)  # the ledger writes a batch at a time
                self._tell("recent", await asyncio.to_thread(self._recent))
            await asyncio.sleep(_BUSY_S if busy else _IDLE_S)

    async def _watch_the_rest(self) -> None:
        while True:
            now = time.monotonic()
            if now - self._machine_at >= _MACHINE_S:
                self._machine_at = now
                self._tell("machine", await asyncio.to_thread(_machine))
            if b'"running"' in self._latest.get(
                "actions", b""
            ):  # one ends without a trace in a file
                self._tell("actions", await asyncio.to_thread(self._read_actions))
            signature = self._sign()
            if signature != self._signature or now - self._status_at >= _STATUS_S:
                self._signature, self._status_at = signature, now
                for topic, document in await asyncio.to_thread(self._read):
                    self._tell(topic, document)
            await asyncio.sleep(_IDLE_S)

    async def _look_at_requests(self) -> bool:
        gateway = self._gateway()
        requests, models = gateway.requests(), gateway.settings.models
        long_reads = [
            r for r in requests if r.phase is RequestPhase.READING and r.seconds > _LONG_READ_S
        ]
        readings = await gateway.readings() if long_reads else {}
        running = [
            {**_plain(asdict(each)), **readings.get(each.id, _NOT_TOLD)._asdict()}
            for each in requests
        ]
        lines = {
            name: {
                **line._asdict(),
                "sees_images": models[name].sees_images,
                "role": models[name].role,
            }
            for name, line in gateway.lines().items()
            if name in models
        }
        self._tell("requests", {"running": running, "lines": lines})
        return bool(running)

    def _sign(self) -> object:
        """What changes when a service, an action or a file of ours does."""
        home = self._folder.home
        actions = home.page / "actions"
        folders = (home.pids, home.run, home.stack, home.config, home.client_keys, actions)
        return tuple(map(stamp, folders))

    def _read(self) -> list[tuple[str, JsonDocument]]:
        actions = self._read_actions()
        return [("status", self._status()), ("actions", actions), ("events", self._events())]

    def _read_actions(self) -> JsonDocument:
        return {"actions": [each.to_document() for each in self._actions.all()]}

    def _status(self) -> JsonDocument:
        from mlx_stack.services.status import read_status  # noqa: PLC0415 - no page, no need

        return documented(
            lambda: read_status(
                self._folder.opened(), hardware=self._folder.hardware()
            ).to_document()
        )

    def _events(self) -> JsonDocument:
        rows: list[JsonDocument] = []
        with suppress(LedgerError):
            since = time.time() - _EVENTS_SINCE_S
            for event in read_events(self._folder.home.ledger, since)[-_EVENTS:]:
                at = datetime.fromtimestamp(event.at, UTC).isoformat()
                rows.append({**asdict(event), "at": at})
        return {"events": rows[::-1]}

    def _recent(self) -> JsonDocument:
        return documented(
            lambda: {
                "requests": [
                    each.to_document()
                    for each in read_requests(self._folder.home.ledger, limit=_RECENT)
                ]
            }
        )

    def _tell(self, topic: str, document: JsonDocument) -> None:
        data = msgspec.json.encode(document)
        if self._latest.get(topic) != data:
            self._latest[topic] = data
            for subscriber in self._subscribers:
                subscriber.put(topic, data)


def documented(make: Callable[[], JsonDocument]) -> JsonDocument:
    """What `make` returns, or the error that it ends with in the shape of the commands."""
    try:
        return make()
    except Exception as error:
        problem = translate(error)
        if problem is None:
            raise
        return error_of(problem)


def _plain(fields: dict[str, object]) -> dict[str, object]:
    return {
        name: round(value, 2) if isinstance(value, float) else value
        for name, value in fields.items()
    }


def _machine() -> JsonDocument:
    """Memory and power of this machine now, rounded, so that nothing is told without need."""
    import psutil  # noqa: PLC0415 - no page, no need

    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return {
        "memory_bytes": memory.total,
        "available_bytes": round(memory.available, -8),
        "swap_used_bytes": round(swap.used, -8),
        "pressure": Pressure(read_pressure()).name.lower(),
        "on_battery": None if battery is None else not battery.power_plugged,
        "battery_percent": None if battery is None else round(battery.percent),
    }
