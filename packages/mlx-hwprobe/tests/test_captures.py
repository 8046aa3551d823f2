"""Each file in captures/ is what the programs of one machine printed, as `capture` saves it."""

import json
from pathlib import Path

import pytest

from mlx_hwprobe import (
    HardwareProfile,
    HwprobeError,
    NotAppleSiliconError,
    load_profile,
)

CAPTURES = Path(__file__).parent / "captures"
GIB = 1 << 30


def mac(
    chip: str | None,
    gpu_cores: int | None,
    memory_gb: float | None,
    bandwidth: tuple[int, str] | None,
    limit: tuple[int, str] | None,
    cpu_cores: dict[str, int] | None,
    **more: object,
) -> dict[str, object]:
    return {
        "chip": chip,
        "gpu_cores": gpu_cores,
        "memory_gb": memory_gb,
        "memory_bandwidth_gb_s": bandwidth[0] if bandwidth else None,
        "bandwidth_source": bandwidth[1] if bandwidth else None,
        "gpu_memory_limit_bytes": limit[0] if limit else None,
        "gpu_memory_limit_source": limit[1] if limit else None,
        "cpu_cores": cpu_cores,
        "is_virtual_machine": False,
        "is_rosetta": False,
        **more,
    }


def pe(performance: int, efficiency: int) -> dict[str, int]:
    return {"performance": performance, "efficiency": efficiency}


THREE_LEVELS = {"super": 2, "performance": 4, "efficiency": 6}

PROFILES: dict[str, dict[str, object]] = {
    "m1_8_macos11": mac(
        "M1", 8, 8, (68, "table"), (5726633984, "table"), pe(4, 4), os_version="11.6.8"
    ),
    "m1_7core_macos12": mac("M1", 7, 16, (68, "table"), (11453251584, "table"), pe(4, 4)),
    "m1_pro_14core_displays": mac(
        "M1 Pro", 14, 16, (200, "table"), (11453251584, "table"), pe(6, 2)
    ),
    "m1_max_macos14": mac("M1 Max", 32, 64, (400, "table"), (48 * GIB, "table"), pe(8, 2)),
    "m1_ultra_macos26": mac(
        "M1 Ultra", 48, 128, (800, "table"), (115448725504, "table"), pe(16, 4)
    ),
    "m2_no_brand_string": mac(
        "M2", 10, 24, (100, "table"), (16 * GIB, "estimate"), pe(4, 4), hw_model="Mac14,15"
    ),
    "m2_max_30core": mac("M2 Max", 30, 32, (400, "table"), (26800603136, "table"), pe(8, 4)),
    "m2_ultra_four_numbers_macos26": mac(
        "M2 Ultra", 76, 192, (800, "table"), (173173080064, "table"), pe(16, 8)
    ),
    "m2_pro_four_numbers_macos27": mac(
        "M2 Pro", 16, 16, (200, "table"), (12713115648, "table"), pe(6, 4)
    ),
    "m3_max_30core_96": mac(
        "M3 Max", 30, 96, (300, "table"), (int(96 * GIB * 0.81), "estimate"), pe(10, 4)
    ),
    "m3_max_gpu_unreadable_36": mac(
        "M3 Max", None, 36, (300, "table-by-memory"), (30150672384, "table"), pe(10, 4)
    ),
    "m3_ultra_512": mac(
        "M3 Ultra", 80, 512, (819, "table"), (464 * GIB, "table"), pe(24, 8), os_version="27.1"
    ),
    "m4_headless_mini": mac("M4", 10, 16, (120, "table"), (12713115648, "table"), pe(4, 6)),
    "m4_pro_french": mac("M4 Pro", 16, 24, (273, "table"), (16 * GIB, "estimate"), pe(8, 4)),
    "m4_max_32core": mac("M4 Max", 32, 36, (410, "table"), (30150672384, "table"), pe(10, 4)),
    "m4_max_wired_limit": mac(
        "M4 Max", 40, 128, (546, "table"), (118000 << 20, "sysctl"), pe(12, 4)
    ),
    "m4_max_wired_limit_above_memory": mac(
        "M4 Max", 40, 48, (546, "table"), (48 * GIB, "sysctl"), pe(12, 4)
    ),
    "m5_10core": mac(
        "M5", 10, 24, (153, "table"), (19069665280, "table"), {"super": 4, "efficiency": 6}
    ),
    "m5_pro_super_performance": mac(
        "M5 Pro", 16, 48, (307, "table"), (40200896512, "table"), {"super": 5, "performance": 10}
    ),
    "m5_max_four_numbers_macos26": mac(
        "M5 Max",
        None,
        64,
        (614, "table-by-memory"),
        (55662788608, "table"),
        {"super": 6, "performance": 12},
    ),
    "m5_ultra_256_metal": mac(
        "M5 Ultra", 64, 256, (1200, "table"), (208 * GIB, "metal"), {"super": 10, "performance": 20}
    ),
    "m6_16_three_levels": mac(
        "M6", 12, 16, (153, "table-by-memory"), (12713115648, "table"), THREE_LEVELS
    ),
    "m6_32_three_levels": mac(
        "M6", 12, 32, (170, "table-by-memory"), (26800603136, "table"), THREE_LEVELS
    ),
    "a18_pro_neo": mac(
        "A18 Pro", 5, 8, (60, "table"), (5726633984, "table"), pe(2, 4), profile_id="a18-pro-8"
    ),
    "unknown_newer_m7_max": mac(
        "M7 Max",
        40,
        128,
        (614, "estimate"),
        (int(128 * GIB * 0.84), "estimate"),
        {"super": 8, "performance": 12},
    ),
    "vm_m1_macos26": mac(
        "M1",
        None,
        7,
        (68, "table"),
        (7 * GIB * 2 // 3, "estimate"),
        {"standard": 3},
        is_virtual_machine=True,
    ),
    "vm_m4_max": mac(
        "M4 Max",
        None,
        36,
        (410, "estimate"),
        (24 * GIB, "estimate"),
        {"standard": 8},
        is_virtual_machine=True,
    ),
    "rosetta_m2": mac(
        "M2", 8, 16, (100, "table"), (12713115648, "table"), pe(4, 4), is_rosetta=True
    ),
    "damaged_json": mac("M4", None, 16, (120, "table"), (16 * GIB * 2 // 3, "estimate"), pe(4, 6)),
    "truncated_everywhere": mac(
        "M3 Pro", None, 18, (150, "table"), (12 * GIB, "estimate"), None, os_version=None
    ),
    "mixed_two_macs": mac(
        "M4 Max", None, 36, (410, "table-by-memory"), (30150672384, "table"), pe(10, 4)
    ),
    "m4_wired_limit_without_memory": mac("M4", None, None, (120, "table"), None, None),
    "nonsense_numbers": mac("M3", None, None, (100, "table"), None, None, profile_id=None),
    "only_ioreg": mac("M2 Pro", 19, None, (200, "table"), None, None),
    "linux_epyc": mac(
        "AMD EPYC 7763 64-Core Processor",
        None,
        31.4,
        None,
        None,
        None,
        is_virtual_machine=True,
        os_version="Ubuntu 24.04.2 LTS",
    ),
    "linux_nvidia": mac(
        "Intel Xeon Platinum 8480+ + NVIDIA L40S",
        None,
        251.6,
        None,
        (46068 << 20, "nvidia-smi"),
        None,
    ),
    "linux_arm": mac("Neoverse-V2 + NVIDIA GB10", None, 122.7, None, None, None),
}

INTEL = {
    "intel_macbookpro": ("MacBookPro16,1", "Intel Core i9-9880H CPU @ 2.30GHz", False),
    "intel_vm": ("Macmini6,2", "Intel Core i5-8500B CPU @ 3.00GHz", True),
}

REFUSED = {"nothing_readable"}


def load(name: str) -> HardwareProfile:
    return load_profile(CAPTURES / f"{name}.json")


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_capture_gives_the_machine_it_was_made_on(name: str) -> None:
    expected = PROFILES[name]
    document = load(name).to_document()
    assert {key: document[key] for key in expected} == expected


@pytest.mark.parametrize("name", sorted(INTEL))
def test_an_intel_mac_is_named_and_gets_no_figures(name: str) -> None:
    hw_model, processor, is_vm = INTEL[name]
    with pytest.raises(NotAppleSiliconError) as caught:
        load(name)
    profile = caught.value.profile
    assert caught.value.processor == processor
    assert (profile.hw_model, profile.is_virtual_machine) == (hw_model, is_vm)
    assert (profile.chip, profile.gpu_cores, profile.memory_bandwidth_gb_s) == (None, None, None)
    assert profile.gpu_memory_limit_bytes is None
    assert profile.memory_bytes is not None


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_capture_with_nothing_in_it_is_refused(name: str) -> None:
    with pytest.raises(HwprobeError, match="nothing about the machine could be read"):
        load(name)


def test_every_capture_is_told_what_to_give() -> None:
    names = {path.stem for path in CAPTURES.glob("*.json")}
    assert names == PROFILES.keys() | INTEL.keys() | REFUSED


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_profile_survives_being_saved(name: str) -> None:
    profile = load(name)
    assert HardwareProfile.from_document(json.loads(json.dumps(profile.to_document()))) == profile
