"""What is known about one machine, and the JSON form that others read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from mlx_hwprobe.errors import InvalidDocumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA_VERSION = 1

BandwidthSource = Literal["table", "table-by-memory", "measured", "estimate"]
"""Where a bandwidth is from: the chip's row, the row that the memory size picks, or neither."""

GpuMemoryLimitSource = Literal["sysctl", "metal", "table", "estimate", "nvidia-smi"]
"""Where a limit is from: set by hand, asked of Metal, measured on such Macs, or inferred.

`nvidia-smi` is the memory of a Linux host's own graphics card.
"""

BANDWIDTH_SOURCES: tuple[str, ...] = get_args(BandwidthSource)
LIMIT_SOURCES: tuple[str, ...] = get_args(GpuMemoryLimitSource)

BYTES_PER_GB = 1 << 30
"""Memory sizes are sold in units of 2^30 bytes that are called GB."""


# No machine has as much of anything: what is larger is damage.
_LARGEST = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareProfile:
    """One machine as far as it is known; what is not known is None.

    Attributes:
        chip: "M4 Max"; on Linux the processor's own name; None on an Intel Mac.
        memory_bytes: Unified memory; on Linux the memory that the kernel manages.
        memory_bandwidth_gb_s: Decimal GB/s, as Apple prints it unless the source says otherwise.
        gpu_memory_limit_bytes: How much memory the GPU may use.
        cpu_cores: Physical cores by the performance level's lower-case name.
        hw_model: "Mac16,9".
        os_version: "26.5.2"; on Linux the distribution's name and version.
        is_virtual_machine: Whether macOS or Linux runs in a virtual machine.
        is_rosetta: Whether the reading process was an Intel one, translated.
    """

    chip: str | None = None
    gpu_cores: int | None = None
    memory_bytes: int | None = None
    memory_bandwidth_gb_s: float | None = None
    bandwidth_source: BandwidthSource | None = None
    gpu_memory_limit_bytes: int | None = None
    gpu_memory_limit_source: GpuMemoryLimitSource | None = None
    cpu_cores: Mapping[str, int] | None = field(default=None, hash=False)
    hw_model: str | None = None
    os_version: str | None = None
    is_virtual_machine: bool = False
    is_rosetta: bool = False

    @property
    def memory_gb(self) -> float | None:
        """Memory in units of 2^30 bytes: an int where it is whole, else to a tenth."""
        return None if self.memory_bytes is None else bytes_to_gb(self.memory_bytes)

    @property
    def profile_id(self) -> str | None:
        """Chip and memory as one word, "m4-max-128"; None where either is unknown."""
        if self.chip is None or self.memory_bytes is None:
            return None
        words = re.sub(r"[^a-z0-9]+", "-", self.chip.lower()).strip("-")
        return f"{words}-{round(self.memory_bytes / BYTES_PER_GB)}" if words else None

    @property
    def is_apple_silicon(self) -> bool:
        """Whether the chip is one of Apple's, known to the table or not."""
        return self.chip is not None and re.match(r"[MA]\d+\b", self.chip) is not None

    def to_document(self) -> dict[str, Any]:
        """The profile as JSON values, under the names and in the order that others rely on."""
        return {
            "schema_version": SCHEMA_VERSION,
            "chip": self.chip,
            "gpu_cores": self.gpu_cores,
            "memory_gb": self.memory_gb,
            "memory_bytes": self.memory_bytes,
            "memory_bandwidth_gb_s": self.memory_bandwidth_gb_s,
            "bandwidth_source": self.bandwidth_source,
            "gpu_memory_limit_bytes": self.gpu_memory_limit_bytes,
            "gpu_memory_limit_source": self.gpu_memory_limit_source,
            "cpu_cores": None if self.cpu_cores is None else dict(self.cpu_cores),
            "hw_model": self.hw_model,
            "os_version": self.os_version,
            "is_virtual_machine": self.is_virtual_machine,
            "is_rosetta": self.is_rosetta,
            "profile_id": self.profile_id,
        }

    @classmethod
    def from_document(cls, document: object) -> HardwareProfile:
        """The profile that `to_document` wrote; unknown keys are passed over.

        Raises:
            InvalidDocumentError: The document is not a profile, is of another version, or says
                something that no machine can be; `place` names the key.
        """
        keys = as_object(document)
        check_schema_version(keys, "profile")
        profile = cls(
            chip=_text(keys, "chip"),
            gpu_cores=_count(keys, "gpu_cores"),
            memory_bytes=_memory_bytes(keys),
            memory_bandwidth_gb_s=_number(keys, "memory_bandwidth_gb_s"),
            bandwidth_source=_one_of(keys, "bandwidth_source", BANDWIDTH_SOURCES),
            gpu_memory_limit_bytes=_count(keys, "gpu_memory_limit_bytes"),
            gpu_memory_limit_source=_one_of(keys, "gpu_memory_limit_source", LIMIT_SOURCES),
            cpu_cores=_cores(keys),
            hw_model=_text(keys, "hw_model"),
            os_version=_text(keys, "os_version"),
            is_virtual_machine=_flag(keys, "is_virtual_machine"),
            is_rosetta=_flag(keys, "is_rosetta"),
        )
        if profile.chip is None and profile.memory_bytes is None and "profile_id" not in keys:
            raise InvalidDocumentError(
                "names neither a chip nor a memory size, so it is not a profile",
                hint="`mlx-hwprobe --json` prints one.",
            )
        return profile


def bytes_to_gb(size_bytes: int) -> float:
    """A size in units of 2^30 bytes: an int where it is whole, else to a tenth."""
    whole, rest = divmod(size_bytes, BYTES_PER_GB)
    return round(size_bytes / BYTES_PER_GB, 1) if rest else whole


def as_object(value: object, place: str = "") -> dict[str, Any]:
    """The value, which must be a JSON object.

    Raises:
        InvalidDocumentError: It is something else.
    """
    if not isinstance(value, dict):
        raise InvalidDocumentError("expected a JSON object", place=place)
    return cast("dict[str, Any]", value)


def check_schema_version(keys: Mapping[str, object], kind: str) -> None:
    """Refuse a document whose `schema_version` is missing or another than 1."""
    version = keys.get("schema_version")
    if version is None:
        raise InvalidDocumentError(f"missing, so this is not a {kind}", place="schema_version")
    if type(version) is not int or version < 1:
        raise InvalidDocumentError(f"expected {SCHEMA_VERSION}", place="schema_version")
    if version != SCHEMA_VERSION:
        raise InvalidDocumentError(
            f"this {kind} has version {version}; this program reads version {SCHEMA_VERSION}",
            place="schema_version",
            hint="Upgrade mlx-hwprobe, or create the file again.",
        )


def _text(keys: Mapping[str, object], key: str) -> str | None:
    value = keys.get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidDocumentError("expected a string or null", place=key)
    if value and not value.isprintable():
        raise InvalidDocumentError("expected text that can be printed", place=key)
    return value or None


def _number(keys: Mapping[str, object], key: str) -> float | None:
    value = keys.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidDocumentError("expected a number or null", place=key)
    if not 0 < value <= _LARGEST:
        raise InvalidDocumentError("expected a number above 0 that a machine can have", place=key)
    return value


def _count(keys: Mapping[str, object], key: str) -> int | None:
    value = _number(keys, key)
    if isinstance(value, float):
        raise InvalidDocumentError("expected a whole number or null", place=key)
    return value


def _memory_bytes(keys: Mapping[str, object]) -> int | None:
    size_bytes, size_gb = _count(keys, "memory_bytes"), _number(keys, "memory_gb")
    if size_bytes is None:
        return None if size_gb is None else round(size_gb * BYTES_PER_GB) or None
    if size_gb is not None and abs(size_gb - size_bytes / BYTES_PER_GB) > 1:
        raise InvalidDocumentError("disagrees with memory_bytes", place="memory_gb")
    return size_bytes


def _flag(keys: Mapping[str, object], key: str) -> bool:
    value = keys.get(key, False)
    if not isinstance(value, bool):
        raise InvalidDocumentError("expected true or false", place=key)
    return value


def _one_of(keys: Mapping[str, object], key: str, known: tuple[str, ...]) -> Any:
    value = _text(keys, key)
    if value is not None and value not in known:
        raise InvalidDocumentError(f"expected one of {', '.join(known)}", place=key)
    return value


def _cores(keys: Mapping[str, object]) -> dict[str, int] | None:
    value = keys.get("cpu_cores")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InvalidDocumentError("expected an object or null", place="cpu_cores")
    cores: dict[str, int] = {}
    for name, count in cast("dict[str, object]", value).items():
        if not name.isprintable():
            raise InvalidDocumentError("expected names that can be printed", place="cpu_cores")
        if type(count) is not int or not 0 <= count <= _LARGEST:
            raise InvalidDocumentError("expected a whole number", place=f"cpu_cores.{name}")
        cores[name] = count
    return cores
