"""A process that starts with the first request for it, and rests when none has come for a while.

           at rest            starting           up                  ending
ready      starts             waits with others  returns             waits, then starts
a client   leaves the start to those who still wait for it
rest       nothing            refuses            ends it if unused   waits with others

All of it runs in one event loop; the process itself is started and ended in threads.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mlx_stack.errors import StackError

_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 300.0

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

    def start(self, cancelled: threading.Event) -> None:
        """Return when it is ready. One that runs already is waited for.

        Raises:
            CannotStartError: When it can't be had.
        """
        ...

    def stop(self) -> bool:
        """Whether it is gone now; False where it still works for someone, or others are at it."""
        ...


@dataclass(frozen=True, slots=True)
class _Failure:
    error: CannotStartError
    until: float
    attempts: int


class Sleeper:
    """One such process.

    Args:
        clock: Seconds that no change of the clock moves.

    Attributes:
        idle_s: It is ended when it was unused for so long; None never ends it for that.
        keeps_running: Whether others see to it that it runs, unless it was put to rest here.
        rests: Whether it was put to rest here.
        in_use: The requests that wait for it, or that it works on.
        used_at: When it was last used, or first seen.
    """

    def __init__(
        self,
        name: str,
        process: SleepingProcess,
        *,
        idle_s: float | None = None,
        keeps_running: bool = False,
        rests: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.idle_s = idle_s
        self.keeps_running = keeps_running
        self.rests = rests
        self.in_use = 0
        self.used_at: float | None = None
        self._process = process
        self._clock = clock
        self._is_up = False
        self._starting: asyncio.Task[CannotStartError | None] | None = None
        self._stopping: asyncio.Task[bool] | None = None
        self._failure: _Failure | None = None
        self._cancelled = threading.Event()

    @property
    def is_at_rest(self) -> bool:
        """Whether a request would have to wait for a start."""
        if self.keeps_running and not self.rests:
            return False
        return self._stopping is not None or not (self._is_up and self._process.is_alive())

    @property
    def rests_at(self) -> float | None:
        """When it will be ended if no request comes; None where that isn't foreseen."""
        if self.idle_s is None or self.used_at is None or self._is_busy:
            return None
        return self.used_at + self.idle_s

    @property
    def _is_busy(self) -> bool:
        return bool(self.in_use or self._starting or self._stopping)

    async def ready(self) -> None:
        """Return when it can be asked; `finished` tells of the end of that.

        Raises:
            CannotStartError: When it can't be started.
        """
        self.in_use += 1
        try:
            await self._wake()
        except BaseException:
            self.in_use -= 1
            raise

    def finished(self) -> None:
        """Note that a request has ended."""
        self.in_use = max(self.in_use - 1, 0)
        self.used_at = self._clock()

    async def look(self) -> None:
        """Notice a process that others have started, or ended."""
        if self._is_busy:
            return
        is_running = await asyncio.to_thread(self._process.is_running)
        if not is_running:
            self._is_up, self.used_at = False, None
        elif self.used_at is None:
            self.used_at = self._clock()

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
        while self._stopping is not None:
            await asyncio.shield(self._stopping)
        if self.keeps_running and not self.rests:
            return
        if self._is_up and self._process.is_alive():
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

    async def _refuse_while_it_fails(self) -> None:
        """Return if a start may be tried now.

        Raises:
            CannotStartError: When one has failed just before.
        """
        failure = self._failure
        if failure is None or self._clock() >= failure.until:
            return
        if await asyncio.to_thread(self._process.is_running):  # others were luckier
            return
        raise CannotStartError(
            failure.error.message,
            said=failure.error.said,
            retry_after_s=max(failure.until - self._clock(), 1.0),
        )

    async def _start(self) -> CannotStartError | None:
        """What went wrong: given to all who wait, of whom there may be none any more."""
        self._is_up = False
        try:
            await asyncio.to_thread(self._process.start, self._cancelled)
        except CannotStartError as error:
            _log.warning("%s could not be started: %s", self.name, error.message)
            return self._note_failure(error) if error.is_failure else error
        else:
            self._failure, self.rests = None, False
            self._is_up, self.used_at = True, self._clock()
            return None
        finally:
            self._starting = None

    def _note_failure(self, error: CannotStartError) -> CannotStartError:
        attempts = 0 if self._failure is None else self._failure.attempts
        pause_s = min(_FIRST_PAUSE_S * 2**attempts, _LONGEST_PAUSE_S)
        self._failure = _Failure(error, self._clock() + pause_s, min(attempts + 1, 16))
        error.retry_after_s = math.ceil(pause_s)
        return error

    async def _stop(self) -> bool:
        try:
            is_gone = await asyncio.to_thread(self._process.stop)
        except StackError as error:
            _log.warning("%s was not stopped: %s", self.name, error)
            is_gone = False
        finally:
            self._stopping = None
        if is_gone:
            self._is_up, self.rests, self.used_at = False, True, None
        else:
            self.used_at = self._clock()
        return is_gone
