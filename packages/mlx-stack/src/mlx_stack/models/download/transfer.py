"""Fetching files over several connections at once, until every byte is here and its hash is right.

One thread a connection: it claims a run of blocks, reads them, and writes each where it belongs. A
failed run goes back and is fetched again, by whoever is free, after a pause that grows while
nothing arrives; an idle connection takes over half of the run that would end last. Another thread
hashes each file behind its frontier, the end of what is here without a hole. The caller's thread
watches and tells (decision 0054).
"""

import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import httpx

from mlx_stack.models.disk.partial import BLOCK_BYTES, PartialFile
from mlx_stack.models.download.blocks import SHORTEST_RUN, Blocks, Run
from mlx_stack.models.download.hub_files import HubFiles, RangesUnsupported, describe
from mlx_stack.models.download.retries import FileRetries, Meter, TransferPolicy
from mlx_stack.models.errors import HubUnreachableError, TransientError, WrongContentError
from mlx_stack.models.events import FileProgress, FileVerified, ModelEvent, Progress, Retrying
from mlx_stack.steps import OnEvent, ignore

_LEAVE_S = 0.5
"""How long the end of a transfer waits for threads that are still connecting."""
_HASH_BYTES = 1 << 20
_HASH_TICK_S = 0.02


class Transfer:
    """One download of some files."""

    def __init__(
        self,
        files: Sequence[PartialFile],
        source: HubFiles,
        policy: TransferPolicy,
        on_event: OnEvent[ModelEvent] = ignore,
    ) -> None:
        """Files to complete, in the order in which they should be fetched."""
        self._files = list(files)
        self._source = source
        self._policy = policy
        self._on_event = on_event
        self._changed = threading.Condition()
        self._events: deque[ModelEvent] = deque()
        self._failure: Exception | None = None
        self._stopped = threading.Event()
        self._retries = [FileRetries() for _ in self._files]
        self._whole_only: set[int] = set()
        self._verified: set[int] = set()
        self._blocks = Blocks([file.here for file in self._files], policy.connections)
        self._allowed = policy.connections
        self._not_before = 0.0
        self._meter = Meter(time.monotonic())
        self._responses: dict[Run, httpx.Response] = {}

    def run(self) -> None:
        """Fetch and check everything, and give each file its name once its hash agrees.

        Whatever ends it, the files are closed and keep what they have.

        Raises:
            TransientError: When an earlier process left damaged parts, which are gone now.
            PullError: When it can't be completed.
            OSError: When the disk is full or broken.
        """
        count = min(self._policy.connections, -(-self._blocks.missing // SHORTEST_RUN))
        threads = [
            threading.Thread(target=self._work, args=(job,), daemon=True)
            for job in (*(partial(self._fetch_all, number) for number in range(count)), self._check)
        ]
        try:
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
        """Tell what happens, until everything is verified or something has failed."""
        while True:
            with self._changed:
                self._changed.wait_for(self._has_news, self._policy.tick_s)
                events, self._events = self._events, deque()
                is_done = self._is_done()
                progress = self._progress(time.monotonic())
            for event in (*events, progress):
                self._on_event(event)
            if self._failure is not None:
                raise self._failure
            if is_done:
                return

    def _has_news(self) -> bool:
        return self._failure is not None or bool(self._events) or self._is_done()

    def _is_done(self) -> bool:
        return len(self._verified) == len(self._files)

    def _progress(self, now: float) -> Progress:
        files = tuple(
            FileProgress(
                path=file.record.path,
                size_bytes=file.record.size_bytes,
                present_bytes=file.present_bytes,
                is_verified=number in self._verified,
            )
            for number, file in enumerate(self._files)
        )
        present = sum(file.present_bytes for file in files)
        total = sum(file.size_bytes for file in files)
        rate = self._meter.rate(now)
        return Progress(
            total_bytes=total,
            present_bytes=present,
            resumed_bytes=sum(file.resumed_bytes for file in self._files),
            verified_bytes=sum(file.size_bytes for file in files if file.is_verified),
            rate_bytes_s=rate,
            remaining_s=(total - present) / rate if rate else None,
            connections=len(self._blocks.runs),
            files=files,
        )

    def _stop(self) -> None:
        """Let every thread go: connections broken off, files closed with what they have."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()
            for response in self._responses.values():
                _break_off(response)
        for file in self._files:
            file.close()

    def _work(self, job: Callable[[], None]) -> None:
        """What each thread does: its job, whose failure ends the transfer."""
        try:
            job()
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()

    def _fetch_all(self, number: int) -> None:
        """What one connection does."""
        while (run := self._next(number)) is not None:
            self._fetch(run)

    def _next(self, number: int) -> Run | None:
        """The next run, waiting until there is one; None when there will be no more."""
        with self._changed:
            while not self._stopped.is_set() and not self._is_done():
                now = time.monotonic()
                if number < self._allowed and now >= self._not_before:
                    run = self._claim(now)
                    if run is not None:
                        return run
                self._changed.wait(self._policy.tick_s)
        return None

    def _claim(self, now: float) -> Run | None:
        def is_eligible(file: int) -> bool:
            return now >= self._retries[file].not_before and file not in self._whole_only

        run = self._blocks.claim(now, is_eligible)
        run = run or self._blocks.take_over(now, self._policy.take_over_s, is_eligible)
        for file in self._whole_only if run is None else ():
            if now >= self._retries[file].not_before:
                run = run or self._blocks.claim_rest(file, now)
        return run

    def _fetch(self, run: Run) -> None:
        """Fetch a run, or what of it comes; the rest goes back."""
        failure: TransientError | None = None
        try:
            self._receive(run)
        except RangesUnsupported:
            self._whole_only.add(run.file)
        except httpx.TransportError as error:
            failure = TransientError(describe(error))
        except TransientError as error:
            failure = error
        with self._changed:
            self._responses.pop(run, None)
            self._blocks.release(run)
            if failure is None:
                self._allowed = min(self._allowed + 1, self._policy.connections)
            elif not self._stopped.is_set():
                self._retry_later(run.file, failure)
            self._changed.notify_all()

    def _receive(self, run: Run) -> None:
        """Read a run to its end; every block that has arrived is kept, whatever happens."""
        file = self._files[run.file]
        size = file.record.size_bytes
        first = 0 if run.file in self._whole_only else run.block
        end = size if run.file in self._whole_only else min(run.end * BLOCK_BYTES, size)
        response = self._source.open(file.record, first * BLOCK_BYTES, end)
        with self._changed:
            self._responses[run] = response
        try:
            for block, data in enumerate(response.iter_raw(BLOCK_BYTES), first):
                if block >= run.end or self._stopped.is_set():
                    return
                if block == run.block:
                    self._keep(run, data)
        finally:
            response.close()
        if run.block < run.end:
            raise TransientError("the server closed the connection")

    def _keep(self, run: Run, data: bytes) -> None:
        """Write a block that was received and count it."""
        file = self._files[run.file]
        if len(data) != file.length_of(run.block):
            raise TransientError("the server sent less than requested")
        file.write(run.block, data)
        with self._changed:
            self._retries[run.file].progressed()
            if self._blocks.arrived(run):
                self._meter.add(time.monotonic(), len(data))

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

    def _check(self) -> None:
        """What the hashing thread does: one file after the other, while they still arrive."""
        for number, file in enumerate(self._files):
            digest = self._digest(number, file)
            if digest is None:
                return
            self._settle(number, file, digest)

    def _settle(self, number: int, file: PartialFile, digest: str) -> None:
        """Give a file its name where its hash is right, and throw it away otherwise."""
        record = file.record
        if digest != record.digest:
            file.discard()
            if file.resumed_bytes:
                raise TransientError(f"{record.path}: the part from an earlier pull is damaged")
            raise WrongContentError(
                f"{record.path}: the content's {record.algorithm} is not the one that the Hub "
                "gives.",
                hint="The file was deleted, the others are kept. Pull again; if it keeps "
                "happening, the repository or a mirror is broken.",
            )
        file.publish()
        with self._changed:
            self._verified.add(number)
            self._events.append(FileVerified(record.path, record.size_bytes))
            self._changed.notify_all()

    def _digest(self, number: int, file: PartialFile) -> str | None:
        """The hash of a file, as soon as all of it is here; None once stopped.

        What is hashed was written a moment ago and comes from the page cache.
        """
        hasher, block, position = file.record.hasher(), 0, 0
        with file.open_reader() as content:
            while position < file.record.size_bytes:
                with self._changed:
                    block = self._blocks.frontier(number, block)
                frontier = min(block * BLOCK_BYTES, file.record.size_bytes)
                if position == frontier and self._stopped.wait(_HASH_TICK_S):
                    return None
                while position < frontier:
                    data = content.read(min(_HASH_BYTES, frontier - position))
                    hasher.update(data)
                    position += len(data)
        return hasher.hexdigest()


def _break_off(response: httpx.Response) -> None:
    """Let whoever reads a response go at once; from any thread."""
    connected = response.extensions["network_stream"].get_extra_info("socket")
    with suppress(OSError):  # it is closed already
        # not `SSLSocket.shutdown`, which takes the TLS state from under the reader
        socket.socket.shutdown(connected, socket.SHUT_RDWR)
