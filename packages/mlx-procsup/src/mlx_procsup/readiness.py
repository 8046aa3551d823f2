"""Waiting until a started service answers, its process ends, or its time is over."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from mlx_procsup.defaults import READY_TIMEOUT_S
from mlx_procsup.errors import ExitedEarlyError, ReadinessTimeoutError, WaitCancelledError
from mlx_procsup.http_probe import PendingPoll, PollAnswer, accepts_connection
from mlx_procsup.identity import is_alive, reap
from mlx_procsup.logfiles import last_words, size_of
from mlx_procsup.progress import LoadSample, LoadTimeout
from mlx_procsup.spawn import StartedProcess
from mlx_procsup.spec import HttpReadiness
from mlx_procsup.state import DOWN_AFTER_S
from mlx_procsup.usage import listens_on, measure_usage

_WATCH_EVERY_S = 0.05
_FIRST_POLL_S = 0.5
_LONGEST_PAUSE_S = 10.0
_SAMPLE_EVERY_S = 0.5
_LOG_TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class Readiness:
    """A service became ready.

    Attributes:
        name: The service.
        seconds: How long it took since the wait began.
        response_ms: How fast it answered; None for a service without an address to ask.
    """

    name: str
    seconds: float
    response_ms: float | None
    polls: int


def wait_for_healthy(
    started: StartedProcess,
    timeout_s: float = READY_TIMEOUT_S,
    *,
    timeout: LoadTimeout | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    watch_every_s: float = _WATCH_EVERY_S,
) -> Readiness:
    """Wait until a service answers HTTP 200.

    The first HTTP request is made after 0.5 s, and later ones after pauses that double up to 10 s.
    Every 50 ms, this checks whether the process has exited, and whether it accepts connections; the
    first accepted connection triggers a request at once. An answer only counts if the service
    itself holds the port.

    Args:
        timeout_s: How long it may take, extended while the load progresses (log, CPU, memory).
        cancelled: Called every 50 ms; the wait ends when it returns true.
        watch_every_s: An interval to use instead of these 50 ms.

    Raises:
        ExitedEarlyError: The process ended; reported within 0.2 s.
        ReadinessTimeoutError: The process is alive, but isn't ready. It is left running.
        WaitCancelledError: `cancelled` returned true. The process is left running.
    """
    watch = _Watch(started, timeout or LoadTimeout.of(timeout_s), cancelled)
    if started.spec.readiness is None:
        watch.check_alive()
        return Readiness(started.name, watch.elapsed_s(), None, 0)
    return _wait_for_answer(watch, started.spec.readiness, watch_every_s)


def _wait_for_answer(watch: "_Watch", readiness: HttpReadiness, watch_every_s: float) -> Readiness:
    pending: PendingPoll | None = None
    next_poll_s, pause_s = _FIRST_POLL_S, _FIRST_POLL_S
    polls, connected = 0, False
    try:
        while True:
            watch.check_alive()
            if pending is None and not connected and accepts_connection(readiness.url):
                connected, next_poll_s = True, watch.elapsed_s()
            if pending is None and watch.elapsed_s() >= next_poll_s:
                pending, polls = PendingPoll(readiness, DOWN_AFTER_S), polls + 1
            answer = pending.result(watch_every_s) if pending is not None else None
            if answer is None:
                if pending is None:
                    time.sleep(watch_every_s)
            else:
                pending = None
                answer = watch.disown_strangers(answer, readiness)
                if answer.ok and answer.response_s is not None:
                    watch.check_alive()
                    response_ms = answer.response_s * 1000
                    return Readiness(watch.name, watch.elapsed_s(), response_ms, polls)
                next_poll_s = watch.elapsed_s() + pause_s
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            watch.check_time()
    finally:
        if pending is not None:
            pending.cancel()


class _Watch:
    """The process side of waiting: alive, progressing, and until when."""

    def __init__(
        self, started: StartedProcess, timeout: LoadTimeout, cancelled: Callable[[], bool]
    ) -> None:
        self._started = started
        self._timeout = timeout
        self._cancelled = cancelled
        self._began = time.monotonic()
        self._samples: list[LoadSample] = []
        # earlier ones would tell nothing, and to read all processes takes a part of what loads
        self._next_sample_s = timeout.timeout_s - timeout.window_s
        self._last_answer: PollAnswer | None = None

    @property
    def name(self) -> str:
        return self._started.name

    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def check_alive(self) -> None:
        if self._cancelled():
            raise WaitCancelledError(f"the wait for {self.name} was cancelled", service=self.name)
        exit_code = reap(self._started.pid)
        if exit_code is None and is_alive(self._started.identity):
            return
        raise ExitedEarlyError(
            service=self.name,
            pid=self._started.pid,
            seconds=self.elapsed_s(),
            log_tail=self._log_tail(),
            exit_code=exit_code,
        )

    def disown_strangers(self, answer: PollAnswer, readiness: HttpReadiness) -> PollAnswer:
        """The answer, unless another process holds the port: then it says so instead."""
        self._last_answer = answer
        port = urlsplit(readiness.url).port
        if readiness.ask is not None:  # only the service itself knows what it was asked
            return answer
        if answer.ok and port is not None and listens_on(self._started.pid, port) is False:
            problem = f"another process answers on port {port}"
            self._last_answer = PollAnswer(None, None, problem)
        return self._last_answer

    def check_time(self) -> None:
        now_s = self.elapsed_s()
        if now_s >= self._next_sample_s:
            self._sample(now_s)
            self._next_sample_s = now_s + min(_SAMPLE_EVERY_S, self._timeout.window_s / 4)
        if self._timeout.is_over(self._samples, now_s):
            last = self._last_answer
            raise ReadinessTimeoutError(
                service=self.name,
                pid=self._started.pid,
                seconds=now_s,
                log_tail=self._log_tail(),
                last_answer=last.describe() if last is not None else "never asked",
            )

    def _sample(self, now_s: float) -> None:
        usage = measure_usage(self._started.pid, time.time())
        if usage is None:
            return
        last = self._last_answer
        sample = LoadSample(
            at_s=now_s,
            log_bytes=size_of(self._started.log_path),
            cpu_s=usage.cpu_s,
            memory_bytes=usage.memory_bytes,
            answers_http=last is not None and last.status is not None,
        )
        oldest_s = now_s - self._timeout.window_s
        self._samples = [kept for kept in self._samples if kept.at_s >= oldest_s] + [sample]

    def _log_tail(self) -> tuple[str, ...]:
        started = self._started
        words = last_words(
            started.log_path, _LOG_TAIL_LINES, started.log_offset, mask=started.spec.mask
        )
        return tuple(words)
