"""The locks shipped with the package: which packages an engine's environment holds, to the byte."""

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import Literal


class Engine(StrEnum):
    """The programs that are installed into environments of their own."""

    VLLM_MLX = "vllm-mlx"
    LITELLM = "litellm"


type LockName = Engine | Literal["embedded-model"]

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)(?: ; (?P<marker>.+?))?(?: \\)?$")


@dataclass(frozen=True, slots=True)
class Pin:
    """One package of a lock.

    Attributes:
        name: The distribution's normalized name.
        version: The one version that may be installed.
        marker: Where it is needed, as an environment marker; "" is everywhere.
    """

    name: str
    version: str
    marker: str


@dataclass(frozen=True, slots=True)
class Lock:
    """A universal lock: a requirements file with one version and the hashes of each package.

    Attributes:
        text: The file's content.
    """

    text: str

    @property
    def digest(self) -> str:
        """The SHA-256 of the content, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def pins(self) -> tuple[Pin, ...]:
        """The packages, for all platforms."""
        matches = (_PIN.match(line) for line in self.text.splitlines())
        return tuple(
            Pin(match["name"], match["version"], match["marker"] or "")
            for match in matches
            if match is not None
        )

    def version_of(self, name: str) -> str:
        """The version that `name` is pinned to.

        Raises:
            KeyError: The lock doesn't hold it.
        """
        return {pin.name: pin.version for pin in self.pins}[name]


def shipped_lock(name: LockName) -> Lock:
    """The lock of that name in this version of mlx-stack."""
    file = resources.files("mlx_stack.engines") / "locks" / f"{name}.txt"
    return Lock(file.read_text(encoding="utf-8"))
