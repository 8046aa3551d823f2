"""What a program writes is taken for a version or a size only where it is one."""

import json

import pytest

from mlx_hwprobe import Capture, HardwareProfile, ProgramOutput, profile_from_capture

SYSCTL = "hw.memsize: 68719476736\nmachdep.cpu.brand_string: Apple M4 Max\nhw.model: Mac16,5\n"


def profile(*, sw_vers: str | None = None, sysctl: str = SYSCTL) -> HardwareProfile:
    outputs = {"sysctl": ProgramOutput(0, sysctl)}
    if sw_vers is not None:
        text = f"ProductName:\t\tmacOS\nProductVersion:\t\t{sw_vers}\nBuildVersion:\t\t25C1\n"
        outputs["sw_vers"] = ProgramOutput(0, text)
    return profile_from_capture(Capture(outputs))


@pytest.mark.parametrize("compatible", ["10.16", "10.16.1", "16", "16.0", "16.3.1", "17.0"])
def test_what_macos_tells_old_programs_is_not_its_version(compatible: str) -> None:
    alone = profile(sw_vers=compatible)
    assert alone.os_version is None
    assert alone.gpu_memory_limit_source == "estimate"
    asked = profile(sw_vers=compatible, sysctl=f"{SYSCTL}kern.osproductversion: 26.2\n")
    assert asked.os_version == "26.2"
    assert (asked.gpu_memory_limit_bytes, asked.gpu_memory_limit_source) == (55662788608, "table")
    both = profile(sw_vers=compatible, sysctl=f"{SYSCTL}kern.osproductversion: {compatible}\n")
    assert both.os_version is None


@pytest.mark.parametrize("version", ["10.15.7", "11.6", "15.7.1", "26.0", "26.5.2", "27.1"])
def test_a_version_that_macos_had_is_its_version(version: str) -> None:
    assert profile(sw_vers=version).os_version == version


@pytest.mark.parametrize(
    ("physical_memory", "gb"),
    [
        ("24 GB", 24),
        ("24 Go", 24),
        ("24 Gt", 24),
        ("24\N{NO-BREAK SPACE}ГБ", 24),
        ("1,5 TB", 1536),
        ("1.5 To", 1536),
        ("512 MB", 0.5),
        ("24", None),
        ("24 PB", None),
        ("24 Gbit", None),
        ("24 G", None),
        ("24 cores", None),
        ("24 GB and more", None),
        ("24 גיגה", None),
    ],
)
def test_a_memory_size_in_an_unknown_unit_is_unknown(
    physical_memory: str, gb: float | None
) -> None:
    machine = {"chip_type": "Apple M4 Pro", "physical_memory": physical_memory}
    text = json.dumps({"SPHardwareDataType": [machine]})
    found = profile_from_capture(
        Capture({"system_profiler.SPHardwareDataType.json": ProgramOutput(0, text)})
    )
    assert found.memory_gb == gb
