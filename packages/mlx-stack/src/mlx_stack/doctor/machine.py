"""The machine: chip, translation, macOS, GPU memory, free disk."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from mlx_hwprobe import HardwareProfile, detect
from mlx_stack.doctor.finding import Finding, ok

_OLDEST_MACOS = 14
_LITTLE_DISK_BYTES = 20 * 10**9
_NO_DISK_BYTES = 2 * 10**9
_GIB = 2**30
_MACOS_BYTES = 2 * _GIB
"""With less than this, macOS itself gets into trouble."""


def check_machine() -> Iterator[Finding]:
    """The chip and the operating system.

    Raises:
        HwprobeError: Nothing could be read, or this is a Mac with an Intel processor.
    """
    profile = detect()
    yield from describe_chip(profile)
    yield from describe_macos(profile.os_version or "")


def describe_chip(profile: HardwareProfile) -> Iterator[Finding]:
    """What the hardware profile means for serving models."""
    name = profile.chip or "this machine"
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
            f"{name} is no Apple Silicon Mac: models run on the CPU.",
            "This is for development; speed estimates need a Mac.",
        )
    elif profile.is_virtual_machine:
        yield Finding(
            "chip",
            "warning",
            f"{name} in a virtual machine.",
            "Its GPU is a paravirtual one, or there is none: models run slowly or not at all.",
        )
    else:
        memory = f"{profile.memory_gb} GB, {profile.memory_bandwidth_gb_s} GB/s"
        yield ok("chip", f"{name}, {memory}.")
        yield from _describe_gpu_memory(profile)


def _describe_gpu_memory(profile: HardwareProfile) -> Iterator[Finding]:
    """How much memory models may take, and whether macOS is left enough."""
    limit_bytes, memory_bytes = profile.gpu_memory_limit_bytes, profile.memory_bytes
    if limit_bytes is None or memory_bytes is None:
        return
    limit = f"The GPU may use {limit_bytes / _GIB:.0f} GB of the {profile.memory_gb} GB"
    if profile.gpu_memory_limit_source == "sysctl" and memory_bytes - limit_bytes < _MACOS_BYTES:
        yield Finding(
            "gpu-memory",
            "warning",
            f"{limit}: iogpu.wired_limit_mb was raised.",
            "What is left is too little for macOS, which then swaps or panics.",
            "sudo sysctl iogpu.wired_limit_mb=0",
        )
    else:
        yield ok("gpu-memory", f"{limit}.")


def describe_macos(os_version: str) -> Iterator[Finding]:
    """Whether this macOS is known to work with MLX; nothing where it is no macOS."""
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
        # https://github.com/ml-explore/mlx/issues/3186 and /3346; 27 had no report when this was
        # written
        yield Finding(
            "macos",
            "warning",
            f"{os_version} can panic under long prompts that fill the GPU's memory "
            "(`completeMemory() prepare count underflow`).",
            "A defect of macOS 26.3 to 26.5, reported with MLX by many.",
            "Keep `memory-budget-pct` at 60 or less, or upgrade to macOS 27.",
        )
    else:
        yield ok("macos", f"{os_version}.")


def check_disk(*folders: Path) -> Iterator[Finding]:
    """Free space where models and state go."""
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
                "State files and logs can't be written safely on a full disk.",
                "Free space: `mlx-stack models` shows what each model takes, "
                "`mlx-stack engines prune` removes old engines.",
            )
        elif free_bytes < _LITTLE_DISK_BYTES:
            yield Finding(
                "disk", "warning", f"Only {free}.", "A model takes 5 GB to 300 GB.", "Free space."
            )
        else:
            yield ok("disk", f"{free}.")
