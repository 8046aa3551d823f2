"""The probe against programs on PATH that print and fail as the systems' own do."""

import functools
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_hwprobe import (
    HwprobeError,
    NotAppleSiliconError,
    ProgramOutput,
    UnknownPlatformError,
    detect,
    read_machine,
)
from mlx_hwprobe.detection import FAST_MAC_PROGRAMS, SLOW_MAC_PROGRAMS, Runner, run_programs

CAPTURES = Path(__file__).parent / "captures"
FAST, SLOW = {"sysctl", "ioreg", "sw_vers"}, {"system_profiler"}

# Prints the output that belongs to its arguments, and notes that it was called.
PROGRAM = """#!{python} -IS
import json, os, sys
here = os.path.dirname(os.path.abspath(__file__))
name = os.path.basename(sys.argv[0])
with open(os.path.join(here, "calls"), "a") as calls:
    calls.write(name + "\\n")
if name == "ioreg":
    name = "ioreg.AGXAccelerator"
if name == "system_profiler":
    name = f"system_profiler.{{sys.argv[2]}}.json"
with open(os.path.join(here, "outputs.json")) as file:
    output = json.load(file).get(name, {{"returncode": 1, "stdout": ""}})
sys.stdout.write(output["stdout"])
sys.exit(output["returncode"])
"""


def install(folder: Path, name: str, text: str) -> None:
    program = folder / name
    program.write_text(text)
    program.chmod(0o755)


class FakeMac:
    """A folder of programs that answer as those of the Mac of one capture did."""

    def __init__(self, folder: Path, capture: str) -> None:
        self.folder = folder
        outputs = json.loads((CAPTURES / f"{capture}.json").read_text())["outputs"]
        (folder / "outputs.json").write_text(json.dumps(outputs))
        for name in FAST | SLOW:
            install(folder, name, PROGRAM.format(python=sys.executable))

    @property
    def calls(self) -> set[str]:
        return set((self.folder / "calls").read_text().split())

    @property
    def run(self) -> Runner:
        return functools.partial(run_programs, search_path=str(self.folder))


def test_a_mac_whose_fast_programs_answer_is_not_asked_slowly(tmp_path: Path) -> None:
    mac = FakeMac(tmp_path, "m4_max_32core")
    profile = detect(platform="darwin", run=mac.run)
    assert (profile.chip, profile.gpu_cores, profile.memory_bandwidth_gb_s) == ("M4 Max", 32, 410)
    assert mac.calls == FAST


def test_gpu_cores_that_ioreg_does_not_tell_come_from_system_profiler(tmp_path: Path) -> None:
    mac = FakeMac(tmp_path, "m1_pro_14core_displays")
    assert detect(platform="darwin", run=mac.run).gpu_cores == 14
    assert mac.calls == FAST | SLOW


@pytest.mark.parametrize("capture", ["vm_m1_macos26", "intel_macbookpro"])
def test_a_mac_without_a_gpu_of_apples_is_not_asked_slowly(tmp_path: Path, capture: str) -> None:
    mac = FakeMac(tmp_path, capture)
    try:
        profile = detect(platform="darwin", run=mac.run)
    except NotAppleSiliconError as error:
        profile = error.profile
    assert profile.memory_bytes
    assert mac.calls == FAST


def test_a_capture_asks_every_program(tmp_path: Path) -> None:
    mac = FakeMac(tmp_path, "m5_10core")
    outputs = read_machine(thorough=True, platform="darwin", run=mac.run).outputs
    assert outputs.keys() >= FAST_MAC_PROGRAMS.keys() | SLOW_MAC_PROGRAMS.keys()
    assert mac.calls == FAST | SLOW


def test_a_mac_on_which_nothing_can_be_run_is_an_error_that_says_so(tmp_path: Path) -> None:
    run: Runner = functools.partial(run_programs, search_path=str(tmp_path))
    with pytest.raises(HwprobeError, match="nothing about the machine could be read"):
        detect(platform="darwin", run=run)


def test_this_linux_host_is_described_as_what_it_is(tmp_path: Path) -> None:
    run: Runner = functools.partial(run_programs, search_path=str(tmp_path))
    profile = detect(platform="linux", run=run)
    assert not profile.is_apple_silicon
    assert profile.memory_bytes
    assert profile.memory_bandwidth_gb_s is None
    assert profile.gpu_memory_limit_bytes is None


def test_a_linux_hosts_nvidia_card_sets_the_limit(tmp_path: Path) -> None:
    install(tmp_path, "nvidia-smi", '#!/bin/sh\necho "NVIDIA RTX A6000, 49140 MiB"\n')
    run: Runner = functools.partial(run_programs, search_path=str(tmp_path))
    profile = detect(platform="linux", run=run)
    assert (profile.chip or "").endswith("NVIDIA RTX A6000")
    assert profile.gpu_memory_limit_bytes == 49140 << 20
    assert profile.gpu_memory_limit_source == "nvidia-smi"


def test_another_system_is_refused() -> None:
    with pytest.raises(UnknownPlatformError, match="win32"):
        detect(platform="win32")


@pytest.fixture
def path_with_a_hanging_program(tmp_path: Path) -> Iterator[Path]:
    """`hangs` starts a child that keeps its output open, and neither ends by itself."""
    install(tmp_path, "hangs", f"#!/bin/sh\n/bin/sleep 60 & echo $! > {tmp_path}/pid; wait\n")
    install(tmp_path, "answers", "#!/bin/sh\necho fine\n")
    yield tmp_path
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_a_program_that_hangs_costs_its_own_answer_only(path_with_a_hanging_program: Path) -> None:
    started = time.monotonic()
    outputs = run_programs(
        {"slow": ("hangs",), "fast": ("answers",), "none": ("absent",)},
        timeout_s=0.5,
        search_path=str(path_with_a_hanging_program),
    )
    assert outputs == {
        "slow": ProgramOutput(124, ""),
        "fast": ProgramOutput(0, "fine\n"),
        "none": ProgramOutput(127, ""),
    }
    assert time.monotonic() - started < 10


def test_programs_run_side_by_side(tmp_path: Path) -> None:
    # Each waits for a sign of the other: one after the other, neither would ever answer.
    for own, other in (("first", "second"), ("second", "first")):
        wait = f"while [ ! -e {other}.sign ]; do sleep 0.01; done"
        script = f"cd {tmp_path}; PATH=/bin:/usr/bin; touch {own}.sign; {wait}; echo met"
        install(tmp_path, own, f"#!/bin/sh\n{script}\n")
    outputs = run_programs(
        {"a": ("first",), "b": ("second",)}, timeout_s=10, search_path=str(tmp_path)
    )
    assert [output.stdout for output in outputs.values()] == ["met\n", "met\n"]


def test_numbers_are_asked_for_in_the_c_locale(tmp_path: Path) -> None:
    install(tmp_path, "locale", '#!/bin/sh\necho "$LC_ALL $LANG"\n')
    assert run_programs({"x": ("locale",)}, search_path=str(tmp_path))["x"].stdout == "C C\n"


def test_macos_is_asked_for_its_own_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYSTEM_VERSION_COMPAT", "1")
    install(tmp_path, "sw_vers", '#!/bin/sh\necho "$SYSTEM_VERSION_COMPAT"\n')
    assert run_programs({"x": ("sw_vers",)}, search_path=str(tmp_path))["x"].stdout == "0\n"
