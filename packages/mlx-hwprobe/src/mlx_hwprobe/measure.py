"""Measuring memory bandwidth: how many bytes a second this machine really moves.

The kernels are STREAM's: copy (`c = a`) moves two arrays, triad (`c = a + s·b`) three. Counted are
the bytes that a program asks for; what a cache reads besides is not. MLX runs them on the GPU.
Where MLX is not installed, or has no GPU, the processor copies on every core, and the result says
so: MLX's own kernels for processors use one core and measure that.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mlx_hwprobe.profile import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlx_hwprobe.profile import HardwareProfile

Backend = Literal["mlx-gpu", "mlx-cpu", "cpu"]

DEFAULT_REPETITIONS = 10
DEFAULT_ARRAY_BYTES = 256 << 20
"""Well beyond every cache of every chip, and small next to the least memory a Mac has."""

_WARM_UP_RUNS = 2
_GB = 1e9


@dataclass(frozen=True, slots=True)
class KernelRuns:
    """One kernel's repetitions.

    Attributes:
        kernel: "copy" or "triad".
        bytes_per_run: What one repetition moves.
        runs_gb_s: Decimal GB/s of each repetition, in the order they ran.
    """

    kernel: str
    bytes_per_run: int
    runs_gb_s: tuple[float, ...]

    @property
    def median_gb_s(self) -> float:
        """The middle of the repetitions."""
        return statistics.median(self.runs_gb_s)

    @property
    def spread(self) -> float:
        """How far the repetitions are apart: (highest - lowest) / median."""
        return (max(self.runs_gb_s) - min(self.runs_gb_s)) / self.median_gb_s


@dataclass(frozen=True, slots=True)
class BandwidthMeasurement:
    """What was measured, on what.

    Attributes:
        backend: `mlx-gpu`, `mlx-cpu`, or `cpu` without MLX.
        device: The name of what did the work, or None.
    """

    backend: Backend
    device: str | None
    kernels: tuple[KernelRuns, ...]

    @property
    def best(self) -> KernelRuns:
        """The kernel with the highest median."""
        return max(self.kernels, key=lambda runs: runs.median_gb_s)

    def to_document(self, profile: HardwareProfile) -> dict[str, Any]:
        """The measurement as JSON values, with the table's figure for this machine."""
        table_gb_s = table_bandwidth(profile)
        best = self.best
        return {
            "schema_version": SCHEMA_VERSION,
            "chip": profile.chip,
            "profile_id": profile.profile_id,
            "backend": self.backend,
            "device": self.device,
            "memory_bandwidth_gb_s": round(best.median_gb_s, 1),
            "bandwidth_source": "measured",
            "low_gb_s": round(min(best.runs_gb_s), 1),
            "high_gb_s": round(max(best.runs_gb_s), 1),
            "spread": round(best.spread, 3),
            "table_gb_s": table_gb_s,
            "fraction_of_table": round(best.median_gb_s / table_gb_s, 3) if table_gb_s else None,
            "kernels": [
                {
                    "kernel": runs.kernel,
                    "bytes_per_run": runs.bytes_per_run,
                    "median_gb_s": round(runs.median_gb_s, 1),
                    "spread": round(runs.spread, 3),
                    "runs_gb_s": [round(value, 1) for value in runs.runs_gb_s],
                }
                for runs in self.kernels
            ],
        }


def table_bandwidth(profile: HardwareProfile) -> float | None:
    """The table's figure for this machine; None where the profile's figure is another's."""
    if profile.bandwidth_source in ("table", "table-by-memory"):
        return profile.memory_bandwidth_gb_s
    return None


def measure_bandwidth(
    *,
    repetitions: int = DEFAULT_REPETITIONS,
    array_bytes: int = DEFAULT_ARRAY_BYTES,
    use_mlx: bool | None = None,
) -> BandwidthMeasurement:
    """The bandwidth of this machine's memory, measured now; takes a few seconds.

    Args:
        use_mlx: None takes MLX where it is installed and has a GPU; True also without; False never.

    Raises:
        ImportError: MLX was asked for and is not installed.
    """
    if use_mlx is None:
        use_mlx = importlib.util.find_spec("mlx") is not None and _has_gpu(_mlx())
    if use_mlx:
        return _measure_with_mlx(_mlx(), repetitions, array_bytes)
    return _measure_on_cpu(repetitions, array_bytes)


def _mlx() -> Any:
    # Any: MLX is not a dependency, so the type checker does not know it.
    return importlib.import_module("mlx.core")


def _has_gpu(mx: Any) -> bool:
    return bool(mx.default_device() == mx.Device(mx.gpu))


def _time_runs(
    kernel: str, run: Callable[[], object], bytes_per_run: int, repetitions: int
) -> KernelRuns:
    for _ in range(_WARM_UP_RUNS):
        run()
    figures: list[float] = []
    for _ in range(repetitions):
        started = time.perf_counter()
        run()
        figures.append(bytes_per_run / (time.perf_counter() - started) / _GB)
    return KernelRuns(kernel, bytes_per_run, tuple(figures))


def _measure_with_mlx(mx: Any, repetitions: int, array_bytes: int) -> BandwidthMeasurement:
    describe = getattr(mx, "device_info", None)
    device = describe().get("device_name") if describe is not None else None
    count = array_bytes // 4
    a, b = mx.full((count,), 1.5, dtype=mx.float32), mx.full((count,), 2.5, dtype=mx.float32)
    copy, triad = mx.compile(_copy), mx.compile(_triad)
    mx.eval(a, b)
    kernels = (
        _time_runs("copy", lambda: mx.eval(copy(a)), 2 * count * 4, repetitions),
        _time_runs("triad", lambda: mx.eval(triad(a, b)), 3 * count * 4, repetitions),
    )
    return BandwidthMeasurement("mlx-gpu" if _has_gpu(mx) else "mlx-cpu", device, kernels)


def _copy(a: Any) -> Any:
    return a * 1.0


def _triad(a: Any, b: Any) -> Any:
    return a + 3.0 * b


def _measure_on_cpu(repetitions: int, array_bytes: int) -> BandwidthMeasurement:
    """Copies with the C library's memmove, which runs without Python's lock, on every core."""
    import ctypes
    import os
    from concurrent.futures import ThreadPoolExecutor

    threads = min(os.process_cpu_count() or 1, 16)
    part = array_bytes // threads
    source, target = (ctypes.create_string_buffer(part * threads) for _ in range(2))
    ctypes.memset(source, 1, part * threads)  # else every page is the same page of zeros
    starts = [offset * part for offset in range(threads)]

    with ThreadPoolExecutor(threads) as pool:

        def copy_part(start: int) -> None:
            ctypes.memmove(ctypes.byref(target, start), ctypes.byref(source, start), part)

        def copy_all() -> None:
            for _ in pool.map(copy_part, starts):
                pass

        runs = _time_runs("copy", copy_all, 2 * part * threads, repetitions)
    return BandwidthMeasurement("cpu", f"{threads} threads", (runs,))
