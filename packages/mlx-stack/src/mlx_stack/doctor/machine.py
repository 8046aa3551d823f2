"""The machine: chip, macOS, GPU memory, free disk, and whether it recovers from a power cut."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from mlx_hwprobe import HardwareProfile, detect
from mlx_stack.autostart.mac import this_mac
from mlx_stack.autostart.status import read_install_status
from mlx_stack.doctor.finding import Finding, Severity, ok
from mlx_stack.errors import MissingError
from mlx_stack.format import format_bytes
from mlx_stack.home import Home
from mlx_stack.man_page import man_page

_OLDEST_MACOS = 14
_LITTLE_DISK_BYTES = 20 * 10**9
_NO_DISK_BYTES = 2 * 10**9
_GIB = 2**30
_MACOS_BYTES = 2 * _GIB
"""With less than this, macOS itself gets into trouble."""
_SEVERITIES: dict[str, Severity] = {
    "ok": "ok",
    "prevents": "warning",
    "warning": "warning",
    "unknown": "info",
}


def check_machine() -> Iterator[Finding]:
    """The chip, the GPU's memory and the operating system.

    Raises:
        HwprobeError: When nothing can be read, or this is a Mac with an Intel processor.
    """
    profile = detect()
    yield from _check_chip(profile)
    yield from _check_macos(profile.os_version or "")


def _check_chip(profile: HardwareProfile) -> Iterator[Finding]:
    name = profile.chip or "unknown processor"
    if profile.is_rosetta:
        yield Finding(
            "rosetta",
            "problem",
            "This Python runs under Rosetta, as a program for Intel.",
            "MLX needs a native process to reach the GPU.",
            "Install a Python for arm64 and install mlx-stack with it.",
        )
    elif profile.hw_model is None:
        yield Finding(
            "chip",
            "info",
            f"This isn't an Apple Silicon Mac ({name}): models run on the CPU.",
            "This is for development; speed estimates need a Mac.",
        )
    elif profile.is_virtual_machine:
        yield Finding(
            "chip",
            "warning",
            f"{name} in a virtual machine.",
            "Its GPU is paravirtual or missing: models run slowly or not at all.",
        )
    else:
        memory = f"{profile.memory_gb} GB, {profile.memory_bandwidth_gb_s} GB/s"
        yield ok("chip", f"{name}, {memory}.")
        yield from _check_gpu_memory(profile)


def _check_gpu_memory(profile: HardwareProfile) -> Iterator[Finding]:
    limit_bytes, memory_bytes = profile.gpu_memory_limit_bytes, profile.memory_bytes
    if limit_bytes is None or memory_bytes is None:
        return
    limit = f"The GPU may use {format_bytes(limit_bytes)} of the {format_bytes(memory_bytes)}"
    if profile.gpu_memory_limit_source == "sysctl" and memory_bytes - limit_bytes < _MACOS_BYTES:
        yield Finding(
            "gpu-memory",
            "warning",
            f"{limit}: iogpu.wired_limit_mb was raised.",
            "Too little memory is left for macOS, which then swaps or panics.",
            "sudo sysctl iogpu.wired_limit_mb=0",
        )
    else:
        yield ok("gpu-memory", f"{limit}.")


def _check_macos(os_version: str) -> Iterator[Finding]:
    match = re.search(r"macOS (?P<major>\d+)(?:\.(?P<minor>\d+))?", os_version)
    if match is None:
        return
    version = int(match["major"]), int(match["minor"] or 0)
    if version[0] < _OLDEST_MACOS:
        yield Finding(
            "macos",
            "problem",
            f"{os_version} is too old: MLX needs macOS {_OLDEST_MACOS} or later.",
            fix="Upgrade macOS.",
        )
    elif (26, 3) <= version < (27, 0):
        # https://github.com/ml-explore/mlx/issues/3186 and /3346; there were no reports for macOS
        # 27 when this was written
        yield Finding(
            "macos",
            "warning",
            f"{os_version} can panic under long prompts that fill the GPU's memory "
            "(`completeMemory() prepare count underflow`).",
            "A defect of macOS 26.3 to 26.5, widely reported with MLX.",
            "Keep `memory-budget-pct` at 60 or less, or upgrade to macOS 27.",
        )
    else:
        yield ok("macos", f"{os_version}.")


def check_disk(*folders: Path) -> Iterator[Finding]:
    """Free space on the disks of the folders."""
    seen: set[int] = set()
    for folder in folders:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        device = existing.stat().st_dev
        if device in seen:
            continue
        seen.add(device)
        free_bytes = shutil.disk_usage(existing).free
        free = f"{free_bytes / 1e9:.0f} GB free for {folder}"
        if free_bytes < _NO_DISK_BYTES:
            yield Finding(
                "disk",
                "problem",
                f"Only {free}.",
                "On a full disk, state files and logs can't be written safely.",
                "Free space: `mlx-stack models` shows the size of each model, "
                "`mlx-stack doctor --fix` removes old engines.",
            )
        elif free_bytes < _LITTLE_DISK_BYTES:
            yield Finding(
                "disk", "warning", f"Only {free}.", "A model takes 5 GB to 300 GB.", "Free space."
            )
        else:
            yield ok("disk", f"{free}.")


def check_power(home: Home) -> Iterator[Finding]:
    """Whether the stack comes back after a power cut; nothing on a machine without launchd.

    Raises:
        LaunchdError: When launchctl doesn't answer.
    """
    try:
        mac = this_mac()
    except MissingError:
        return
    if shutil.which("plutil") is None:
        yield Finding("plutil", "warning", "`plutil` is missing: agents can't be checked.")
    status = read_install_status(home, mac)
    if status.kind is None:
        yield Finding(
            "launchd",
            "info",
            "The watchdog isn't installed: nothing starts the stack after a reboot.",
            fix="mlx-stack install",
        )
    elif not status.running:
        how = f"it last {status.last_end}" if status.last_end else status.job.state or "not loaded"
        if status.missing_program is not None:
            how = f"its program {status.missing_program} is gone"
        yield Finding(
            "launchd",
            "problem",
            f"The watchdog is installed but not running ({how}).",
            fix="mlx-stack install, then mlx-stack logs watchdog",
        )
    else:
        yield ok("launchd", f"The watchdog runs under launchd (PID {status.job.pid}).")
    for finding in status.outlook.findings:
        severity = _SEVERITIES[finding.verdict]
        yield Finding(f"boot-{finding.name}", severity, finding.message, fix=finding.fix)


def check_man_page() -> Iterator[Finding]:
    """Whether `man mlx-stack` finds the page of this installation."""
    page = man_page()
    if page is not None and not page.is_found:
        yield Finding(
            "man-page",
            "info",
            "`man mlx-stack` doesn't find the manual yet.",
            fix=f"`mlx-stack doctor --fix` links it to {page.link.parent}.",
            repair=page.put_in_place,
            repaired="`man mlx-stack` finds the manual now.",
        )
