"""Which Apple Silicon chip is this, how fast is its memory, and how much of it may the GPU use?"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlx_hwprobe._darwin import NotAppleSiliconError as NotAppleSiliconError
    from mlx_hwprobe.capture import Capture as Capture
    from mlx_hwprobe.capture import ProgramOutput as ProgramOutput
    from mlx_hwprobe.chips import Bandwidth as Bandwidth
    from mlx_hwprobe.chips import ChipBin as ChipBin
    from mlx_hwprobe.chips import bandwidth_of as bandwidth_of
    from mlx_hwprobe.chips import chip_names as chip_names
    from mlx_hwprobe.chips import chip_of_model as chip_of_model
    from mlx_hwprobe.chips import chip_table as chip_table
    from mlx_hwprobe.chips import lookup as lookup
    from mlx_hwprobe.chips import parse_chip_name as parse_chip_name
    from mlx_hwprobe.detection import detect as detect
    from mlx_hwprobe.detection import load_profile as load_profile
    from mlx_hwprobe.detection import profile_from_capture as profile_from_capture
    from mlx_hwprobe.detection import read_machine as read_machine
    from mlx_hwprobe.errors import HwprobeError as HwprobeError
    from mlx_hwprobe.errors import InvalidDocumentError as InvalidDocumentError
    from mlx_hwprobe.errors import UnknownChipError as UnknownChipError
    from mlx_hwprobe.errors import UnknownPlatformError as UnknownPlatformError
    from mlx_hwprobe.gpu_memory import GpuMemoryLimit as GpuMemoryLimit
    from mlx_hwprobe.gpu_memory import gpu_memory_limit as gpu_memory_limit
    from mlx_hwprobe.measure import BandwidthMeasurement as BandwidthMeasurement
    from mlx_hwprobe.measure import measure_bandwidth as measure_bandwidth
    from mlx_hwprobe.profile import BandwidthSource as BandwidthSource
    from mlx_hwprobe.profile import GpuMemoryLimitSource as GpuMemoryLimitSource
    from mlx_hwprobe.profile import HardwareProfile as HardwareProfile
    from mlx_hwprobe.redaction import redact as redact
    from mlx_hwprobe.render import render_profile as render_profile
    from mlx_hwprobe.spec import describe_mac as describe_mac
    from mlx_hwprobe.spec import parse_hardware_spec as parse_hardware_spec
    from mlx_hwprobe.spec import parse_hardware_specs as parse_hardware_specs

__version__ = "0.1.0"

# A module is loaded when one of its names is first used: `lookup` and the table need no
# subprocess, and a program that only reads profiles needs no table.
_NAMES_IN = {
    "_darwin": "NotAppleSiliconError",
    "capture": "Capture ProgramOutput",
    "chips": (
        "Bandwidth ChipBin bandwidth_of chip_names chip_of_model chip_table lookup parse_chip_name"
    ),
    "detection": "detect load_profile profile_from_capture read_machine",
    "errors": "HwprobeError InvalidDocumentError UnknownChipError UnknownPlatformError",
    "gpu_memory": "GpuMemoryLimit gpu_memory_limit",
    "measure": "BandwidthMeasurement measure_bandwidth",
    "profile": "BandwidthSource GpuMemoryLimitSource HardwareProfile",
    "redaction": "redact",
    "render": "render_profile",
    "spec": "describe_mac parse_hardware_spec parse_hardware_specs",
}
_MODULE_OF = {name: module for module, names in _NAMES_IN.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name == "__all__":
        return __dir__()
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return ["__version__", *_MODULE_OF]
