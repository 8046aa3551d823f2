"""The Homebrew formula of a release: every package that mlx-stack needs on a Mac, with its hash."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DOWNLOADS = "https://git.example.org/robin/mlx-stack/releases/download/mlx-stack-v0.1.0"
OURS = ("bench", "catalog", "gateway", "hwprobe", "launchd", "procsup", "recommend", "stack")
RESOURCE = re.compile(
    r'resource "([\w.-]+)" do\n    url "(\S+)", using: :nounzip\n    sha256 "(\w+)"'
)


@pytest.fixture
def formula(tmp_path: Path) -> str:
    for name in OURS:
        (tmp_path / f"mlx_{name}-0.1.0-py3-none-any.whl").write_bytes(name.encode())
    done = subprocess.run(
        [
            *(sys.executable, REPOSITORY / ".github" / "homebrew_formula.py", tmp_path),
            *(DOWNLOADS, "https://git.example.org/robin/mlx-stack"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_our_own_packages_come_from_the_release_and_from_nowhere_else(formula: str) -> None:
    urls = re.findall(r'url "(\S*/mlx_\S+)"', formula)

    assert len(urls) == len(OURS)
    assert all(url.startswith(f"{DOWNLOADS}/mlx_") for url in urls)


def test_everything_that_is_imported_is_there_once(formula: str) -> None:
    names = [name for name, _, _ in RESOURCE.findall(formula)]

    assert len(names) == len(set(names))
    assert {"click", "httpx", "huggingface-hub", "psutil", "socksio", "truststore", "uv"} <= {
        *names
    }
    assert not {"pytest", "sphinx", "pyright", "colorama", "pywin32"} & {*names}


def test_every_wheel_runs_on_apple_silicon_and_has_its_hash(formula: str) -> None:
    for name, url, digest in RESOURCE.findall(formula):
        assert re.search(r"-(?:any|macosx_\d+_\d+_(?:arm64|universal2))\.whl$", url), name
        assert re.fullmatch(r"[0-9a-f]{64}", digest), name
