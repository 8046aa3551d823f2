"""The gateway's key, when several processes want one at once."""

import subprocess
import sys
from pathlib import Path

import pytest

from mlx_stack.credentials import ensure_gateway_key, mask_keys, read_gateway_key
from mlx_stack.home import Home

_MAKE = """
import sys
from pathlib import Path
from mlx_stack.credentials import ensure_gateway_key
from mlx_stack.home import Home
print("ready", flush=True)
sys.stdin.readline()
print(ensure_gateway_key(Home(Path(sys.argv[1]))))
"""


def test_processes_that_want_the_first_key_at_once_get_the_same_one(tmp_path: Path):
    home = Home(tmp_path / "home")
    processes = [
        subprocess.Popen(
            (sys.executable, "-c", _MAKE, str(home.root)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    keys = {process.communicate()[0].strip() for process in processes}
    assert keys == {read_gateway_key(home)}
    assert home.credentials.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in home.root.glob(".credentials*")] == []


def test_a_key_that_is_there_stays(tmp_path: Path):
    home = Home(tmp_path / "home")
    assert ensure_gateway_key(home) == ensure_gateway_key(home)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"key: sk-or-v1-{'0123456789abcdef' * 4}", "89abcdef"),
        ('"apiKey": "gsk9f8e7d6c5b4a3"', "gsk9f8e7d6c5b4a3"),
        ("OTHER_API_KEY=9f8e7d6c5b4a3210", "9f8e7d6c5b4a3210"),
        ("headers: Authorization: Bearer abcdefgh12345678", "abcdefgh12345678"),
    ],
)
def test_the_key_of_any_provider_is_masked_whole(text: str, secret: str):
    assert secret not in mask_keys(text, None)
