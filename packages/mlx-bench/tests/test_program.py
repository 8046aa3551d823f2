"""The program as users run it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import mlx_bench
from mlx_bench.__main__ import main

type Say = Callable[..., subprocess.CompletedProcess[str]]

COMMAND = (sys.executable, "-m", "mlx_bench")
FAST = ("--prompt-tokens", "60", "--generation-tokens", "20", "--iterations", "2")


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


def test_json_is_one_document_and_files_are_written(
    server_url: str, say: Say, tmp_path: Path
) -> None:
    done = say(
        server_url,
        *("--model", "ttft_ms=5,tps=500", *FAST, "--json"),
        *("--html", "report.html", "-o", "report.md", "-o", "report.csv", "--save"),
    )
    assert done.returncode == 0, done.stderr
    shape = json.loads(done.stdout)
    assert shape["model"] == "ttft_ms=5,tps=500"
    assert shape["summary"]["ttft_s"]["value"] > 0.005
    assert shape["memory"]["peak_bytes"] > 1_000_000
    assert {path.name for path in tmp_path.iterdir()} == {
        "benchmarks",
        "report.html",
        "report.md",
        "report.csv",
    }
    (saved,) = (tmp_path / "benchmarks").iterdir()
    assert json.loads(saved.read_text())["finished"] is True
    again = say("compare", str(saved), str(saved))
    assert "B/A    1.00" in again.stdout


def test_the_only_model_needs_no_name(server_url: str, say: Say) -> None:
    done = say(server_url, *FAST)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("calibration at http://127.0.0.1:")
    assert "Traceback" not in done.stderr


def test_a_saved_report_is_shown_again(server_url: str, say: Say, tmp_path: Path) -> None:
    say(server_url, *FAST, "-o", "one.json", "--json")
    done = say("report", "one.json", "--markdown", "--html", "one.html")
    assert done.returncode == 0
    assert done.stdout.startswith("# calibration at")
    assert (tmp_path / "one.html").read_text().startswith("<!doctype html>")


def test_a_killed_benchmark_leaves_what_it_had_measured(server_url: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    arguments = (server_url, "--model", "ttft_ms=5,tps=500", *FAST[:4])
    with subprocess.Popen(
        [*COMMAND, *arguments, "--iterations", "10000", "-o", str(report)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while not report.exists() and process.poll() is None:
            pass
        process.kill()
    shape = json.loads(report.read_text())
    assert shape["finished"] is False
    assert len(shape["runs"]) >= 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("http://127.0.0.1:9/v1", "--model", "m"), 1),
        (("http://127.0.0.1:9/v1",), 1),
        (("ftp://127.0.0.1/v1", "--model", "m"), 2),
        (("http://127.0.0.1:9/v1", "--iterations", "none"), 2),
        (("http://127.0.0.1:9/v1", "--concurrency", "0"), 2),
        (("http://127.0.0.1:9/v1", "--api-key-env", "MLX_BENCH_NO_SUCH_KEY"), 2),
        (("http://127.0.0.1:99999/v1", "--model", "m"), 2),
        (("http://127.0.0.1:9/v1", "--timeout", "nan"), 2),
        (("http://127.0.0.1:9/v1", "--model", "m", "--html", "/dev/null/page.html"), 1),
        (("report", "missing.json"), 1),
        (("compare", "missing.json", "missing.json"), 1),
    ],
)
def test_failures_are_told_in_words_or_json_never_by_a_traceback(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int
) -> None:
    assert main(arguments) == code
    spoken = capsys.readouterr()
    assert spoken.out == ""
    assert spoken.err.startswith("mlx-bench: ")
    assert main([*arguments, "--json"]) == code
    error = json.loads(capsys.readouterr().out)
    assert error["schema_version"] == 1
    assert set(error["error"]) == {"type", "message", "hint"}


def test_a_page_is_a_page_whatever_its_name(server_url: str, say: Say, tmp_path: Path) -> None:
    done = say(server_url, *FAST, "--html", "page")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page").read_text().startswith("<!doctype html>")


def test_what_is_asked_twice_is_measured_once(server_url: str, say: Say) -> None:
    done = say(server_url, *FAST, "--concurrency", "2,2", "--json")
    shape = json.loads(done.stdout)
    assert shape["parameters"]["concurrency"] == 2
    assert shape["summary"]["ttft_s"]["samples"] == len(shape["runs"]) == 4


def test_a_terminated_benchmark_says_so_in_one_document(server_url: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    arguments = (server_url, *FAST[:4], "--iterations", "10000", "-o", str(report), "--json")
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, text=True) as process:
        while not report.exists() and process.poll() is None:
            pass
        process.terminate()
        spoken, _ = process.communicate()
    assert process.returncode == 143
    assert json.loads(spoken)["error"]["type"] == "terminated"


@pytest.mark.parametrize("arguments", [("--help",), ("report", "missing.json", "--json")])
def test_a_reader_that_has_gone_is_no_crash(arguments: tuple[str, ...], tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end) as closed:
        done = subprocess.run(
            [*COMMAND, *arguments], cwd=tmp_path, stdout=closed, stderr=subprocess.PIPE, check=False
        )
    assert done.stderr == b""


def test_the_version_is_told(tmp_path: Path) -> None:
    assert run("--version", cwd=tmp_path).stdout == f"mlx-bench {mlx_bench.__version__}\n"


def test_help_is_short_to_start_and_names_the_other_commands(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    for word in ("compare", "report", "calibrate", "--concurrency"):
        assert word in done.stdout
