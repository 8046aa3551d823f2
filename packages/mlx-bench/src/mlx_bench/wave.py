"""Sends requests together, one thread a stream, with Python kept out of the way."""

import gc
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from mlx_bench.client import Exchange
from mlx_bench.errors import ParametersError

_SWITCH_INTERVAL_S = 0.001


@contextmanager
def quiet_interpreter() -> Generator[None]:
    """Keep Python out of the measurement: no garbage collection, quick thread switches.

    A collection stops every thread for as long as it takes, and a waiting thread asks for the
    interpreter lock only after the switch interval, 5 ms by default.
    """
    was_enabled = gc.isenabled()
    switch_interval = sys.getswitchinterval()
    gc.disable()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        yield
    finally:
        sys.setswitchinterval(switch_interval)
        if was_enabled:
            gc.enable()


@dataclass(frozen=True, slots=True)
class TimedWave:
    """Requests sent together, and how long that took by three clocks.

    Attributes:
        exchanges: One for each request, in their order.
        wall_ns: How far the wall clock moved.
    """

    exchanges: tuple[Exchange, ...]
    begun_ns: int
    ended_ns: int
    wall_ns: int
    cpu_ns: int

    @property
    def cpu_share(self) -> float:
        """CPU time of this process over the time that passed."""
        return self.cpu_ns / max(self.ended_ns - self.begun_ns, 1)


def send_timed[R](send: Callable[[R], Exchange], requests: Sequence[R]) -> TimedWave:
    """Send requests together, with Python kept quiet; understanding the answers comes later.

    Args:
        send: Sends one of them, as a client's `stream` or `send` does.
    """
    with quiet_interpreter():
        wall_ns, cpu_ns = time.time_ns(), time.process_time_ns()
        begun_ns = time.perf_counter_ns()
        exchanges = _send_together(send, requests)
        ended_ns = time.perf_counter_ns()
        return TimedWave(
            exchanges=tuple(exchanges),
            begun_ns=begun_ns,
            ended_ns=ended_ns,
            wall_ns=time.time_ns() - wall_ns,
            cpu_ns=time.process_time_ns() - cpu_ns,
        )


def start_together(works: Sequence[Callable[[], None]]) -> list[threading.Thread]:
    """A thread for each piece of work; they begin once all of them are there.

    Raises:
        ParametersError: These are more threads than the machine starts; none has begun its work.
    """
    gate = threading.Barrier(len(works))

    def begin(work: Callable[[], None]) -> None:
        try:
            gate.wait()
        except threading.BrokenBarrierError:
            return
        work()

    threads = [threading.Thread(target=begin, args=(work,), daemon=True) for work in works]
    for started, thread in enumerate(threads):
        try:
            thread.start()
        except RuntimeError as error:
            gate.abort()
            problem = f"This machine starts only {started:,} of {len(works):,} requests at once."
            raise ParametersError(problem, hint="Ask for fewer at once.") from error
    return threads


def _send_together[R](send: Callable[[R], Exchange], requests: Sequence[R]) -> list[Exchange]:
    """Every request's exchange, each in its own thread, released at once."""
    if len(requests) == 1:
        return [send(requests[0])]
    exchanges: dict[int, Exchange] = {}

    def send_one(stream: int) -> None:
        exchanges[stream] = send(requests[stream])

    for thread in start_together([partial(send_one, stream) for stream in range(len(requests))]):
        thread.join()
    return [exchanges[stream] for stream in range(len(requests))]
