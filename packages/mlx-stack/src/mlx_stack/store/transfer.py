"""Fetching files over several connections at once, until every byte is here and its hash is right.

One thread a connection: it claims a piece from the ledger, reads it, writes it where it belongs.
A failed piece goes back and is fetched again, by whoever is free, after a pause that grows while
nothing arrives. A connection that is much slower than the others is broken off, and an idle one
takes over half of the work of the one that would end last. The caller's thread watches and tells.
"""

import random
import statistics
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Protocol

from mlx_stack.store.connection import Connection, describe
from mlx_stack.store.errors import HubUnreachableError, TransientError, WrongContentError
from mlx_stack.store.events import (
    Event,
    FileProgress,
    FileVerified,
    Observer,
    Progress,
    Retrying,
    ignore,
)
from mlx_stack.store.hub_files import RangesUnsupported
from mlx_stack.store.ledger import Claim, Ledger
from mlx_stack.store.manifest import FileRecord
from mlx_stack.store.partial import PartialFile
from mlx_stack.store.rates import Meter, pause_s
from mlx_stack.store.verifier import Verifier

_READ_BYTES = 256 * 1024
_RECORD_BYTES = 64 * 1024
_RECORD_S = 0.25
"""What a connection has read is written and recorded at these marks: a kill loses no more."""
_LEAVE_S = 0.5
_SHORTEST_S = 0.001
_SMALLEST_HALF_BYTES = 128 * 1024
_FEWEST_TO_COMPARE = 3


class Source(Protocol):
    """Where byte ranges come from, as `HubFiles` gives them."""

    def open(
        self, connection: Connection, file: FileRecord, start: int, end: int, *, whole: bool = False
    ) -> HTTPResponse:
        """The answer whose body is `[start, end)`, or with `whole` the whole file."""
        ...


@dataclass(frozen=True, slots=True)
class TransferPolicy:
    """When to wait, when to try elsewhere, when to give up.

    Attributes:
        connections: How many at most.
        stall_timeout_s: Without a byte for so long, a connection is broken off.
        attempts: A file is given up after so many failures without a byte in between …
        patience_s: … but not before so long.
        longest_wait_s: A server that wants to be left alone for longer ends the pull.
        slow_ratio: A connection below this part of the median rate is broken off …
        slow_after_s: … once it has been watched for so long.
        take_over_s: An idle connection takes over half of a piece that would last longer.
        sync_interval_s: How often what is there is brought to the disk.
        tick_s: How often the caller's thread looks.
    """

    connections: int = 24
    stall_timeout_s: float = 10.0
    attempts: int = 5
    patience_s: float = 30.0
    longest_wait_s: float = 300.0
    slow_ratio: float = 0.2
    slow_after_s: float = 5.0
    take_over_s: float = 4.0
    sync_interval_s: float = 15.0
    tick_s: float = 0.2


@dataclass(slots=True)
class _FileState:
    """How it stands with a file, beside what is there of it."""

    failures: int = 0
    failing_since: float = 0.0
    not_before: float = 0.0
    is_sequential: bool = False
    has_restarted: bool = False


class _Worker:
    """One connection, its thread, and the piece that it is fetching."""

    def __init__(self, number: int, timeout_s: float) -> None:
        self.number = number
        self.connection = Connection(timeout_s)
        self.claim: Claim | None = None
        self.meter = Meter(0.0)
        self.rate_bytes_s = 0.0
        self.is_broken_off = False


class Transfer:
    """One download of some files."""

    def __init__(
        self,
        files: Sequence[PartialFile],
        source: Source,
        policy: TransferPolicy,
        observer: Observer = ignore,
    ) -> None:
        """Files to complete, in the order in which they should be fetched."""
        self._files = list(files)
        self._source = source
        self._policy = policy
        self._observer = observer
        self._changed = threading.Condition()
        self._events: deque[Event] = deque()
        self._failure: Exception | None = None
        self._stopped = threading.Event()
        self._states = [_FileState() for _ in self._files]
        self._verified = {i for i, file in enumerate(self._files) if file.is_verified}
        sizes = [file.record.size_bytes for file in self._files]
        self._ledger = Ledger.of(sizes, [file.received for file in files], policy.connections)
        self._allowed = policy.connections
        self._not_before = 0.0
        self._meter = Meter(time.monotonic())
        count = min(policy.connections, self._ledger.pending_pieces)
        self._workers = [_Worker(number, policy.stall_timeout_s) for number in range(count)]

    def run(self) -> None:
        """Fetch and check everything; returns when every file is verified.

        Whatever ends it, the files are closed and keep what they have.

        Raises:
            PullError: It can't be completed.
            OSError: The disk is full or broken.
        """
        unchecked = [file for file in self._files if not file.is_verified]
        verifier = Verifier(unchecked, self._on_checked, self._fail)
        threads = [
            threading.Thread(target=self._work, args=(w,), daemon=True) for w in self._workers
        ]
        threads.append(threading.Thread(target=self._keep_synced, daemon=True))
        try:
            verifier.start()
            for thread in threads:
                thread.start()
            self._watch()
        finally:
            self._stop()
            deadline = time.monotonic() + _LEAVE_S
            for thread in threads:
                # one that is still connecting is left behind: it can write nothing any more
                thread.join(max(deadline - time.monotonic(), 0))

    @property
    def received_bytes(self) -> int:
        """What came over the network and was kept."""
        return self._meter.total

    # --- the caller's thread ---

    def _watch(self) -> None:
        """Look at everything now and then, until it is done or has failed."""
        while True:
            with self._changed:
                self._changed.wait_for(self._has_news, self._policy.tick_s)
                events, self._events = self._events, deque()
                is_done = len(self._verified) == len(self._files)
                self._break_off_slow(time.monotonic())
                progress = self._progress(time.monotonic())
            for event in events:
                self._observer(event)
            self._observer(progress)
            if self._failure is not None:
                raise self._failure
            if is_done:
                return

    def _has_news(self) -> bool:
        return (
            self._failure is not None
            or bool(self._events)
            or len(self._verified) == len(self._files)
        )

    def _break_off_slow(self, now: float) -> None:
        """Break off connections that are far behind the others, or nearly stand still."""
        busy = [worker for worker in self._workers if worker.claim and not worker.is_broken_off]
        rates = {worker: worker.meter.rate(now) or 0.0 for worker in busy}
        # connections without work now count with what they did last
        idle = [w.rate_bytes_s for w in self._workers if not w.claim and w.rate_bytes_s]
        known = [*rates.values(), *idle]
        usual = statistics.median(known) if len(known) >= _FEWEST_TO_COMPARE else 0.0
        for worker in busy:
            assert worker.claim is not None
            age, rate = worker.meter.age_s(now), rates[worker]
            lasts_s = worker.claim.remaining_bytes / rate if rate else float("inf")
            is_behind = age > self._policy.slow_after_s and rate < self._policy.slow_ratio * usual
            trickles = age > self._policy.stall_timeout_s and rate < _TRICKLE_BYTES_S
            if (is_behind or trickles) and lasts_s > self._policy.take_over_s:
                worker.is_broken_off = True
                worker.connection.abort()

    def _progress(self, now: float) -> Progress:
        present = sum(file.received.total for file in self._files)
        total = sum(file.record.size_bytes for file in self._files)
        rate = self._meter.rate(now)
        return Progress(
            total_bytes=total,
            present_bytes=present,
            resumed_bytes=sum(file.resumed_bytes for file in self._files),
            verified_bytes=sum(self._files[i].record.size_bytes for i in self._verified),
            rate_bytes_s=rate,
            remaining_s=(total - present) / rate if rate else None,
            connections=len(self._ledger.claims),
            files=tuple(
                FileProgress(
                    path=file.record.path,
                    size_bytes=file.record.size_bytes,
                    present_bytes=file.received.total,
                    is_verified=number in self._verified,
                )
                for number, file in enumerate(self._files)
            ),
        )

    def _stop(self) -> None:
        """Let every thread go: connections broken off, files closed with what they have."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()
        for worker in self._workers:
            worker.connection.abort()
        for file in self._files:
            file.close()

    # --- the connections' threads ---

    def _work(self, worker: _Worker) -> None:
        try:
            while (claim := self._next(worker)) is not None:
                self._fetch(worker, claim)
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
            self._fail(error)
        finally:
            worker.connection.close()

    def _next(self, worker: _Worker) -> Claim | None:
        """The next piece, waiting until there is one; None when there will be no more."""
        with self._changed:
            while not self._stopped.is_set() and len(self._verified) < len(self._files):
                now = time.monotonic()
                claim = self._claim(worker, now) if worker.number < self._allowed else None
                if claim is not None:
                    worker.claim, worker.is_broken_off = claim, False
                    worker.meter = Meter(now)
                    return claim
                self._changed.wait(self._policy.tick_s)
        return None

    def _claim(self, worker: _Worker, now: float) -> Claim | None:
        if now < self._not_before:
            return None

        def is_eligible(file: int) -> bool:
            state = self._states[file]
            return now >= state.not_before and not state.is_sequential

        claim = self._ledger.claim(is_eligible, worker.rate_bytes_s) or self._take_over(now)
        if claim is not None:
            return claim
        for number, state in enumerate(self._states):
            if state.is_sequential and now >= state.not_before:
                size = self._files[number].record.size_bytes
                claim = self._ledger.claim_rest(number, size)
                if claim is not None:
                    return claim
        return None

    def _take_over(self, now: float) -> Claim | None:
        """Half of the piece that would end last, where that is worth a connection."""
        worst, longest_s = None, self._policy.take_over_s
        for worker in self._workers:
            claim = worker.claim
            if claim is None or self._states[claim.file].is_sequential:
                continue
            rate = worker.meter.rate(now)
            if rate is None or claim.remaining_bytes < 2 * _SMALLEST_HALF_BYTES:
                continue
            lasts_s = claim.remaining_bytes / rate if rate else float("inf")
            if lasts_s > longest_s and now >= self._states[claim.file].not_before:
                worst, longest_s = claim, lasts_s
        return self._ledger.divide(worst) if worst is not None else None

    def _fetch(self, worker: _Worker, claim: Claim) -> None:
        """Fetch a piece, or what of it comes; the rest goes back to the ledger."""
        state, file = self._states[claim.file], self._files[claim.file]
        failure: TransientError | None = None
        try:
            self._receive(worker, claim, file, is_sequential=state.is_sequential)
        except RangesUnsupported:
            state.is_sequential = True
        except TransientError as error:
            failure = error
        with self._changed:
            worker.claim = None
            now = time.monotonic()
            worker.rate_bytes_s = worker.meter.total / max(worker.meter.age_s(now), _SHORTEST_S)
            self._ledger.release(claim)
            if failure is None:
                self._allowed = min(self._allowed + 1, self._policy.connections)
            elif not worker.is_broken_off and not self._stopped.is_set():
                self._retry_later(claim.file, failure)
            self._changed.notify_all()

    def _receive(
        self, worker: _Worker, claim: Claim, file: PartialFile, *, is_sequential: bool
    ) -> None:
        response = self._source.open(
            worker.connection, file.record, claim.position, claim.end, whole=is_sequential
        )
        to_skip = claim.position if is_sequential else 0
        while to_skip:
            to_skip -= len(_read(response, min(_READ_BYTES, to_skip)))
        parts, held, recorded_at = list[bytes](), 0, time.monotonic()
        try:
            while (wanted := claim.remaining_bytes - held) > 0:
                part = _read(response, min(_READ_BYTES, wanted))
                if self._stopped.is_set():
                    return
                parts.append(part)
                held += len(part)
                now = time.monotonic()
                if held >= _RECORD_BYTES or now - recorded_at >= _RECORD_S:
                    self._keep(worker, claim, file, b"".join(parts), now)
                    parts, held, recorded_at = [], 0, now
        finally:
            if held:
                self._keep(worker, claim, file, b"".join(parts), time.monotonic())
        if not response.isclosed():  # the rest of the piece has gone to another connection
            worker.connection.close()

    def _keep(
        self, worker: _Worker, claim: Claim, file: PartialFile, data: bytes, now: float
    ) -> None:
        """Write what was received and count it."""
        data = data[: max(claim.remaining_bytes, 0)]
        file.write(claim.position, data)
        state = self._states[claim.file]
        with self._changed:
            accepted = self._ledger.advance(claim, len(data))
            state.failures = 0
            worker.meter.add(now, accepted)
            self._meter.add(now, accepted)

    def _retry_later(self, number: int, error: TransientError) -> None:
        """Set the pause after a failure, or give up."""
        now, state, policy = time.monotonic(), self._states[number], self._policy
        if now < max(state.not_before, self._not_before):
            return  # the same trouble met by another connection
        if state.failures == 0:
            state.failing_since = now
        state.failures += 1
        # no secret depends on it
        delay = pause_s(state.failures, random.random())  # noqa: S311
        if error.retry_after_s is not None:
            delay = max(delay, error.retry_after_s)
        is_hopeless = (
            state.failures >= policy.attempts and now - state.failing_since >= policy.patience_s
        )
        if is_hopeless or delay > policy.longest_wait_s:
            self._failure = self._failure or given_up(error, delay, policy)
            return
        state.not_before = now + delay
        if error.is_throttled:
            self._not_before = now + delay
            self._allowed = max(1, self._allowed // 2)
        self._events.append(Retrying(self._files[number].record.path, error.reason, delay))

    # --- the other threads ---

    def _on_checked(self, file: PartialFile, agrees: bool) -> bool:
        number = self._files.index(file)
        record = file.record
        if agrees:
            file.sync()
        with self._changed:
            if agrees:
                file.mark_verified()
                self._verified.add(number)
                self._events.append(FileVerified(record.path, record.size_bytes))
                self._changed.notify_all()
                return False
            if file.resumed_bytes and not self._states[number].has_restarted:
                # what an earlier process left may be damaged: once more, from nothing
                file.restart()
                self._ledger.restart(number, record.size_bytes)
                self._states[number].has_restarted = True
                self._events.append(Retrying(record.path, "the hash of a resumed file differs", 0))
                self._changed.notify_all()
                return True
        file.discard()
        raise WrongContentError(
            f"{record.path}: the content's {record.algorithm} is not the one that the Hub gives.",
            hint="The file was thrown away, the others are kept. Pull again; if it stays so, the "
            "repository or a mirror is broken.",
        )

    def _keep_synced(self) -> None:
        """Bring what is there to the disk now and then, so that a power cut takes little."""
        try:
            while not self._stopped.wait(self._policy.sync_interval_s):
                for file in self._files:
                    if not file.is_verified:
                        file.sync()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()


_TRICKLE_BYTES_S = 1024
"""Slower than this is as good as stalled."""


def given_up(error: TransientError, delay_s: float, policy: TransferPolicy) -> HubUnreachableError:
    """What a user is told when trying again has no point any more."""
    if delay_s > policy.longest_wait_s:
        message = f"{error.reason}: the server wants to be left alone for {delay_s:.0f} s."
    else:
        message = f"{error.reason}, and so it stayed for {policy.patience_s:.0f} s."
    return HubUnreachableError(
        message, hint="What was downloaded is kept: pull again later, and it continues there."
    )


def _read(response: HTTPResponse, most: int) -> bytes:
    """The next bytes of a body.

    Raises:
        TransientError: The connection broke, stalled or ended too early.
    """
    try:
        data = response.read1(most)
    except (OSError, HTTPException) as error:
        raise TransientError(describe(error, "the server")) from error
    if not data:
        raise TransientError("the server broke the connection off")
    return data
