"""What only a Mac can show; it may be a virtual one."""

import json
import subprocess
import time

import pytest

from mlx_hwprobe import detect, measure_bandwidth, profile_from_capture, read_machine, redact

pytestmark = pytest.mark.integration


def ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_this_mac_is_described_as_its_own_programs_do() -> None:
    profile = detect()
    assert profile.is_apple_silicon
    assert profile.memory_bytes == int(ask("sysctl", "-n", "hw.memsize"))
    assert profile.hw_model == ask("sysctl", "-n", "hw.model")
    assert profile.os_version == ask("sw_vers", "-productVersion")
    assert sum((profile.cpu_cores or {}).values()) == int(ask("sysctl", "-n", "hw.physicalcpu"))
    assert profile.gpu_cores or profile.is_virtual_machine
    assert not profile.is_rosetta


def test_a_capture_of_this_mac_gives_its_profile_and_not_its_serial_number() -> None:
    capture = redact(read_machine(thorough=True))
    assert (
        profile_from_capture(capture).to_document()
        == profile_from_capture(read_machine(thorough=True)).to_document()
    )
    registry = ask("ioreg", "-rd1", "-c", "IOPlatformExpertDevice")
    secrets = [
        line.split('"')[3]
        for line in registry.splitlines()
        if "IOPlatformSerialNumber" in line or "IOPlatformUUID" in line
    ]
    text = json.dumps(capture.to_document())
    assert secrets
    assert not any(secret in text for secret in secrets)


def test_detection_is_quick_where_system_profiler_is_not_needed() -> None:
    detect()
    started = time.perf_counter()
    detect()
    assert time.perf_counter() - started < 1.0  # the figure itself: benchmarks/hwprobe_detection.py


def test_the_bandwidth_of_this_mac_can_be_measured() -> None:
    measurement = measure_bandwidth(repetitions=3, array_bytes=64 << 20)
    assert measurement.best.median_gb_s > 1
