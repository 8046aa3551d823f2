"""What the environment says of the Hub, and that no variable takes a command down."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_catalog import HubConnectionError, HubError, RepoNotFoundError, TokenRefusedError
from mlx_stack.errors import StackError, UsageError
from mlx_stack.models.hub.client import open_hub
from mlx_stack.models.hub.environment import (
    HubEnvironment,
    Variable,
    is_exempt,
    is_web_address,
    read_environment,
)

HUB = "https://hub.example.org"
VARIABLES: tuple[dict[str, str], ...] = (
    {},
    {"HF_ENDPOINT": f"{HUB}/", "HF_TOKEN": "hf_one", "HF_HUB_OFFLINE": "yes"},
    {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "60"},
    {"HF_HOME": "{tmp}/filled", "HF_TOKEN": " \n"},
    {"HF_HOME": "{tmp}/filled", "HF_HUB_CACHE": "$HOME/elsewhere", "HF_TOKEN": ""},
    {"XDG_CACHE_HOME": "{tmp}/caches", "HUGGING_FACE_HUB_TOKEN": " hf_two\n"},
    {"HF_TOKEN_PATH": "{tmp}/filled/token", "HUGGINGFACE_HUB_CACHE": "~/old"},
)
THEIRS = """
import json, os, sys
for variables in json.load(sys.stdin):
    os.environ.clear()
    os.environ.update(variables)
    for name in [name for name in sys.modules if name.startswith("huggingface_hub")]:
        del sys.modules[name]
    from huggingface_hub import constants, get_token
    print(json.dumps([constants.ENDPOINT, get_token(), constants.HF_HUB_OFFLINE,
                      constants.HF_HUB_CACHE, constants.HF_HUB_DOWNLOAD_TIMEOUT]))
"""


def test_variables_mean_what_they_mean_to_huggingface_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "token").write_text("hf_of_the_file\n")
    sets = [
        {name: text.replace("{tmp}", str(tmp_path)) for name, text in variables.items()}
        | {"HOME": str(tmp_path)}
        for variables in VARIABLES
    ]
    command = [sys.executable, "-c", THEIRS]
    done = subprocess.run(command, input=json.dumps(sets), stdout=subprocess.PIPE, text=True,
                          check=True, env=sets[0])  # fmt: skip
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    monkeypatch.setenv("HOME", str(tmp_path))
    for variables, expected in zip(sets, theirs, strict=True):
        ours = read_environment(variables)
        assert not ours.problems
        assert [
            *(ours.endpoint, ours.token, ours.is_offline, str(ours.cache), ours.timeout_s)
        ] == expected, variables


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("HF_ENDPOINT", "huggingface.co", "'huggingface.co'"),
        ("HF_ENDPOINT", "", "HF_ENDPOINT"),
        ("HF_ENDPOINT", "http://127.0.0.1:99999", "99999"),
        ("HF_ENDPOINT", "https://[::1", "HF_ENDPOINT"),
        ("HF_ENDPOINT", "https://a..b", "HF_ENDPOINT"),
        ("HF_ENDPOINT", "https://hub .example.org", "HF_ENDPOINT"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "10s", "'10s'"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "-1", "HF_HUB_DOWNLOAD_TIMEOUT"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "1e999", "HF_HUB_DOWNLOAD_TIMEOUT"),
        ("HF_TOKEN", "hf_…", "HF_TOKEN"),
        ("HF_TOKEN", "hf_one hf_two", "HF_TOKEN"),
        ("HUGGING_FACE_HUB_TOKEN", "hf_\x07", "HUGGING_FACE_HUB_TOKEN"),
        ("ALL_PROXY", "socks4://127.0.0.1:9", "ALL_PROXY names a socks4:// proxy"),
        ("HTTPS_PROXY", "ftp://127.0.0.1:9", "HTTPS_PROXY names a ftp:// proxy"),
        ("https_proxy", "http://", "https_proxy"),
        ("https_proxy", "127.0.0.1:port", "https_proxy"),
        ("SSL_CERT_FILE", "/no/such.pem", "SSL_CERT_FILE.* /no/such.pem: No such file"),
        ("REQUESTS_CA_BUNDLE", "/no/such.pem", "REQUESTS_CA_BUNDLE"),
        ("SSL_CERT_DIR", "/no/such", "SSL_CERT_DIR.* /no/such: No such file"),
        ("SSL_CERT_FILE", __file__, "SSL_CERT_FILE names no certificates"),
    ],
)
def test_a_variable_that_makes_no_sense_is_read_and_told_once_the_hub_is_needed(
    tmp_path: Path, variable: str, value: str, words: str
):
    environment = read_environment({"HF_HOME": str(tmp_path), variable: value})
    with pytest.raises(UsageError, match=words) as told:
        environment.ready()
    assert variable in told.value.message


def test_a_token_that_cannot_be_read_is_told_by_its_path(tmp_path: Path):
    (tmp_path / "token").mkdir()
    environment = read_environment({"HF_HOME": str(tmp_path)})
    assert environment.token is None
    with pytest.raises(UsageError, match=f"{tmp_path}/token"):
        environment.ready()


@pytest.mark.parametrize("home", ["/dev/null", "/no/such"])
def test_a_hugging_face_folder_that_is_none_holds_no_token(home: str):
    environment = read_environment({"HF_HOME": home}).ready()
    assert environment.token is None


def test_a_token_that_needs_no_renewal_is_taken_as_it_is(tmp_path: Path):
    (tmp_path / "token").write_text("hf_kept")
    (tmp_path / "stored_tokens").write_text("[mine]\nhf_token = hf_kept\n")
    assert read_environment({"HF_HOME": str(tmp_path)}).ready().token == "hf_kept"


@given(st.dictionaries(st.sampled_from([*"ABC"]), st.text()))
def test_whatever_the_variables_hold_they_can_be_read(values: dict[str, str]):
    names = {"A": "HF_ENDPOINT", "B": "HF_HUB_DOWNLOAD_TIMEOUT", "C": "HF_TOKEN"}
    environment = read_environment({names[key]: text for key, text in values.items()})
    assert is_web_address(environment.endpoint)
    assert environment.timeout_s > 0


@pytest.mark.parametrize("user", ["me:secret@", "secret@", ":secret@"])
def test_no_message_repeats_the_password_of_the_endpoint(user: str):
    environment = read_environment({"HF_ENDPOINT": f"http://{user}hub.example:8080/mirror/"})

    assert environment.shown_endpoint == "http://hub.example:8080/mirror"
    for error in (HubConnectionError, TokenRefusedError, RepoNotFoundError, HubError):
        with pytest.raises(StackError) as raised, open_hub(environment, "acme/tiny"):
            raise error(environment.endpoint, "no answer")
        assert "secret" not in f"{raised.value.message} {raised.value.hint}"


def test_the_token_goes_to_the_hubs_own_origin_only():
    environment = HubEnvironment(endpoint=HUB, token="hf_secret")
    assert environment.headers_of(f"{HUB}:443/a/b")["Authorization"] == "Bearer hf_secret"
    for other in ("http://hub.example.org/a/b", f"{HUB}:8443/a", "https://cdn.example.org/a"):
        assert "Authorization" not in environment.headers_of(other)


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({"HTTPS_PROXY": "http://p:1"}, HUB, "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, "http://hub.example.org", None),
        ({"https_proxy": "http://small:1", "HTTPS_PROXY": "http://p:1"}, HUB, "http://small:1"),
        ({"HTTPS_PROXY": "p:1"}, HUB, "http://p:1"),
        ({"ALL_PROXY": "socks5://p:1", "HTTPS_PROXY": "http://q:1"}, HUB, "http://q:1"),
        ({"ALL_PROXY": "http://p:1", "HTTPS_PROXY": ""}, HUB, "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "example.org"}, HUB, None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "::1,[::1]"}, "http://[::1]:8000", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "::1,[::1]"}, HUB, "http://p:1"),
        ({"HTTP_PROXY": "socks5://p:1"}, HUB, None),
    ],
    ids=str,
)
def test_the_way_to_an_address_is_that_of_its_scheme(
    variables: Mapping[str, str], url: str, proxy: str | None
):
    assert read_environment(variables).proxy_of(url) == proxy


@pytest.mark.parametrize(
    ("host", "rules", "is_direct"),
    [
        ("hub.example.org", "example.org", True),
        ("hub.example.org", ".example.org", True),
        ("hub.example.org", "*.example.org", True),
        ("example.org", ".example.org", True),
        ("badexample.org", "example.org", False),
        ("HUB.example.org", "hub.EXAMPLE.org", True),
        ("hub.example.org", "*", True),
        ("hub.example.org", "hub.example.org:443", True),
        ("hub.example.org", "hub.example.org:8443", False),
        ("::1", "::1", True),
        ("::1", "[::1]", True),
        ("::1", "[::1]:443", True),
        ("::1", "[::1]:80", False),
        ("::1", "0:0:0:0:0:0:0:1", True),
        ("fe80::7", "fe80::/10", True),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("hub.example.org", "10.0.0.0/8", False),
        ("hub.example.org", "", False),
        ("hub.example.org", ".", False),
        ("hub.example.org", "[::1", False),
    ],
)
def test_what_no_proxy_names_is_reached_directly(host: str, rules: str, *, is_direct: bool):
    assert is_exempt(host, 443, [rules]) is is_direct


@given(st.text(), st.lists(st.text()))
def test_no_rule_is_too_strange(host: str, rules: list[str]):
    assert is_exempt(host, 443, ["*", *rules])
    is_exempt(host, 443, rules)


def test_a_folder_of_certificates_may_stand_where_a_file_is_usual(tmp_path: Path):
    bundle = Variable("REQUESTS_CA_BUNDLE", str(tmp_path))
    assert HubEnvironment(certificate_file=bundle).tls().get_ca_certs() == []


@pytest.mark.parametrize(
    ("endpoint", "is_refused"),
    [
        ("http://hub.example.org", True),
        ("http://192.168.1.2:8080", True),
        ("http://127.0.0.1.example.org", True),
        ("http://127.0.0.1:8080", False),
        ("http://[::1]:8080", False),
        ("http://localhost:8080", False),
        ("https://hub.example.org", False),
    ],
)
def test_a_token_goes_over_plain_http_to_this_machine_only(
    tmp_path: Path, endpoint: str, is_refused: bool
):
    variables = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": endpoint}
    read_environment(variables).ready()
    environment = read_environment({**variables, "HF_TOKEN": "hf_secret"})
    if not is_refused:
        environment.ready()
        return
    with pytest.raises(UsageError, match="HF_ENDPOINT") as caught:
        environment.ready()
    assert "hf_secret" not in caught.value.message
