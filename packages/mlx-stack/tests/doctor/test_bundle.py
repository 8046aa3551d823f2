"""What a bug report must not hold, and what it must still tell."""

import pytest

from mlx_stack.credentials import MASK
from mlx_stack.doctor.bundle import redact


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("token hf_AbCdEfGhIjKlMnOpQrStUvWxYz0123", "hf_"),
        ("key\tsk-or-v1-0123456789abcdef0123", "sk-or"),
        ("OPENAI_API_KEY=plainlookingkey", "plainlooking"),
        ('{"x-api-key": "plainlookingkey"}', "plainlooking"),
        ("Authorization: Bearer abc.def.ghi-jkl", "abc.def"),
        ("Authorization: Basic dXNlcjpwYXNz", "dXNl"),
        ("via http://ada:hunter22@proxy.example:3128/", "hunter22"),
        ("db_password: hunter2222", "hunter2222"),
        ("mail ada@example.org", "ada@"),
        ("open /Users/lovelace/models/a.safetensors", "lovelace"),
        ("open /home/lovelace", "lovelace"),
        ("device 5F3C1A9E-1234-5678-9ABC-DEF012345678", "5F3C1A9E"),
        ("en0 a4:83:e7:12:34:56", "a4:83"),
        ("serial C02XK1ZZJGH5.", "C02X"),
    ],
)
def test_what_looks_like_a_secret_or_a_person_is_removed(line: str, secret: str) -> None:
    assert secret in line
    assert secret not in str(redact(line, {}))


@pytest.mark.parametrize(
    "line",
    [
        "GET http://127.0.0.1:8000/v1/models 200",
        "mlx-community/Qwen3-30B-A3B-4bit max_tokens: 123456789 MLX_STACK_HOME=/srv/mlx-stack",
        "RuntimeError: [METAL] Command buffer execution failed: Insufficient Memory (00000008)",
        "2026-11-28 10:47:12  noticed: watching standard, fast",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ],
)
def test_what_explains_a_failure_stays(line: str) -> None:
    assert redact(line, {}) == line


def test_names_go_where_they_stand_as_words_only() -> None:
    known = {"ada": "<user>", "/srv/ada": "~", "nokeyshape": MASK}
    value = {"logs": {"ada": ["/srv/ada/x of ada, adamant", "nokeyshape\nada"]}, "pid": 7}

    assert redact(value, known) == {
        "logs": {"ada": ["~/x of <user>, adamant", f"{MASK}\n<user>"]},
        "pid": 7,
    }


@pytest.mark.parametrize("label", ["[REQUEST] last user message preview: ", "prompt_preview="])
def test_the_prompts_that_the_engine_logs_are_removed(label: str) -> None:
    lines = [f"INFO {label}My PIN is 4711; my wife Anna left me.", "INFO 200 OK"]
    assert redact(lines, {}) == [f"INFO {label}<prompt>", "INFO 200 OK"]
