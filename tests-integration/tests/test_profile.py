"""`mlx-stack profile` of the installed program: what it prints, and what it saves."""

import json
import stat
from pathlib import Path

import pytest

from stack_testkit.program import Program

pytestmark = pytest.mark.story

_SYSCTL = """\
hw.memsize: 68719476736
hw.model: Mac16,9
machdep.cpu.brand_string: Apple M4 Max
sysctl.proc_translated: 0
iogpu.wired_limit_mb: 0
"""
_IOREG = '"model" = "Apple M4 Max"\n"gpu-core-count" = 40\n'


def _capture(folder: Path, sysctl: str = _SYSCTL, ioreg: str = _IOREG) -> str:
    outputs = {
        "sysctl": {"returncode": 0, "stdout": sysctl},
        "ioreg.AGXAccelerator": {"returncode": 0, "stdout": ioreg},
        "sw_vers": {"returncode": 0, "stdout": "ProductName:\t\tmacOS\nProductVersion:\t\t26.4\n"},
    }
    path = folder / "capture.json"
    path.write_text(json.dumps({"schema_version": 1, "outputs": outputs}))
    return str(path)


def test_the_machine_is_printed_and_saved_for_the_other_commands(program: Program) -> None:
    done = program.run("profile", "--json")

    assert done.code == 0, done.err
    assert json.loads(program.home.profile.read_text()) == done.document
    assert stat.S_IMODE(program.home.root.stat().st_mode) == 0o700
    assert program.run("status", "--json").document["hardware"] == done.document


def test_the_machine_of_a_capture_takes_the_place_of_this_one(
    program: Program, tmp_path: Path
) -> None:
    done = program.run("profile", "--from", _capture(tmp_path))

    assert done.code == 0, done.err
    assert done.out.startswith("M4 Max, 40 GPU cores, 64 GB\n")
    assert "`mlx-stack profile` switches back" in done.err
    assert json.loads(program.home.profile.read_text())["memory_bandwidth_gb_s"] == 546


def test_an_intel_mac_is_described_but_not_planned_for(program: Program, tmp_path: Path) -> None:
    sysctl = "hw.memsize: 17179869184\nmachdep.cpu.brand_string: Intel(R) Core(TM) i7-1068NG7\n"
    done = program.run("profile", "--json", "--from", _capture(tmp_path, sysctl, ""))

    assert done.code == 5
    assert (done.document["chip"], done.document["memory_gb"]) == (None, 16)
    assert "Intel Core i7-1068NG7" in done.err
    assert not program.home.root.exists()


def test_a_damaged_capture_is_refused_by_its_name(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "capture.json"
    path.write_text('{"schema_version": 3, "outputs": {}}')
    done = program.run("profile", "--json", "--from", str(path))

    assert done.code == 2
    assert "capture.json: schema_version" in done.document["error"]["message"]
    assert not program.home.root.exists()


def test_a_damaged_saved_profile_is_named_with_its_remedy(program: Program) -> None:
    program.home.create()
    program.home.profile.write_text("{")
    done = program.run("status", "--json")

    assert done.code == 2
    assert str(program.home.profile) in done.document["error"]["message"]
    assert "mlx-stack profile" in done.document["error"]["hint"]
    assert program.run("profile").code == 0
    assert program.run("status").code == 4
