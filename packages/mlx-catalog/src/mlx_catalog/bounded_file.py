"""Files that people name, read within bounds: one may be a device, or of any size."""

import errno
from pathlib import Path

MAX_YAML_BYTES = 2**20
"""Real entries have less than 10 kB, and the longest lists that people keep less than 100 kB."""


class UnboundedFileError(OSError):
    """A device, which says nothing or never ends, or a file larger than it may be."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(errno.EFBIG, what, str(path))


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """The content of a file or a pipe.

    Raises:
        UnboundedFileError: It is a device, or has more than `most_bytes`.
        OSError: It can't be read.
    """
    if path.is_char_device():
        raise UnboundedFileError(path, "a device, not a file")
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise UnboundedFileError(path, f"larger than {most_bytes / 1e6:.0f} MB")
    return content
