"""The installed program, run as a person or a script runs it."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mlx_hwprobe import chip_names
from mlx_hwprobe.__main__ import main

CAPTURES = Path(__file__).parent / "captures"
AS_APPLE_WRITES_IT = (
    "Apple M4 Max chip with 16\N{NON-BREAKING HYPHEN}core CPU, 40\N{NON-BREAKING HYPHEN}core GPU, "
    "16\N{NON-BREAKING HYPHEN}core Neural Engine; 64GB unified memory"
)


def run(
    *words: str, stdin: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlx_hwprobe", *words],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )


def answer(capsys: pytest.CaptureFixture[str], words: Sequence[str], code: int = 0) -> Any:
    """The one JSON document that the program prints."""
    assert main([*words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_the_installed_program_describes_this_machine() -> None:
    done = run("--json")
    assert done.returncode == 0
    assert done.stderr == ""
    assert json.loads(done.stdout)["memory_bytes"] > 0


def test_the_program_reads_a_capture_from_standard_input() -> None:
    done = run("--from", "-", stdin=(CAPTURES / "m6_16_three_levels.json").read_text())
    assert done.returncode == 0
    assert done.stdout.startswith("M6, 12 GPU cores, 16 GB\n")
    assert "153 GB/s (Apple's figure, by the memory size)" in done.stdout


def test_standard_input_without_end_is_refused() -> None:
    with Path("/dev/zero").open("rb") as endless:
        command = (sys.executable, "-m", "mlx_hwprobe", "--from", "-")
        done = subprocess.run(command, stdin=endless, capture_output=True, check=False, timeout=20)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"too large for a profile" in done.stderr


def test_a_closed_pipe_is_no_traceback() -> None:
    program = f"{sys.executable} -m mlx_hwprobe table --json"
    done = subprocess.run(
        ["/bin/sh", "-c", f"{program} | head -1"], capture_output=True, text=True, check=False
    )
    assert done.stdout == "{\n"
    assert done.stderr == ""


@pytest.mark.parametrize("words", [("table",), ("lookup", "M4 Ultra", "--json")])
def test_an_output_that_takes_nothing_is_no_traceback(words: tuple[str, ...]) -> None:
    with Path(os.devnull).open("rb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mlx_hwprobe", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.endswith("mlx-hwprobe: the answer can't be written: Bad file descriptor\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [("lookup M4 >&-", 0), ("lookup M4-Ultra --json >&-", 2), ("--from - <&-", 2)],
)
def test_a_closed_stream_is_no_traceback(words: str, code: int) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m mlx_hwprobe {words}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_a_terminal_that_knows_only_ascii_is_enough() -> None:
    done = run("table", env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")


def test_a_name_that_ascii_cannot_write_is_written_with_escapes() -> None:
    capture = {"cpuinfo": {"returncode": 0, "stdout": "model name : Pröcessor\n"}}
    document = json.dumps({"schema_version": 1, "outputs": capture})
    done = run("--from", "-", stdin=document, env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(r"Pr\xf6cessor")


@pytest.mark.parametrize("words", [("--help",), ("table", "--help"), ("capture", "--help")])
def test_help_is_as_narrow_as_columns_says(words: tuple[str, ...]) -> None:
    done = run(*words, env={"COLUMNS": "40"})
    assert max(map(len, done.stdout.splitlines())) <= 40


@pytest.mark.parametrize("columns", ["", "0", "wide", "-5", "9" * 5000])
def test_columns_that_are_no_width_are_passed_over(columns: str) -> None:
    assert run("--help", env={"COLUMNS": columns}).stdout == run("--help").stdout


def test_an_intel_mac_gets_a_profile_with_nulls_and_exit_5(
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = str(CAPTURES / "intel_macbookpro.json")
    assert main(["--json", "--from", path]) == 5
    captured = capsys.readouterr()
    profile = json.loads(captured.out)
    assert profile["schema_version"] == 1
    assert (profile["chip"], profile["memory_bandwidth_gb_s"]) == (None, None)
    assert profile["hw_model"] == "MacBookPro16,1"
    assert "Intel Core i9-9880H" in captured.err


@pytest.mark.parametrize(
    ("capture", "note"),
    [("vm_m1_macos26", "virtual machine"), ("rosetta_m2", "Rosetta")],
)
def test_people_are_told_of_a_virtual_machine_and_of_rosetta(
    capture: str, note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--from", str(CAPTURES / f"{capture}.json")]) == 0
    assert note in capsys.readouterr().out


def test_an_estimate_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--from", str(CAPTURES / "unknown_newer_m7_max.json")]) == 0
    assert "614 GB/s (an estimate: a lower bound)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ("lookup", "M4 Max", "--gpu-cores", "40", "--memory-gb", "64"),
        ("lookup", "m4-max:40:64"),
        ("lookup", "M4", "Max", "--gpu-cores", "40", "--memory-gb", "64GB"),
        ("lookup", "M4 Max 40-core 64 GB"),
        ("lookup", "M4 Max (40-core GPU), 64GB"),
        ("lookup", "MacBook Pro M4 Max, 64 GB"),
        ("lookup", AS_APPLE_WRITES_IT),
        ("lookup", "m4-max-64"),
        ("lookup", "m4max-64"),
    ],
)
def test_one_bin_prints_a_profile(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    profile = answer(capsys, words)
    assert (profile["chip"], profile["gpu_cores"], profile["profile_id"]) == (
        "M4 Max",
        40,
        "m4-max-64",
    )
    assert profile["memory_bandwidth_gb_s"] == 546


def test_what_one_bin_leaves_open_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    profile = answer(capsys, ["lookup", "M4 Max", "--gpu-cores", "40"])
    assert (profile["memory_gb"], profile["profile_id"]) == (None, None)
    assert profile["memory_bandwidth_gb_s"] == 546


@pytest.mark.parametrize(("name", "chip"), [("m5max", "M5 Max"), ("Mac18,5", "M6")])
def test_several_bins_are_all_listed(
    name: str, chip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    document = answer(capsys, ["lookup", name])
    assert document.keys() == {"schema_version", "chip", "bins"}
    assert document["chip"] == chip
    assert len(document["bins"]) == 2
    assert main(["lookup", name]) == 0
    assert "Which one a Mac has:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "kind", "code"),
    [
        (["lookup", "M4 Ultra"], "unknown-chip", 2),
        (["lookup", "M4 Extreme"], "unknown-chip", 2),
        (["lookup", "MacBook Neo"], "unknown-chip", 2),
        (["lookup", "m4-max:0:128"], "unknown-chip", 2),
        (["lookup", "M4 Max", "--memory-gb", "36", "--gpu-cores", "40"], "unknown-chip", 2),
        (["lookup"], "usage", 2),
        (["lookup", "M4", "--memory-gb", "lots"], "usage", 2),
        (["nonsense"], "usage", 2),
        (["table", "--csv"], "usage", 2),
        (["--from", "no/such/file"], "invalid-file", 2),
        (["--from", str(CAPTURES / "nothing_readable.json")], "failed", 1),
        (["capture", "-o", "no/such/folder/capture.json"], "failed", 1),
    ],
)
def test_a_failure_is_one_json_document_and_a_message(
    words: list[str], kind: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--json"]) == code
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["schema_version"] == 1
    assert document["error"].keys() == {"type", "message", "hint"}
    assert document["error"]["type"] == kind
    assert captured.err.startswith("mlx-hwprobe: ")


def test_an_interrupted_program_answers_in_json_too(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with (
        subprocess.Popen(
            [sys.executable, "-m", "mlx_hwprobe", "--json", "--from", str(pipe)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as program,
        pipe.open("wb"),
    ):  # opens when the program reads it
        program.send_signal(signal.SIGINT)
        stdout, stderr = program.communicate(timeout=20)
    assert program.returncode == 130
    assert json.loads(stdout)["error"]["type"] == "interrupted"
    assert stderr == "mlx-hwprobe: interrupted\n"


def test_the_table_is_the_same_in_json_and_csv(capsys: pytest.CaptureFixture[str]) -> None:
    document = answer(capsys, ["table"])
    assert main(["table", "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["chip"], int(row["memory_bandwidth_gb_s"])) for row in rows] == [
        (row["chip"], row["memory_bandwidth_gb_s"]) for row in document["bins"]
    ]
    assert all(row["source"] for row in rows)


@pytest.mark.parametrize("chip", chip_names())
def test_every_chip_fits_a_terminal_of_80_columns(
    chip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lookup", chip]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"[" * 99999, b'{"outputs": 1}'])
def test_standard_input_that_is_no_capture_is_refused(content: bytes) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mlx_hwprobe", "--from", "-"],
        input=content,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"Traceback" not in done.stderr


def test_the_table_fits_a_terminal_of_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_a_capture_can_be_replayed_and_says_nothing_of_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "capture.json"
    assert run("capture", "-o", str(path)).returncode == 0
    replayed, live = run("--json", "--from", str(path)), run("--json")
    assert json.loads(replayed.stdout) == json.loads(live.stdout)


def test_a_saved_capture_is_also_the_answer_in_json(tmp_path: Path) -> None:
    path = tmp_path / "capture.json"
    done = run("capture", "-o", str(path), "--json")
    assert json.loads(done.stdout) == json.loads(path.read_text())
    assert str(path) in done.stderr


def test_a_capture_that_cannot_be_saved_names_the_file_once(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "capture.json"
    done = run("capture", "-o", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"mlx-hwprobe: {path}: No such file or directory\n"


def test_measuring_says_what_did_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    document = answer(capsys, ["measure", "--repetitions", "1"])
    assert document["backend"] in ("mlx-gpu", "mlx-cpu", "cpu")
    assert document["memory_bandwidth_gb_s"] > 0


def test_lookup_and_table_load_neither_subprocess_nor_threads() -> None:
    code = (
        "import sys; from mlx_hwprobe.__main__ import main; main(['lookup', 'M4 Max'])\n"
        "main(['table']); print(sorted({'subprocess', 'socket', 'concurrent.futures',"
        " 'statistics', 'difflib', 'shutil'} & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-IS", "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip() == "[]"


def test_the_example_in_the_readme_runs() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, check=True
    )
    assert "M4 Max 546 table\n" in done.stdout


def test_the_profile_in_the_readme_is_what_such_a_mac_prints() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```console\n\$ mlx-hwprobe\n(.*?)```", readme, re.DOTALL)
    capture = json.loads((CAPTURES / "m4_max_wired_limit.json").read_text())
    sysctl = capture["outputs"]["sysctl"]
    sysctl["stdout"] = sysctl["stdout"].replace("wired_limit_mb: 118000", "wired_limit_mb: 0")
    assert run("--from", "-", stdin=json.dumps(capture)).stdout == shown
