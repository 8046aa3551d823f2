"""What a user is told when uv fails, and what uv may see."""

import pytest

from mlx_stack import exit_codes
from mlx_stack.engines.uv_process import explain_failure, hermetic_environment

DISK_FULL = """error: Failed to install: big-1.0-py3-none-any.whl (big==1.0)
  cause: failed to write to file `/x/big.bin`: No space left on device (os error 28)"""
HASH = """error: Failed to download `big==1.0`
  cause: Hash mismatch for `big==1.0`"""
OFFLINE = """error: No solution found when resolving dependencies
hint: Packages were unavailable because the network was disabled."""
REFUSED = """error: Failed to fetch: http://127.0.0.1:9/simple/big/
  cause: error sending request for url (http://127.0.0.1:9/simple/big/)
  cause: client error (Connect)"""
NO_WHEEL = """error: No solution found when resolving dependencies
  cause: Because big==1.0 has no wheels with a matching platform tag (e.g., `macosx_13_0_arm64`)"""
UNKNOWN = """error: The moon is in the way
  cause: gravity"""


TLS = """error: Failed to fetch: https://localhost:28443/simple/six/
  cause: error sending request for url (https://localhost:28443/simple/six/)
  cause: client error (Connect)
  cause: invalid peer certificate: UnknownIssuer
"""


def test_a_proxy_that_reads_tls_is_named_with_what_uv_said_and_its_switch():
    error = explain_failure("vllm-mlx 0.6.0", 2, TLS)
    assert "(invalid peer certificate: UnknownIssuer)" in error.message
    assert "UV_SYSTEM_CERTS=1" in (error.hint or "")


@pytest.mark.parametrize(
    ("output", "reason", "exit_code"),
    [
        (DISK_FULL, "disk-full", exit_codes.FAILED),
        (HASH, "hash-mismatch", exit_codes.FAILED),
        (OFFLINE, "registry-unreachable", exit_codes.FAILED),
        (REFUSED, "registry-unreachable", exit_codes.FAILED),
        (TLS, "untrusted-certificate", exit_codes.FAILED),
        (NO_WHEEL, "no-wheel", exit_codes.MISSING),
        (UNKNOWN, "failed", exit_codes.FAILED),
        ("", "failed", exit_codes.FAILED),
    ],
)
def test_trouble_is_told_apart(output, reason, exit_code):
    error = explain_failure("vllm-mlx 0.6.0", 2, output)
    assert error.reason == reason
    assert error.exit_code == exit_code
    assert error.message.startswith("vllm-mlx 0.6.0 could not be installed: ")


def test_a_signal_outweighs_what_was_written():
    assert explain_failure("x", -9, DISK_FULL).reason == "killed"


def test_trouble_that_nobody_foresaw_is_shown_in_uv_s_own_words():
    assert "The moon is in the way" in explain_failure("x", 2, UNKNOWN).message


def test_a_mirror_and_a_proxy_reach_uv_and_nothing_else_does():
    kept = {
        "UV_DEFAULT_INDEX": "i",
        "UV_INDEX_COMPANY_PASSWORD": "p",
        "UV_CACHE_DIR": "c",
        "HTTPS_PROXY": "p",
        "PATH": "/bin",
    }
    left_out = {
        "VIRTUAL_ENV": "v",
        "UV_PYTHON": "3.8",
        "PYTHONPATH": "p",
        "UV_OVERRIDE": "o",
        "UV_CONFIG_FILE": "f",
        "HF_TOKEN": "hf_secret",
        "AWS_SECRET_ACCESS_KEY": "s",
    }
    assert hermetic_environment({**kept, **left_out}) == {**kept, "UV_PYTHON_DOWNLOADS": "never"}
