"""A process that starts with the first request for it, and rests when none has come for a while.

           at rest            starting           up                  ending
ready      starts             waits with others  returns             waits, then starts
a client   leaves the start to those who still wait for it
rest       nothing            refuses            ends it if unused   waits with others

All of it runs in one event loop; the process itself is started and ended in threads.

(decision 0088)
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mlx_gateway.activation import Presence
from mlx_stack.errors import StackError

_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 300.0
_LOOK_AGAIN_S = 5.0

_log = logging.getLogger("mlx_stack")


class CannotStartError(StackError):
    """A process can't be had now.

    Attributes:
        said: The end of its log, in lines; "" where it said nothing.
        retry_after_s: When another try may succeed; None where waiting changes nothing.
        is_failure: Whether a start was tried, so that the next one should wait.
    """

    def __init__(
        self,
        reason: str,
        *,
        said: str = "",
        retry_after_s: float | None = None,
        is_failure: bool = True,
    ) -> None:
        super().__init__(reason)
        self.said = said
        self.retry_after_s = retry_after_s
        self.is_failure = is_failure


class SleepingProcess(Protocol):
    """The process, as its files and the machine have it. Each call reads them again."""

    def is_alive(self) -> bool:
        """Whether the process that `start` last found or made lives; asked for each request."""
        ...

    def is_running(self) -> bool:
        """Whether there is a process, whoever started it."""
        ...

    def ensure_wanted(self) -> None:
        """Return if a request may start it.

        Raises:
            CannotStartError: When it may not.
        """
        ...

    def start(self, cancelled: threading.Event) -> None:
        """Return when it is ready. One that runs already is waited for.

        Raises:
            CannotStartError: When it can't be had.
        """
        ...

    def stop(self) -> bool:
        """Whether it is gone now; False where it still works for someone, or others are at it."""
        ...

    def held_bytes(self) -> int | None:
        """What it holds in memory; None where it doesn't run, nor is to be started again."""
        ...


class Door(Protocol):
    """What a process passes before it is started."""

    async def enter(self, sleeper: "Sleeper") -> None:
        """Return once it may be started.

        Raises:
            CannotStartError: When that won't be.
        """
        ...

    def leave(self, sleeper: "Sleeper") -> None:
        """Learn that its start has ended, however it did."""
        ...

    def changed(self) -> None:
        """Learn that a request has ended, or a process."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SleepPlan:
    """How a process is kept.

    Attributes:
        idle_s: It is ended when it was unused for so long; None never ends it for that.
        keeps_running: Whether others see to it that it runs, unless it was put to rest here.
        claim_bytes: What it may come to hold in memory; None where that doesn't matter.
        importance: The less important make room in memory first.
        pinned: Whether it never makes room.
        ends_when_gone: Whether it is ended once its model is no longer there.
        made_of: What a start depends on: where it is something else, a failure no longer counts.
    """

    idle_s: float | None = None
    keeps_running: bool = False
    claim_bytes: int | None = None
    importance: int = 0
    pinned: bool = False
    ends_when_gone: bool = False
    made_of: object = None


@dataclass(frozen=True, slots=True)
class _Failure:
    error: CannotStartError
    until: float
    attempts: int
    made_of: object


class Sleeper:
    """One such process.

    Args:
        door: What it passes before it is started.
        clock: Seconds that no change of the clock moves.

    Attributes:
        plan: How it is kept; may change while it lives.
        rests: Whether it was put to rest here.
        in_use: The requests that wait for it, or that it works on.
        since: When it was started, or first seen; None while it isn't there.
        used_at: When it was last used, or first seen.
        waits_for: Those that have to make room in memory before it is started.
    """

    def __init__(
        self,
        name: str,
        process: SleepingProcess,
        plan: "SleepPlan",
        *,
        rests: bool = False,
        door: Door | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.process = process
        self.plan = plan
        self.rests = rests
        self.in_use = 0
        self.since: float | None = None
        self.used_at: float | None = None
        self.waits_for: tuple[str, ...] = ()
        self._due: list[float] = []
        self._door = door
        self._clock = clock
        self._is_up = False
        self._starting: asyncio.Task[CannotStartError | None] | None = None
        self._stopping: asyncio.Task[bool] | None = None
        self._failure: _Failure | None = None
        self._asked_at: float | None = None
        self._keep_s: float | None = None
        self._problem = ""
        self._cancelled = threading.Event()
        self._may_be_asked = asyncio.Event()
        self._may_be_asked.set()
        self._works_until = float("-inf")

    @property
    def is_at_rest(self) -> bool:
        """Whether a request would have to wait for a start."""
        if self.plan.keeps_running and not self.rests:
            return False
        return self._stopping is not None or not (self._is_up and self.process.is_alive())

    @property
    def is_there(self) -> bool:
        """Whether there is a process, or is to be one, as far as is known without a look."""
        return self._starting is not None or self.since is not None or self.process.is_alive()

    @property
    def idle_s(self) -> float | None:
        """It is ended when it was unused for so long; None never ends it for that.

        What is planned, or what the last client wanted, if it is ended at all.
        """
        if self.plan.idle_s is None or self._keep_s is None:
            return self.plan.idle_s
        return self._keep_s if math.isfinite(self._keep_s) else None

    @property
    def rests_at(self) -> float | None:
        """When it will be ended if no request comes; None where that isn't foreseen."""
        idle_s = self.idle_s
        if idle_s is None or self.used_at is None or self.is_busy:
            return None
        return self.used_at + idle_s

    @property
    def is_busy(self) -> bool:
        """Whether it is in use, starts or ends, or has just said that it works for others."""
        is_working = self._clock() < self._works_until
        return bool(self.in_use or self._starting or self._stopping or is_working)

    @property
    def due(self) -> float:
        """When the most urgent request that waits for it is due."""
        return min(self._due, default=math.inf)

    @property
    def makes_room(self) -> bool:
        """Whether new requests wait until it has ended, since another waits for its room."""
        return not self._may_be_asked.is_set()

    @makes_room.setter
    def makes_room(self, value: bool) -> None:
        if value:
            self._may_be_asked.clear()
        else:
            self._may_be_asked.set()

    def presence(self) -> Presence:
        """How it is, for whoever asks."""
        now = self._clock()
        problem = self._problem if self._starting is None else ""
        if self._starting is not None:
            begun_s = None if self._asked_at is None else now - self._asked_at
            return Presence(state="starting", for_s=begun_s, waits_for=self.waits_for)
        if self._stopping is not None:
            return Presence(state="ending")
        if self.is_at_rest:
            return Presence(state="at-rest", problem=problem)
        idle_s = None if self.used_at is None or self.in_use else now - self.used_at
        rests_at = self.rests_at
        rests_in_s = None if rests_at is None else max(rests_at - now, 0.0)
        return Presence(state="up", for_s=idle_s, rests_in_s=rests_in_s, problem=problem)

    async def ready(self, patience_s: float = 0.0) -> None:
        """Return when it can be asked; `finished` tells of the end of that.

        Args:
            patience_s: How much later another may be asked for and still be let in first.

        Raises:
            CannotStartError: When it can't be started.
        """
        self.in_use += 1
        due = self._clock() + patience_s
        self._due.append(due)
        try:
            await self._wake()
        except BaseException:
            self.in_use -= 1
            raise
        finally:
            self._due.remove(due)

    def finished(self, keep_s: float | None = None) -> None:
        """Note that a request has ended, whose client wants it kept for `keep_s` from now on."""
        self._keep_s = keep_s
        self.in_use = max(self.in_use - 1, 0)
        self.used_at = self._clock()
        if self._door is not None:
            self._door.changed()

    async def look(self) -> None:
        """Notice a process that others have started, or ended."""
        if self.in_use or self._starting or self._stopping:
            return
        is_running = await asyncio.to_thread(self.process.is_running)
        if not is_running:
            self._is_up, self.since, self.used_at, self._keep_s = False, None, None, None
        elif self.used_at is None:
            self.since = self.used_at = self._clock()

    async def rest(self) -> bool:
        """End it, unless it is in use; whether it is gone."""
        if self.in_use or self._starting:
            return False
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop())
        return await asyncio.shield(self._stopping)

    def give_up(self) -> None:
        """Wait for no start any more; one that has begun goes on by itself."""
        self._cancelled.set()

    async def _wake(self) -> None:
        while self.makes_room or self._stopping is not None:
            await self._wait_until_gone()
        if self.plan.keeps_running and not self.rests:
            return
        if self._is_up and self.process.is_alive():
            return
        if self._starting is None:
            await self._refuse_while_it_fails()
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
        error = await asyncio.shield(self._starting)
        if error is not None:
            raise CannotStartError(
                error.message, said=error.said, retry_after_s=error.retry_after_s
            ) from error

    async def _wait_until_gone(self) -> None:
        """Wait, not as one who uses it, until it has ended or needn't any more."""
        self.in_use -= 1
        try:
            if self._stopping is not None:
                await asyncio.shield(self._stopping)
            else:
                await self._may_be_asked.wait()
        finally:
            self.in_use += 1

    async def _refuse_while_it_fails(self) -> None:
        """Return if a start may be tried now.

        Raises:
            CannotStartError: When one has failed just before.
        """
        failure = self._failure
        if failure is not None and failure.made_of != self.plan.made_of:
            failure = self._failure = None
        if failure is None or self._clock() >= failure.until:
            return
        if await asyncio.to_thread(self.process.is_running):  # others were luckier
            return
        raise CannotStartError(
            failure.error.message,
            said=failure.error.said,
            retry_after_s=max(failure.until - self._clock(), 1.0),
        )

    async def _start(self) -> CannotStartError | None:
        """What went wrong: given to all who wait, of whom there may be none any more."""
        self._is_up, self._asked_at, made_of = False, self._clock(), self.plan.made_of
        try:
            if self._door is not None and not await asyncio.to_thread(self.process.is_running):
                await self._door.enter(self)
            await asyncio.to_thread(self.process.start, self._cancelled)
        except CannotStartError as error:
            _log.warning("%s could not be started: %s", self.name, error.message)
            self._problem = error.message
            return self._note_failure(error, made_of) if error.is_failure else error
        else:
            self._failure, self._problem, self.rests = None, "", False
            self._is_up = True
            self.since = self.used_at = self._clock()
            return None
        finally:
            self._starting = None
            if self._door is not None:
                self._door.leave(self)

    def _note_failure(self, error: CannotStartError, made_of: object) -> CannotStartError:
        attempts = 0 if self._failure is None else self._failure.attempts
        pause_s = min(_FIRST_PAUSE_S * 2**attempts, _LONGEST_PAUSE_S)
        self._failure = _Failure(error, self._clock() + pause_s, min(attempts + 1, 16), made_of)
        error.retry_after_s = math.ceil(pause_s)
        return error

    async def _stop(self) -> bool:
        try:
            is_gone = await asyncio.to_thread(self.process.stop)
        except StackError as error:
            _log.warning("%s was not stopped: %s", self.name, error)
            is_gone = False
        finally:
            self._stopping = None
        if is_gone:
            self._is_up, self.rests = False, True
            self.since = self.used_at = self._keep_s = None
        else:
            self.used_at = self._clock()
            self._works_until = self.used_at + _LOOK_AGAIN_S
        return is_gone
