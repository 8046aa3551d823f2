"""The lists of installed files that wheels leave behind (`*.dist-info/RECORD`)."""

import base64
import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# https://packaging.python.org/en/latest/specifications/recording-installed-packages/


@dataclass(frozen=True, slots=True)
class RecordedFile:
    """One line of a RECORD.

    Attributes:
        path: The file, relative to the folder of packages.
        sha256: Its digest in hexadecimal; "" for the RECORD itself and for byte code.
    """

    path: str
    sha256: str


def record_files(site_packages: Path) -> tuple[Path, ...]:
    """The RECORDs of all distributions, in a fixed order."""
    return tuple(sorted(site_packages.glob("*.dist-info/RECORD")))


def read_record(record: Path) -> Iterator[RecordedFile]:
    """The files that a distribution installed."""
    with record.open(encoding="utf-8", newline="") as file:
        for path, digest, *_ in csv.reader(file):
            yield RecordedFile(path, _hexadecimal(digest))


def records_digest(site_packages: Path) -> str:
    """One SHA-256 over all RECORDs: kept elsewhere, it shows whether one of them was changed."""
    digest = hashlib.sha256()
    for record in record_files(site_packages):
        digest.update(f"{record.parent.name}\0".encode())
        digest.update(hashlib.sha256(record.read_bytes()).digest())
    return digest.hexdigest()


def _hexadecimal(recorded: str) -> str:
    """`sha256=<URL-safe base64 without padding>` as hexadecimal."""
    algorithm, _, value = recorded.partition("=")
    if algorithm != "sha256":
        return ""
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()
