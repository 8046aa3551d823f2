"""Fetching files over several connections at once, until every byte is here and its hash is right.

One thread a connection: it claims a piece from the ledger, reads it, writes it where it belongs.
A failed piece goes back and is fetched again, by whoever is free, after a pause that grows while
nothing arrives. A connection that is much slower than the others is broken off, and an idle one
takes over half of the work of the one that would end last. The caller's thread watches and tells.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from http.client import HTTPException, HTTPResponse
from typing import Protocol

from mlx_stack.models.disk.manifest import FileRecord
from mlx_stack.models.download.connection import Connection, describe
from mlx_stack.models.download.hub_files import RangesUnsupported
from mlx_stack.models.download.ledger import Claim, Ledger
from mlx_stack.models.download.partial import PartialFile
from mlx_stack.models.download.rates import Meter
from mlx_stack.models.download.retries import FileRetries, Pace, TransferPolicy, find_stragglers
from mlx_stack.models.download.verifier import Verifier
from mlx_stack.models.errors import HubUnreachableError, TransientError, WrongContentError
from mlx_stack.models.events import (
    Event,
    FileProgress,
    FileVerified,
    Observer,
    Progress,
    Retrying,
    ignore,
)

_READ_BYTES = 256 * 1024
_RECORD_BYTES = 64 * 1024
_RECORD_S = 0.25
"""What a connection has read is written and recorded at these marks: a kill loses no more."""
_LEAVE_S = 0.5
"""How long the end of a transfer waits for threads that are still connecting."""
_SHORTEST_S = 0.001
_SMALLEST_HALF_BYTES = 128 * 1024


class Source(Protocol):
    """Where byte ranges come from, as `HubFiles` gives them."""

    def connect(self, timeout_s: float) -> Connection:
        """A closed connection, for `open`; `timeout_s` bounds every wait."""
        ...

    def open(
        self, connection: Connection, file: FileRecord, start: int, end: int, *, whole: bool = False
    ) -> HTTPResponse:
        """The answer whose body is `[start, end)`, or with `whole` the whole file."""
        ...


class _Worker:
    """One connection, and the piece that it is fetching."""

    def __init__(self, number: int, connection: Connection) -> None:
        self.number = number
        self.connection = connection
        self.claim: Claim | None = None
        self.meter = Meter(0.0)
        self.rate_bytes_s = 0.0
        self.is_broken_off = False

    def pace(self, now: float) -> Pace:
        """How it does with its piece."""
        remaining = self.claim.remaining_bytes if self.claim is not None else 0
        return Pace(self.meter.age_s(now), self.meter.rate(now) or 0.0, remaining)


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
        self._retries = [FileRetries() for _ in self._files]
        self._sequential: set[int] = set()
        self._restarted: set[int] = set()
        self._verified = {i for i, file in enumerate(self._files) if file.is_verified}
        sizes = [file.record.size_bytes for file in self._files]
        self._ledger = Ledger.of(sizes, [file.received for file in files], policy.connections)
        self._allowed = policy.connections
        self._not_before = 0.0
        self._meter = Meter(time.monotonic())
        count = min(policy.connections, self._ledger.pending_pieces)
        self._workers = [
            _Worker(number, source.connect(policy.stall_timeout_s)) for number in range(count)
        ]

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
        idle = [w.rate_bytes_s for w in self._workers if not w.claim and w.rate_bytes_s]
        paces = [worker.pace(now) for worker in busy]
        for number in find_stragglers(paces, idle, self._policy):
            busy[number].is_broken_off = True
            busy[number].connection.abort()

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
            return now >= self._retries[file].not_before and file not in self._sequential

        claim = self._ledger.claim(is_eligible, worker.rate_bytes_s) or self._take_over(now)
        if claim is not None:
            return claim
        for number in self._sequential:
            if now >= self._retries[number].not_before:
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
            if claim is None or claim.file in self._sequential:
                continue
            is_large = claim.remaining_bytes >= 2 * _SMALLEST_HALF_BYTES
            is_known = worker.meter.rate(now) is not None
            lasts_s = worker.pace(now).lasts_s
            if is_large and is_known and lasts_s > longest_s:
                worst, longest_s = claim, lasts_s
        return self._ledger.divide(worst) if worst is not None else None

    def _fetch(self, worker: _Worker, claim: Claim) -> None:
        """Fetch a piece, or what of it comes; the rest goes back to the ledger."""
        failure: TransientError | None = None
        try:
            self._receive(worker, claim, is_whole=claim.file in self._sequential)
        except RangesUnsupported:
            with self._changed:
                self._sequential.add(claim.file)
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

    def _receive(self, worker: _Worker, claim: Claim, *, is_whole: bool) -> None:
        """Read a piece to its end; what has arrived is kept whatever happens."""
        record = self._files[claim.file].record
        response = self._source.open(
            worker.connection, record, claim.position, claim.end, whole=is_whole
        )
        to_skip = claim.position if is_whole else 0
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
                    self._keep(worker, claim, b"".join(parts), now)
                    parts, held, recorded_at = [], 0, now
        finally:
            if held:
                self._keep(worker, claim, b"".join(parts), time.monotonic())
        if not response.isclosed():  # the rest of the piece has gone to another connection
            worker.connection.close()

    def _keep(self, worker: _Worker, claim: Claim, data: bytes, now: float) -> None:
        """Write what was received and count it."""
        data = data[: max(claim.remaining_bytes, 0)]
        self._files[claim.file].write(claim.position, data)
        with self._changed:
            accepted = self._ledger.advance(claim, len(data))
            self._retries[claim.file].progressed()
            worker.meter.add(now, accepted)
            self._meter.add(now, accepted)

    def _retry_later(self, number: int, error: TransientError) -> None:
        """Set the pause after a failure, or give up."""
        now, retries = time.monotonic(), self._retries[number]
        if now < max(retries.not_before, self._not_before):
            return  # the same trouble met by another connection
        try:
            # no secret depends on this chance
            delay = retries.failed(error, now, random.random(), self._policy)  # noqa: S311
        except HubUnreachableError as hopeless:
            self._failure = self._failure or hopeless
            return
        if error.is_throttled:
            self._not_before = now + delay
            self._allowed = max(1, self._allowed // 2)
        self._events.append(Retrying(self._files[number].record.path, error.reason, delay))

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
            if file.resumed_bytes and number not in self._restarted:
                # what an earlier process left may be damaged: once more, from nothing
                file.restart()
                self._ledger.restart(number, record.size_bytes)
                self._restarted.add(number)
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
