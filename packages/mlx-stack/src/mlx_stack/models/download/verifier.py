"""Hashing behind the download: files are compared with their hashes while they still arrive.

Ranges arrive out of order and a hash needs order, so a thread reads each file once more behind its
frontier (the end of what is there without a hole). Those bytes were written a moment ago and come
from the page cache; memory use doesn't grow with the size of the file.
"""

import threading
from collections.abc import Callable, Sequence

from mlx_stack.models.download.partial import PartialFile

_BLOCK_BYTES = 1 << 20


def digest_agrees(file: PartialFile) -> bool | None:
    """Whether a file has the hash it should have, waiting for its bytes; None once it is closed."""
    hasher = file.record.hasher()
    position = 0
    with file.open_reader() as reader:
        while position < file.record.size_bytes:
            frontier = file.wait_beyond(position)
            if frontier == position:
                return None
            while position < frontier:
                block = reader.read(min(_BLOCK_BYTES, frontier - position))
                hasher.update(block)
                position += len(block)
    return hasher.hexdigest() == file.record.digest


class Verifier:
    """A few threads that check files in the order in which they were handed in."""

    def __init__(
        self,
        files: Sequence[PartialFile],
        on_checked: Callable[[PartialFile, bool], bool],
        on_failure: Callable[[Exception], None],
    ) -> None:
        """Files to check, and who is told.

        Args:
            files: In the order in which they are fetched.
            on_checked: Called, from a thread, with each file and whether its hash agrees. Where
                it answers True, the file was emptied and is to be checked once more.
            on_failure: Called, from a thread, with whatever ended it, `on_checked` included.
        """
        self._files = iter(files)
        self._on_checked = on_checked
        self._on_failure = on_failure
        self._lock = threading.Lock()
        count = min(len(files), _THREADS)
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]

    def start(self) -> None:
        """Begin; the threads end with the last file, or when the files are closed."""
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        try:
            while (file := self._next()) is not None:
                agrees = digest_agrees(file)
                while agrees is not None and self._on_checked(file, agrees):
                    agrees = digest_agrees(file)
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
            self._on_failure(error)

    def _next(self) -> PartialFile | None:
        with self._lock:
            return next(self._files, None)


_THREADS = 2
"""Two files may end at the same time; one thread hashes faster than most disks write."""
