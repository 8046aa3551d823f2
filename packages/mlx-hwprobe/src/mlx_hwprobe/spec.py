"""A hardware specification in one word: a Mac by its chip, cores and memory, or by a file.

`m4-max:40:128` (chip : GPU cores : GB; the middle may be empty), a profile id (`m4-max-128`), or
the path of a saved profile or capture. Several with `+` between them are Macs that work together.
"""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass

from mlx_hwprobe.chips import bandwidth_of, chip_of_model, lookup, nearest_chips
from mlx_hwprobe.errors import InvalidDocumentError
from mlx_hwprobe.gpu_memory import gpu_memory_limit
from mlx_hwprobe.profile import BYTES_PER_GB, HardwareProfile

_COLONS = re.compile(r"(?P<chip>[^:/]+):(?P<cores>\d{0,4}):(?P<gb>\d{1,5})(?i:\s*gb)?")
_PROFILE_ID = re.compile(r"(?P<chip>[a-z]\d{1,3}(-?[a-z]+)?)-(?P<gb>\d{1,5})")
# "M4 Max with 16-core CPU and 40-core GPU" is how Apple sells it.
_OTHER_CORES = re.compile(r"(?i)\b\d{1,3}[\s-]*core[\s-]+(?:cpu|neural engine)\b")
_CORES = re.compile(r"(?i)\b([1-9]\d{0,3})[\s-]*(?:gpu[\s-]*)?cores?(?:[\s-]*gpu)?\b")
_GIGABYTES = re.compile(r"(?i)\b([1-9]\d{0,4})\s*gb\b")
_BESIDE_THE_CHIP = re.compile(
    r"(?i)\b(?:macbook(?: pro| air| neo)?|mac (?:mini|studio|pro)|imac"
    r"|with|and|unified|memory|ram)\b|[();]|,(?!\d)"
)
_TOGETHER = "Several Macs have `+` between them: m4-max:40:128+m2-ultra:76:192."
_FORMS = "Give chip:GPU cores:GB (m4-max:40:128, m4-max::128), a profile ID (m4-max-128) or a file."


def parse_hardware_spec(text: str) -> HardwareProfile:
    """The machine that a hardware specification names, owned or not.

    What the specification leaves open is filled in where the table leaves no choice, and is None
    else. The memory size is taken as given, also where Apple never sold it.

    Raises:
        UnknownChipError: The table has no such chip, or not with that many GPU cores.
        InvalidDocumentError: It is none of the three forms, or the file is damaged.
        NotAppleSiliconError: The file is the capture of an Intel Mac.
        HwprobeError: The file is a capture from which nothing could be read.
    """
    named = _parse(text)
    if named is None:
        return _load(text)
    return describe_mac(named.chip, gpu_cores=named.gpu_cores, memory_gb=named.memory_gb)


MOST_MACS = 8
"""The most that a specification may name."""


def parse_hardware_specs(text: str) -> tuple[HardwareProfile, ...]:
    """The machines that `text` names, in its order: one specification, or several with `+` between.

    A path that has a `+` itself is read as a path if there is such a file.

    Raises:
        InvalidDocumentError: A part is empty, or none of the three forms; or there are too many.
        UnknownChipError: The table has no such chip, or not with that many GPU cores.
        NotAppleSiliconError: A file is the capture of an Intel Mac.
        HwprobeError: A file is a capture from which nothing could be read.
    """
    parts = [text] if os.path.exists(text) else text.split("+")  # noqa: PTH110 - as in _load
    if len(parts) > MOST_MACS:
        raise InvalidDocumentError(
            f"{len(parts)} machines are too many", hint=f"Name at most {MOST_MACS}."
        )
    if len(parts) > 1 and not all(part.strip() for part in parts):
        raise InvalidDocumentError(
            f"{text!r} names no machine on one side of a `+`", hint=f"{_FORMS} {_TOGETHER}"
        )
    return tuple(parse_hardware_spec(part) for part in parts)


@dataclass(frozen=True, slots=True)
class NamedMac:
    """What a few words say of a Mac; None is what they leave open."""

    chip: str
    gpu_cores: int | None
    memory_gb: int | None


def parse_mac_name(text: str) -> NamedMac:
    """What people call a Mac: a chip, perhaps with cores and memory, or a model identifier.

    "M4 Max", "m4max", "M4 Max 40-core 128 GB", "MacBook Pro (M4 Max, 128GB)", "m4-max:40:128",
    "m4-max-128" and "Mac16,9".
    """
    named = _parse(text)
    if named is not None:
        return named
    rest = _OTHER_CORES.sub(" ", text.replace("\N{NON-BREAKING HYPHEN}", "-"))
    cores, memory_gb = _CORES.search(rest), _GIGABYTES.search(rest)
    for known in (_GIGABYTES, _CORES, _BESIDE_THE_CHIP):
        rest = known.sub(" ", rest)
    chip = " ".join(rest.split()) or text
    return NamedMac(
        chip_of_model(chip) or chip,
        int(cores[1]) if cores else None,
        int(memory_gb[1]) if memory_gb else None,
    )


def _parse(text: str) -> NamedMac | None:
    """What the text says where it is not a file's path."""
    match = _COLONS.fullmatch(text.strip()) or _PROFILE_ID.fullmatch(text.strip().lower())
    if match is None:
        return None
    parts = match.groupdict()
    cores, memory_gb = parts.get("cores"), int(parts["gb"])
    if memory_gb == 0:
        raise InvalidDocumentError(f"{text!r} has no memory size", hint=_FORMS)
    return NamedMac(parts["chip"], int(cores) if cores else None, memory_gb)


def describe_mac(
    chip_name: str, *, gpu_cores: int | None = None, memory_gb: float | None = None
) -> HardwareProfile:
    """The profile of a Mac with this chip, from the table alone.

    Raises:
        UnknownChipError: The table has no such chip, or not with that many GPU cores.
    """
    rows = lookup(chip_name, gpu_cores=gpu_cores)
    rows = tuple(row for row in rows if memory_gb in row.memory_options_gb) or rows
    if memory_gb is None:
        memory_gb = _only({size for row in rows for size in row.memory_options_gb})
    memory_bytes = None if memory_gb is None else round(memory_gb * BYTES_PER_GB)
    bandwidth = bandwidth_of(rows[0].chip, gpu_cores=gpu_cores, memory_gb=memory_gb)
    limit = gpu_memory_limit(memory_bytes)
    cpus = _only({tuple(cores.items()) for row in rows for cores in row.cpu_cores_options})
    return HardwareProfile(
        chip=rows[0].chip,
        gpu_cores=_only({row.gpu_cores for row in rows}),
        memory_bytes=memory_bytes,
        memory_bandwidth_gb_s=bandwidth.gb_s if bandwidth else None,
        bandwidth_source=bandwidth.source if bandwidth else None,
        gpu_memory_limit_bytes=limit.limit_bytes if limit else None,
        gpu_memory_limit_source=limit.source if limit else None,
        cpu_cores=dict(cpus) if cpus else None,
    )


def _only[T](values: set[T]) -> T | None:
    return next(iter(values)) if len(values) == 1 else None


def _load(text: str) -> HardwareProfile:
    from mlx_hwprobe.detection import load_profile

    # Not Path.is_file: it raises for a name that is too long, or in a folder that is closed to us.
    if not os.path.exists(text) or os.path.isdir(text):  # noqa: PTH110, PTH112
        nearest = nearest_chips(re.split(r"[:\d]{2,}", text)[0])
        raise InvalidDocumentError(
            f"{text!r} is neither a hardware specification nor a file",
            hint=_FORMS + (f" The nearest chips: {', '.join(nearest)}." if nearest else ""),
        )
    return load_profile(text)
