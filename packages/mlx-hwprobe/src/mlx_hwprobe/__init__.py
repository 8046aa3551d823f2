"""Which Apple Silicon chip is this, how fast is its memory, and how much of it may the GPU use?"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlx_hwprobe._darwin import NotAppleSiliconError
    from mlx_hwprobe.capture import Capture, Output
    from mlx_hwprobe.chips import (
        Bandwidth,
        ChipBin,
        bandwidth_of,
        chip_names,
        chip_of_model,
        chip_table,
        lookup,
        parse_chip_name,
    )
    from mlx_hwprobe.detection import detect, load_profile, profile_from_capture, read_machine
    from mlx_hwprobe.errors import (
        HwprobeError,
        InvalidDocumentError,
        UnknownChipError,
        UnsupportedPlatformError,
    )
    from mlx_hwprobe.gpu_memory import GpuMemoryLimit, gpu_memory_limit
    from mlx_hwprobe.measure import Measurement, measure_bandwidth
    from mlx_hwprobe.profile import BandwidthSource, GpuMemoryLimitSource, HardwareProfile
    from mlx_hwprobe.redaction import redact
    from mlx_hwprobe.render import render_profile
    from mlx_hwprobe.spec import describe_mac, parse_hardware_spec

__version__ = "0.1.0"

__all__ = [
    "Bandwidth",
    "BandwidthSource",
    "Capture",
    "ChipBin",
    "GpuMemoryLimit",
    "GpuMemoryLimitSource",
    "HardwareProfile",
    "HwprobeError",
    "InvalidDocumentError",
    "Measurement",
    "NotAppleSiliconError",
    "Output",
    "UnknownChipError",
    "UnsupportedPlatformError",
    "__version__",
    "bandwidth_of",
    "chip_names",
    "chip_of_model",
    "chip_table",
    "describe_mac",
    "detect",
    "gpu_memory_limit",
    "load_profile",
    "lookup",
    "measure_bandwidth",
    "parse_chip_name",
    "parse_hardware_spec",
    "profile_from_capture",
    "read_machine",
    "redact",
    "render_profile",
]

# Names are imported when they are first used: `lookup` and the table need no subprocess, and a
# program that only reads profiles needs no table.
_MODULE_OF = {
    "Bandwidth": "chips",
    "BandwidthSource": "profile",
    "Capture": "capture",
    "ChipBin": "chips",
    "GpuMemoryLimit": "gpu_memory",
    "GpuMemoryLimitSource": "profile",
    "HardwareProfile": "profile",
    "HwprobeError": "errors",
    "InvalidDocumentError": "errors",
    "Measurement": "measure",
    "NotAppleSiliconError": "_darwin",
    "Output": "capture",
    "UnknownChipError": "errors",
    "UnsupportedPlatformError": "errors",
    "bandwidth_of": "chips",
    "chip_names": "chips",
    "chip_of_model": "chips",
    "chip_table": "chips",
    "describe_mac": "spec",
    "detect": "detection",
    "gpu_memory_limit": "gpu_memory",
    "load_profile": "detection",
    "lookup": "chips",
    "measure_bandwidth": "measure",
    "parse_chip_name": "chips",
    "parse_hardware_spec": "spec",
    "profile_from_capture": "detection",
    "read_machine": "detection",
    "redact": "redaction",
    "render_profile": "render",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
