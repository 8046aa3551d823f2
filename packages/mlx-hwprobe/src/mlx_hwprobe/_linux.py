"""A Linux host's profile from what the kernel and its programs say (decision 0034): pure parsers.

The same shape as a Mac's, with what a Linux host has no counterpart for left None.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mlx_hwprobe.profile import HardwareProfile

if TYPE_CHECKING:
    from mlx_hwprobe.capture import Capture

CPUINFO = "cpuinfo"
MEMINFO = "meminfo"
OS_RELEASE = "os-release"
LSCPU = "lscpu"
NVIDIA_SMI = "nvidia-smi"


def linux_profile(capture: Capture) -> HardwareProfile:
    """The profile of the Linux host that a capture was made on."""
    cpuinfo = capture.stdout(CPUINFO)
    cards = parse_nvidia_smi(capture.stdout(NVIDIA_SMI))
    names = [
        parse_cpu_name(cpuinfo) or parse_cpu_name(capture.stdout(LSCPU)),
        *(n for n, _ in cards[:1]),
    ]
    limit = max((size for _, size in cards if size), default=None)
    return HardwareProfile(
        chip=" + ".join(name for name in names if name) or None,
        memory_bytes=parse_meminfo(capture.stdout(MEMINFO)),
        gpu_memory_limit_bytes=limit,
        gpu_memory_limit_source="nvidia-smi" if limit else None,
        os_version=parse_os_release(capture.stdout(OS_RELEASE)),
        is_virtual_machine=is_virtual(cpuinfo),
    )


def parse_cpu_name(text: str) -> str | None:
    """The processor's name from /proc/cpuinfo or `lscpu`."""
    match = re.search(r"^(?:model name|Model name|Model)\s*:\s*(\S.*)$", text, re.MULTILINE)
    return _tidy(re.sub(r"\((R|TM|r|tm)\)", "", match[1])) if match else None


def parse_meminfo(text: str) -> int | None:
    """The memory that the kernel manages, in bytes, from /proc/meminfo."""
    match = re.search(r"^MemTotal:\s*(\d{1,15}) kB$", text, re.MULTILINE)
    return int(match[1]) * 1024 or None if match else None


def parse_os_release(text: str) -> str | None:
    """The distribution's name and version from /etc/os-release."""
    match = re.search(r'^PRETTY_NAME="?([^"\n]{1,120})"?$', text, re.MULTILINE)
    return _tidy(match[1]) if match else None


def parse_nvidia_smi(text: str) -> list[tuple[str, int | None]]:
    """Each card's name and memory in bytes, from nvidia-smi's CSV of name and memory.total.

    A card that shares the processor's memory shows "[N/A]".
    """
    cards = re.findall(
        r"^([^,\n]{1,80}),\s*(\d{1,9}(?=\s*(?:MiB)?\s*$)|\[N/A\])", text, re.MULTILINE
    )
    return [
        (_tidy(name) or "NVIDIA GPU", int(mib) << 20 if mib.isdigit() else None)
        for name, mib in cards
    ]


def is_virtual(cpuinfo: str) -> bool:
    """Whether the processor says that a hypervisor runs under the kernel."""
    return re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE) is not None


def _tidy(text: str) -> str | None:
    """A name in one line without control characters, at most 120 characters of it."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(printable.split())[:120] or None
