"""Variables of the Hub that make no sense: named by what needs the Hub, harmless to all else."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

HARMLESS = (
    ("recommend", "--hardware", "m4-max:40:64"),
    ("estimate", "qwen3-8b", "--hardware", "m4-max:40:64"),
    ("estimate", "./mine", "--hardware", "m4-max:40:64"),
    ("models",),
    ("models", "--catalog", "--hardware", "m4-max:40:64"),
    ("init", "--accept-defaults", "--add", "./mine"),
)
ASKING = (
    ("pull", "acme/none"),
    ("estimate", "acme/none", "--hardware", "m4-max:40:64"),
    ("models", "--available", "x", "--hardware", "m4-max:40:64"),
)
VARIABLES = (
    ("ALL_PROXY", "socks4://127.0.0.1:9"),
    ("HTTP_PROXY", "ftp://127.0.0.1:9"),
    ("http_proxy", "http://127.0.0.1:port"),
    ("HF_HUB_DOWNLOAD_TIMEOUT", "10s"),
    ("HF_ENDPOINT", "huggingface"),
    ("HF_ENDPOINT", "http://[::1"),
    ("HF_TOKEN", "hf_…"),
    ("SSL_CERT_FILE", "/no/such.pem"),
    ("SSL_CERT_DIR", "/no/such"),
    ("REQUESTS_CA_BUNDLE", "/no/such.pem"),
)
WITHOUT_EFFECT = (
    ("HF_HUB_ETAG_TIMEOUT", "soon"),
    ("HF_HOME", "/dev/null"),
    ("HF_TOKEN", "  "),
    ("NO_PROXY", "::1,[::1],[::1]:port,10.0.0.0/8"),
    ("HF_HUB_OFFLINE", "perhaps"),
)
CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "vocab_size": 1000,
}


@pytest.fixture
def online(say: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The program without the variables of whoever runs the tests."""
    for name in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("HF_TOKEN", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(json.dumps(CONFIG))
    monkeypatch.chdir(tmp_path)
    return say


@pytest.mark.parametrize("variable", VARIABLES, ids="=".join)
def test_a_command_that_asks_the_hub_names_the_variable(
    online: Callable[..., object],
    variable: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv(*variable)
    for command in ASKING:
        done = online(*command, "--json")
        assert done.code == 2, command
        assert variable[0] in done.document["error"]["message"]


@pytest.mark.parametrize("variable", [*VARIABLES, *WITHOUT_EFFECT], ids="=".join)
def test_a_command_that_stays_on_this_machine_is_not_impressed(
    online: Callable[..., object],
    variable: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv(*variable)
    for command in HARMLESS:
        done = online(*command, "--json")
        assert done.code == 0, (command, done.err)
        assert "error" not in done.document


@pytest.mark.parametrize("variable", VARIABLES, ids="=".join)
def test_the_doctor_tells_the_variable_among_everything_else(
    online: Callable[..., object],
    variable: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv(*variable)
    findings = online("doctor", "--json").document["findings"]
    (told,) = [finding for finding in findings if finding["check"] == "hub"]
    assert told["severity"] == "warning"
    assert variable[0] in told["message"]
    assert len({finding["check"] for finding in findings}) > 5
