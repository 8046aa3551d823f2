"""How much of its memory a Mac lets the GPU use (decision 0031).

Apple documents no rule. The figures are Metal's `recommendedMaxWorkingSetSize` with
`iogpu.wired_limit_mb` at its default of 0, published for real Macs (by llama.cpp's start-up line,
`mx.device_info()` and Metal itself). The share grew during macOS 15, so the figures up to
macOS 14 and those from macOS 26 on are two columns.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlx_hwprobe.profile import GpuMemoryLimitSource

_GIB = 1 << 30

# macOS versions that the two columns were measured on; between them the share changed.
_LAST_OLD_MACOS = 14
_FIRST_NEW_MACOS = 26
_LAST_MEASURED_MACOS = 27

# Memory in units of 2^30 bytes -> bytes for the GPU. Where the published figure is rounded to
# 10 kB, the multiple of Apple's 16 KiB page next to the share that it stands for.
_MEASURED_OLD: Mapping[int, int] = {
    8: 5_726_633_984,
    16: 11_453_251_584,
    24: 17_179_885_568,
    32: 22_906_503_168,
    48: 38_654_705_664,
    64: 51_539_607_552,
    192: 154_618_822_656,
}
_MEASURED_NEW: Mapping[int, int] = {
    8: 5_726_633_984,
    16: 12_713_115_648,
    24: 19_069_665_280,
    32: 26_800_603_136,
    36: 30_150_672_384,
    48: 40_200_896_512,
    64: 55_662_788_608,
    128: 115_448_725_504,
    192: 173_173_080_064,
    256: 223_338_299_392,
    512: 498_216_206_336,
}

# From how many GB on which share, fitted to the points above. Between two of them the smaller
# share holds, so an estimate errs on the side of a model that does fit.
_NEW_SHARES = ((128, 0.84), (64, 0.81), (32, 0.78), (16, 0.74))
_NEW_RESERVE_FROM_GB = 256
_NEW_RESERVE_BYTES = 48 * _GIB
# Where 36 GB itself fell in the old rule is disputed: it gets the smaller share.
_OLD_LARGE_ABOVE_GB = 36


@dataclass(frozen=True, slots=True)
class GpuMemoryLimit:
    """How many bytes of memory the GPU may use, and where the figure is from."""

    limit_bytes: int
    source: GpuMemoryLimitSource


def gpu_memory_limit(
    memory_bytes: int | None,
    *,
    os_version: str | None = None,
    wired_limit_bytes: int | None = None,
    metal_limit_bytes: int | None = None,
    measured_applies: bool = True,
) -> GpuMemoryLimit | None:
    """How much memory the GPU may use, by the best that is known.

    Args:
        os_version: macOS's version, "26.5.2".
        wired_limit_bytes: What `iogpu.wired_limit_mb` asks for; 0 and None mean the default.
        metal_limit_bytes: Metal's own `recommendedMaxWorkingSetSize`.
        measured_applies: False in a virtual machine: the measured Macs were real ones.

    Returns:
        The limit, never above the memory; None where nothing is known.
    """
    ceiling = memory_bytes if memory_bytes is not None else float("inf")
    if wired_limit_bytes:
        return GpuMemoryLimit(int(min(wired_limit_bytes, ceiling)), "sysctl")
    if metal_limit_bytes:
        return GpuMemoryLimit(int(min(metal_limit_bytes, ceiling)), "metal")
    if memory_bytes is None:
        return None
    macos = _major(os_version)
    whole_gb, rest = divmod(memory_bytes, _GIB)
    if macos is not None and measured_applies and not rest:
        column = _measured(macos)
        if whole_gb in column:
            return GpuMemoryLimit(column[whole_gb], "table")
    return GpuMemoryLimit(_estimate(memory_bytes, macos if measured_applies else None), "estimate")


def _measured(macos: int) -> Mapping[int, int]:
    if macos <= _LAST_OLD_MACOS:
        return _MEASURED_OLD
    if macos < _FIRST_NEW_MACOS:
        return dict(_MEASURED_OLD.items() & _MEASURED_NEW.items())  # what never changed
    return _MEASURED_NEW if macos <= _LAST_MEASURED_MACOS else {}


def _estimate(memory_bytes: int, macos: int | None) -> int:
    gb = memory_bytes / _GIB
    if macos is not None and macos >= _FIRST_NEW_MACOS:
        if gb >= _NEW_RESERVE_FROM_GB:
            return memory_bytes - _NEW_RESERVE_BYTES
        for from_gb, share in _NEW_SHARES:
            if gb >= from_gb:
                below_reserve = _NEW_RESERVE_FROM_GB * _GIB - _NEW_RESERVE_BYTES
                return min(int(memory_bytes * share), below_reserve)
    if gb > _OLD_LARGE_ABOVE_GB:
        return memory_bytes * 3 // 4
    return memory_bytes * 2 // 3


def _major(os_version: str | None) -> int | None:
    match = re.match(r"(\d{1,3})(\.|$)", os_version or "")
    return int(match[1]) if match else None
