"""A Mac's profile from what its programs printed: pure parsers, one for each program.

A parser takes the text as it came, in any locale and of any macOS, and answers with what it found;
what it can't read it leaves out. Nothing here runs a program or raises on damaged text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from mlx_hwprobe.capture import parse_json_object
from mlx_hwprobe.chips import bandwidth_of, bins_of, chip_of_model, parse_chip_name
from mlx_hwprobe.errors import HwprobeError, InvalidDocumentError
from mlx_hwprobe.gpu_memory import gpu_memory_limit
from mlx_hwprobe.profile import BYTES_PER_GB, HardwareProfile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlx_hwprobe.capture import Capture

SYSCTL = "sysctl"
IOREG = "ioreg.AGXAccelerator"
DISPLAYS = "system_profiler.SPDisplaysDataType.json"
HARDWARE = "system_profiler.SPHardwareDataType.json"
SW_VERS = "sw_vers"
METAL = "mlx.device_info"

# Beyond these a figure is damage, not a machine.
_MOST_CORES = 4096
_MOST_MEMORY_BYTES = 1 << 50
_LEAST_MEMORY_BYTES = 1 << 28
_PAGE_BYTES = 4096  # an Intel Mac's: the smallest there is

_FOUR_NUMBERS_SINCE_MACOS = 26

_SYSCTL_LINE = re.compile(r"([A-Za-z_][\w.]*)(?::\s?|\s*=\s*)(.*)")
_INTEGER = re.compile(r"(?:-?\d+ -> )?(\d{1,18})", re.ASCII)  # setting a value prints "old -> new"
_GPU_CORES = re.compile(r'"gpu-core-count"\s*=\s*(\d{1,9})\b')
_GPU_MODEL = re.compile(r'"model"\s*=\s*<?"([^"\n]{1,80})"')
_SIZE = re.compile(r"(\d{1,6}(?:[.,]\d{1,3})?)\s*(\w{2,3})")
# As macOS writes them in English, French, Finnish and Russian.
_UNITS_IN_GB: dict[str, float] = {
    **dict.fromkeys(("mb", "mib", "mo", "mt", "мб"), 1 / 1024),
    **dict.fromkeys(("gb", "gib", "go", "gt", "гб"), 1),  # noqa: RUF001 - Russian is meant
    **dict.fromkeys(("tb", "tib", "to", "tt", "тб"), 1024),
}
_MODEL = re.compile(r"[A-Za-z]{2,32}\d{1,3}(,\d{1,3})?", re.ASCII)
_VERSION = re.compile(r"\d{1,3}(\.\d{1,3}){0,3}", re.ASCII)
_LEVEL_NAME = re.compile(r"[a-z][a-z -]{0,31}")
_VIRTUAL_MODEL = re.compile(r"VirtualMac|VMware|Parallels")
# Before Apple's chips came the last models of each line with an Intel processor.
_INTEL_MODEL = re.compile(
    r"(MacBook\d+|MacBookAir\d|MacBookPro(\d|1[0-6])|Macmini[1-8]|iMac(\d|1\d|20)|iMacPro1"
    r"|MacPro[1-7]|Xserve\d),\d+"
)


class NotAppleSiliconError(HwprobeError):
    """The machine is a Mac with an Intel processor, where MLX doesn't run.

    Attributes:
        profile: What is known of it: model, memory, macOS; the chip's figures are None.
        processor: The processor's own name, or None.
    """

    def __init__(self, profile: HardwareProfile, *, processor: str | None) -> None:
        named = f" ({processor})" if processor else ""
        super().__init__(
            f"this Mac has an Intel processor{named}",
            hint="MLX needs a Mac with Apple Silicon (M1 or later).",
        )
        self.profile = profile
        self.processor = processor


def mac_profile(capture: Capture) -> HardwareProfile:
    """The profile of the Mac that a capture was made on.

    Raises:
        NotAppleSiliconError: It has an Intel processor; the error carries the profile.
    """
    # sysctl fails when one of the names is unknown, and still prints the others.
    sysctl = parse_sysctl(capture.outputs[SYSCTL].stdout if SYSCTL in capture.outputs else "")
    hardware = parse_hardware(capture.stdout(HARDWARE))
    displays = parse_displays(capture.stdout(DISPLAYS))
    gpus = [parse_ioreg(capture.stdout(IOREG)), *displays, parse_metal(capture.stdout(METAL))]

    brand = sysctl.get("machdep.cpu.brand_string")
    hw_model = _model(sysctl.get("hw.model")) or _model(hardware.model)
    rosetta = _is_rosetta(sysctl, hardware, hw_model)
    known = HardwareProfile(
        memory_bytes=_memory_bytes(sysctl, hardware, gpus),
        hw_model=hw_model,
        os_version=parse_sw_vers(capture.stdout(SW_VERS))
        or _version(sysctl.get("kern.osproductversion", "")),
        is_virtual_machine=_is_virtual_machine(sysctl, hardware, hw_model, gpus),
        is_rosetta=rosetta,
    )
    chip = _chip(brand, hw_model, hardware, gpus)
    cores = _cores_from_sysctl(sysctl) or _cores_from_counts(
        hardware.core_counts, chip=chip, os_version=known.os_version
    )
    known = replace(known, cpu_cores=cores)
    if not rosetta and _is_intel(brand or hardware.processor, sysctl, hw_model):
        raise NotAppleSiliconError(known, processor=_processor_name(brand or hardware.processor))
    return _with_gpu(replace(known, chip=chip), gpus, _wired_limit_bytes(sysctl))


def _with_gpu(
    known: HardwareProfile, gpus: Sequence[Gpu], wired_limit_bytes: int | None
) -> HardwareProfile:
    """The profile with what follows from the GPU's own words and from the table."""
    own = [gpu for gpu in gpus if known.chip is None or gpu.chip in (None, known.chip)]
    gpu_cores = next((gpu.cores for gpu in own if gpu.cores), None)
    bandwidth = None
    if known.chip is not None:
        # A virtual machine's memory is a slice of the Mac's: it picks no bin.
        memory_gb = None if known.is_virtual_machine else known.memory_gb
        bandwidth = bandwidth_of(known.chip, gpu_cores=gpu_cores, memory_gb=memory_gb)
    if known.memory_bytes is None and (wired_limit_bytes or 0) > _MOST_MEMORY_BYTES:
        wired_limit_bytes = None  # macOS takes any; only the memory could bound it
    limit = gpu_memory_limit(
        known.memory_bytes,
        os_version=known.os_version,
        wired_limit_bytes=wired_limit_bytes,
        metal_limit_bytes=next((gpu.limit_bytes for gpu in own if gpu.limit_bytes), None),
        measured_applies=not known.is_virtual_machine,
    )
    return replace(
        known,
        gpu_cores=gpu_cores,
        memory_bandwidth_gb_s=bandwidth.gb_s if bandwidth else None,
        bandwidth_source=bandwidth.source if bandwidth else None,
        gpu_memory_limit_bytes=limit.limit_bytes if limit else None,
        gpu_memory_limit_source=limit.source if limit else None,
    )


@dataclass(frozen=True, slots=True)
class Gpu:
    """What one program says of one GPU.

    Attributes:
        limit_bytes: How much memory Metal recommends to use.
        memory_bytes: The memory of the machine, as Metal sees it.
    """

    name: str = ""
    cores: int | None = None
    limit_bytes: int | None = None
    memory_bytes: int | None = None

    @property
    def chip(self) -> str | None:
        """The chip that the name names, or None."""
        return parse_chip_name(self.name)


@dataclass(frozen=True, slots=True)
class Hardware:
    """What `system_profiler SPHardwareDataType` says of the machine.

    Attributes:
        chip_name: "Apple M4 Max"; absent on Intel and under Rosetta.
        processor: "8-Core Intel Xeon W", or "Unknown"; absent on Apple Silicon.
        model: "Mac16,9".
        core_counts: The numbers of "proc 18:6:0:12" without the "proc".
    """

    chip_name: str | None = None
    processor: str | None = None
    model: str | None = None
    memory_bytes: int | None = None
    core_counts: tuple[int, ...] = ()


def parse_sysctl(text: str) -> dict[str, str]:
    """The values that `sysctl` printed, by name; the first wins where a name comes twice."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        match = _SYSCTL_LINE.fullmatch(line.strip())
        if match and match[2].strip():
            values.setdefault(match[1], match[2].strip())
    return values


def parse_ioreg(text: str) -> Gpu:
    """The GPU that `ioreg -rc AGXAccelerator -d1` printed."""
    model, cores = _GPU_MODEL.search(text), _GPU_CORES.search(text)
    return Gpu(model[1] if model else "", _cores(cores[1]) if cores else None)


def parse_displays(text: str) -> list[Gpu]:
    """The GPUs that `system_profiler -json SPDisplaysDataType` printed."""
    return [
        Gpu(
            _text(item, "sppci_model") or _text(item, "_name") or "",
            _cores(str(item.get("sppci_cores", ""))),
        )
        for item in _items(text, "SPDisplaysDataType")
    ]


def parse_hardware(text: str) -> Hardware:
    """The machine that `system_profiler -json SPHardwareDataType` printed."""
    item = next(iter(_items(text, "SPHardwareDataType")), dict[str, Any]())
    counts = re.fullmatch(r"proc (\d{1,4}(?::\d{1,4}){2,3})", str(item.get("number_processors")))
    return Hardware(
        chip_name=_text(item, "chip_type"),
        processor=_text(item, "cpu_type"),
        model=_text(item, "machine_model"),
        memory_bytes=_parse_size(_text(item, "physical_memory") or ""),
        core_counts=tuple(int(count) for count in counts[1].split(":")) if counts else (),
    )


def parse_metal(text: str) -> Gpu:
    """The GPU that `mlx.core.device_info()` described, as JSON."""
    item = parse_object(text)
    return Gpu(
        _text(item, "device_name") or "",
        limit_bytes=_bytes(str(item.get("max_recommended_working_set_size", ""))),
        memory_bytes=_bytes(str(item.get("memory_size", ""))),
    )


def parse_sw_vers(text: str) -> str | None:
    """The version of macOS that `sw_vers` printed, "26.5.2"."""
    match = re.search(r"^ProductVersion:\s*(\S+)\s*$", text, re.MULTILINE)
    return _version(match[1]) if match else None


def _version(text: str) -> str | None:
    # To programs that are too old for them, macOS 11 and later call themselves 10.16, and macOS 26
    # and later 16.0. There was no version between 15 and 26.
    is_other = re.match(r"10\.16\b|(1[6-9]|2[0-5])\b", text)
    return text if _VERSION.fullmatch(text) and not is_other else None


def _model(text: str | None) -> str | None:
    return text if text and _MODEL.fullmatch(text) else None


def _chip(
    brand: str | None, hw_model: str | None, hardware: Hardware, gpus: Sequence[Gpu]
) -> str | None:
    named = [
        parse_chip_name(brand or ""),
        chip_of_model(hw_model or ""),
        parse_chip_name(hardware.chip_name or ""),
        *(gpu.chip for gpu in gpus),
    ]
    return next((chip for chip in named if chip), None)


def _is_rosetta(sysctl: Mapping[str, str], hardware: Hardware, hw_model: str | None) -> bool:
    translated = sysctl.get("sysctl.proc_translated")
    if translated in ("0", "1"):
        return translated == "1"
    if "VirtualApple" in sysctl.get("machdep.cpu.brand_string", ""):
        return True
    # A translated system_profiler writes an Intel Mac's keys on a Mac that has Apple's chip.
    intel_keys = hardware.processor is not None and hardware.chip_name is None
    return intel_keys and chip_of_model(hw_model or "") is not None


def _is_virtual_machine(
    sysctl: Mapping[str, str], hardware: Hardware, hw_model: str | None, gpus: Sequence[Gpu]
) -> bool:
    names = [sysctl.get("machdep.cpu.brand_string", ""), hardware.chip_name or ""]
    return (
        sysctl.get("kern.hv_vmm_present") == "1"
        or _VIRTUAL_MODEL.match(hw_model or "") is not None
        or any("(virtual)" in name.lower() for name in names)
        or any("paravirtual" in gpu.name.lower() for gpu in gpus)
    )


def _is_intel(processor: str | None, sysctl: Mapping[str, str], hw_model: str | None) -> bool:
    if processor and parse_chip_name(processor):
        return False
    if re.search(r"\b(Intel|AMD|Xeon)\b", processor or ""):
        return True
    if sysctl.get("machdep.cpu.vendor") in ("GenuineIntel", "AuthenticAMD"):
        return True
    return _INTEL_MODEL.fullmatch(hw_model or "") is not None


def _processor_name(text: str | None) -> str | None:
    plain = re.sub(r"\((R|TM)\)", "", text or "")
    plain = "".join(letter for letter in plain if letter.isprintable())
    words = " ".join(plain.split())
    return words if words not in ("", "Unknown") else None


def _memory_bytes(sysctl: Mapping[str, str], hardware: Hardware, gpus: Sequence[Gpu]) -> int | None:
    sizes = [_bytes(sysctl.get("hw.memsize", "")), hardware.memory_bytes]
    sizes += [gpu.memory_bytes for gpu in gpus]
    return next((size for size in sizes if size and _is_memory_size(size)), None)


def _is_memory_size(size_bytes: int) -> bool:
    """Whether a Mac can have so much memory: whole pages, which a number that was cut off isn't."""
    return size_bytes >= _LEAST_MEMORY_BYTES and size_bytes % _PAGE_BYTES == 0


def _cores_from_sysctl(sysctl: Mapping[str, str]) -> dict[str, int] | None:
    levels = {key.split(".")[1] for key in sysctl if key.startswith("hw.perflevel")}
    if sysctl.get("hw.nperflevels", str(len(levels))) != str(len(levels)):
        return None
    cores: dict[str, int] = {}
    for level in sorted(levels):
        name = sysctl.get(f"hw.{level}.name", "").lower()
        keys = (f"hw.{level}.physicalcpu", f"hw.{level}.physicalcpu_max")
        count = next((n for key in keys if (n := _cores(sysctl.get(key, "")))), None)
        if count is None or name in cores or not _LEVEL_NAME.fullmatch(name):
            return None
        cores[name] = count
    return cores or None


def _cores_from_counts(
    counts: tuple[int, ...], *, chip: str | None, os_version: str | None
) -> dict[str, int] | None:
    """The levels in system_profiler's "proc total:...", where their order can be told.

    Three numbers are total, performance and efficiency. macOS 26 added a fourth behind them, for
    the performance cores of chips whose first kind is called super; macOS 27 writes super,
    performance, efficiency. The order that gives a CPU of the chip's row is the right one; for
    chips without a row the version decides.
    """
    total, *levels = counts or (0,)
    if total == 0 or sum(levels) != total:
        return None
    if len(levels) == 2:
        return _named_levels(("performance", "efficiency"), levels)
    first = "super" if levels[2] else "performance"
    macos_26 = _named_levels((first, "efficiency", "performance"), levels)
    macos_27 = _named_levels(("super", "performance", "efficiency"), levels)
    sold = [dict(cores) for row in bins_of(chip or "") for cores in row.cpu_cores_options]
    fitting = [cores for cores in (macos_26, macos_27) if cores in sold]
    if fitting:
        return fitting[0]
    major = int(os_version.split(".")[0]) if os_version else 0
    if major < _FOUR_NUMBERS_SINCE_MACOS:
        return None
    return macos_26 if major == _FOUR_NUMBERS_SINCE_MACOS else macos_27


def _named_levels(names: tuple[str, ...], counts: Sequence[int]) -> dict[str, int]:
    return {name: count for name, count in zip(names, counts, strict=True) if count}


def _wired_limit_bytes(sysctl: Mapping[str, str]) -> int | None:
    match = _INTEGER.fullmatch(sysctl.get("iogpu.wired_limit_mb", ""))
    if match:
        return int(match[1]) << 20
    return _bytes(sysctl.get("debug.iogpu.wired_limit", ""))  # macOS 13, in bytes


def _cores(text: str) -> int | None:
    match = _INTEGER.fullmatch(text.strip())
    return int(match[1]) if match and 0 < int(match[1]) <= _MOST_CORES else None


def _bytes(text: str) -> int | None:
    match = _INTEGER.fullmatch(text.strip())
    return int(match[1]) if match and 0 < int(match[1]) <= _MOST_MEMORY_BYTES else None


def _parse_size(text: str) -> int | None:
    """A size that people read; None where its unit is unknown."""
    match = _SIZE.fullmatch(text.strip())
    unit_gb = _UNITS_IN_GB.get(match[2].lower()) if match else None
    if match is None or unit_gb is None:
        return None
    return _bytes(str(round(float(match[1].replace(",", ".")) * unit_gb * BYTES_PER_GB)))


def _items(text: str, data_type: str) -> list[dict[str, Any]]:
    """The entries of one data type in system_profiler's JSON; none where it is damaged."""
    entries = parse_object(text).get(data_type)
    if not isinstance(entries, list):
        return []
    return [
        cast("dict[str, Any]", entry)
        for entry in cast("list[object]", entries)
        if isinstance(entry, dict)
    ]


def parse_object(text: str) -> dict[str, Any]:
    """The JSON object in a program's text; an empty one where it is damaged."""
    try:
        return parse_json_object(text)
    except InvalidDocumentError:
        return {}


def _text(item: Mapping[str, Any], key: str) -> str | None:
    value = item.get(key)
    return value.strip() or None if isinstance(value, str) else None
