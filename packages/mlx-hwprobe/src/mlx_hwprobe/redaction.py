"""Removing from a capture everything that names a person or a machine (decision 0033).

What may stay is listed; everything else goes. So a key that Apple adds tomorrow is left out.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, cast

from mlx_hwprobe import _darwin, _linux
from mlx_hwprobe.capture import Capture, ProgramOutput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

REMOVED = "(removed)"

_SYSCTL_KEPT = re.compile(
    r"(hw\.(memsize|model|ncpu|nperflevels|cputype|perflevel\d\.(name|physicalcpu(_max)?))"
    r"|hw\.optional\.arm64|machdep\.cpu\.(brand_string|vendor|core_count)"
    r"|sysctl\.proc_translated|kern\.(hv_vmm_present|osproductversion)"
    r"|(debug\.)?iogpu\.[a-z_]+)(:|\s*=)\s*\S"
)
_IOREG_KEPT = re.compile(r'\+-o AGXAccelerator\w*|"(model|gpu-core-count|IOClass)"\s*=')
_SW_VERS_KEPT = re.compile(r"(ProductName|ProductVersion|BuildVersion):")
_MEMINFO_KEPT = re.compile(r"MemTotal:")
_CPU_KEPT = re.compile(r"(model name|Model name|Model)\s*:")
_OS_RELEASE_KEPT = re.compile(r"(PRETTY_NAME|ID|VERSION_ID)=")
_ANYTHING = re.compile(r".")

_HARDWARE_KEYS = frozenset(
    {"chip_type", "cpu_type", "machine_model", "number_processors", "packages", "physical_memory"}
)
_DISPLAY_KEYS = frozenset(
    {
        "_name",
        "spdisplays_metal",
        "spdisplays_metalfamily",
        "spdisplays_mtlgpufamilysupport",
        "spdisplays_vendor",
        "sppci_bus",
        "sppci_cores",
        "sppci_device_type",
        "sppci_model",
    }
)
_METAL_KEYS = frozenset(
    {
        "architecture",
        "device_name",
        "max_buffer_length",
        "max_recommended_working_set_size",
        "memory_size",
        "resource_limit",
    }
)

# Second line of defence, for a value that should not have held such a thing.
_UUID = re.compile(r"\b[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\b")
_PROVISIONING_ID = re.compile(r"\b[0-9A-F]{8}-[0-9A-F]{16}\b")
_SERIAL = re.compile(r"\b(?=[A-Z0-9]*[A-Z])(?=[A-Z0-9]*\d)[A-Z0-9]{10,17}\b")
_MAC_ADDRESS = re.compile(r"\b[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}\b")
# A user called "max" does not make the chip private.
_HARDWARE_WORDS = frozenset(
    {"amd", "apple", "core", "cores", "cpu", "debian", "efficiency", "geforce", "gpu", "hypervisor"}
    | {"intel", "linux", "mac", "macos", "max", "model", "name", "nvidia", "performance", "pro"}
    | {"processor", "standard", "super", "ubuntu", "ultra", "virtual", "xeon"}
)


def redact(capture: Capture, *, names: Iterable[str] = ()) -> Capture:
    """A capture that may be published: the same profile, and nothing about its owner.

    Serial numbers, UUIDs, hardware addresses, user and host names, displays, and every key that
    the profile does not depend on are removed. An output of a name that is not known here is
    left out; so is the text of JSON that is damaged.

    Args:
        names: The user's and the host's names, to be removed wherever they stand as a word.
    """
    private = _private_words(names)
    return Capture(
        {
            name: ProgramOutput(output.returncode, _scrub(_KEEP[name](output.stdout), private))
            for name, output in capture.outputs.items()
            if name in _KEEP
        }
    )


def _private_words(names: Iterable[str]) -> re.Pattern[str] | None:
    words = {name.strip() for name in names}
    telling = sorted(w for w in words if len(w) > 1 and w.lower() not in _HARDWARE_WORDS)
    if not telling:
        return None
    return re.compile(rf"(?<!\w)({'|'.join(map(re.escape, telling))})(?!\w)", re.IGNORECASE)


def _scrub(text: str, private: re.Pattern[str] | None) -> str:
    for pattern in (_UUID, _PROVISIONING_ID, _MAC_ADDRESS, _SERIAL, private):
        if pattern is not None:
            text = pattern.sub(REMOVED, text)
    return text


def _lines(kept: re.Pattern[str]) -> Callable[[str], str]:
    def keep(text: str) -> str:
        return "".join(f"{line}\n" for line in text.splitlines() if kept.match(line.strip()))

    return keep


def _entries(data_type: str, kept: frozenset[str]) -> Callable[[str], str]:
    def keep(text: str) -> str:
        entries = _darwin.parse_object(text).get(data_type)
        if not isinstance(entries, list):
            return ""
        shown = [_only(entry, kept) for entry in cast("list[object]", entries)]
        return json.dumps({data_type: shown}, indent=2)

    return keep


def _keys(kept: frozenset[str]) -> Callable[[str], str]:
    def keep(text: str) -> str:
        document = _darwin.parse_object(text)
        return json.dumps(_only(document, kept), indent=2) if document else ""

    return keep


def _cpuinfo(text: str) -> str:
    """The processor's name once, and of its many flags only the one that tells a guest."""
    name = next((line for line in text.splitlines() if _CPU_KEPT.match(line)), None)
    lines = [name] if name else []
    return "".join(f"{line}\n" for line in [*lines, *_HYPERVISOR[: _linux.is_virtual(text)]])


_HYPERVISOR = ("flags\t\t: hypervisor",)


def _only(item: object, kept: frozenset[str]) -> dict[str, Any]:
    if not isinstance(item, dict):
        return {}
    keys = cast("dict[str, Any]", item)
    return {
        key: value for key, value in keys.items() if key in kept and isinstance(value, str | int)
    }


_KEEP: dict[str, Callable[[str], str]] = {
    _darwin.SYSCTL: _lines(_SYSCTL_KEPT),
    _darwin.IOREG: _lines(_IOREG_KEPT),
    _darwin.SW_VERS: _lines(_SW_VERS_KEPT),
    _darwin.DISPLAYS: _entries("SPDisplaysDataType", _DISPLAY_KEYS),
    _darwin.HARDWARE: _entries("SPHardwareDataType", _HARDWARE_KEYS),
    _darwin.METAL: _keys(_METAL_KEYS),
    _linux.CPUINFO: _cpuinfo,
    _linux.LSCPU: _lines(_CPU_KEPT),
    _linux.MEMINFO: _lines(_MEMINFO_KEPT),
    _linux.OS_RELEASE: _lines(_OS_RELEASE_KEPT),
    _linux.NVIDIA_SMI: _lines(_ANYTHING),
}
