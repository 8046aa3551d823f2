"""The way to the Hub: proxies, troubles that pass, tokens; the same for every command."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_stack.models.errors import HubUnreachableError
from mlx_stack.models.hub.client import open_hub
from mlx_stack.models.hub.environment import HubEnvironment
from stack_testkit.hub import Fault, HubServer, Settings, write_repository
from stack_testkit.program import Finished, Program
from stack_testkit.proxy import Passage, Proxy

REPO = "acme/Tiny-4bit"
CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "vocab_size": 1000,
    "quantization": {"group_size": 64, "bits": 4},
}
MAC = ("--hardware", "m4-max:40:64")
COMMANDS = (
    ("models", "--available", "tiny", *MAC),
    ("estimate", REPO, *MAC),
    ("pull", REPO),  # the last one: what is here needs no Hub
)
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    size = 200_000  # an LFS file, which comes from the other origin
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    weights = len(header).to_bytes(8, "little") + header + bytes(size)
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": weights}
    write_repository(tmp_path / "hub", REPO, files)
    with HubServer(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def asking(program: Program, hub: HubServer, tmp_path: Path) -> Program:
    """`mlx-stack` for which the hub is the Hub, without a proxy."""
    variables = dict.fromkeys((*VARIABLES, *(name.lower() for name in VARIABLES)), "")
    variables |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
    variables |= {"HF_TOKEN": "", "HF_HUB_OFFLINE": "0"}
    return program.with_variables(**variables)


def run(program: Program, command: tuple[str, ...], **variables: str) -> Finished:
    return program.with_variables(**variables).run(*command, "--json")


@pytest.mark.story
@pytest.mark.parametrize(
    ("scheme", "variable", "kind"),
    [
        ("http", "HTTP_PROXY", "http"),
        ("", "ALL_PROXY", "http"),
        ("socks5", "ALL_PROXY", "socks5"),
        ("socks5h", "http_proxy", "socks5"),
    ],
)
def test_everything_goes_through_the_proxy_weights_included(
    asking: Program, hub: HubServer, scheme: str, variable: str, kind: str
):
    with Proxy() as proxy:
        address = f"{scheme}://user:secret@{proxy.address}" if scheme else proxy.address
        for command in COMMANDS:
            seen, asked = len(proxy.passages), len(hub.requests)
            done = run(asking, command, **{variable: address})
            assert done.code == 0, done.err
            assert "secret" not in done.out + done.err
            assert len(hub.requests) > asked
            passages = proxy.passages[seen:]
            assert {passage.kind for passage in passages} == {kind}
            assert all(passage.login for passage in passages) is bool(scheme)
    assert {request.origin for request in hub.requests} == {"hub", "cdn"}


@pytest.mark.story
@pytest.mark.parametrize("rule", ["127.0.0.0/8", "*", "127.0.0.1,127.0.0.2,[::1]"])
def test_what_no_proxy_names_is_reached_without_it(asking: Program, rule: str):
    for command in COMMANDS:
        done = run(asking, command, ALL_PROXY="socks5://127.0.0.1:9", NO_PROXY=rule)
        assert done.code == 0, done.err


@pytest.mark.story
def test_a_proxy_is_named_where_it_does_not_answer_or_refuses(asking: Program, hub: HubServer):
    for command in COMMANDS:
        done = run(asking, command, ALL_PROXY="socks5://127.0.0.1:9")
        assert (done.code, done.document["error"]["type"]) == (1, "hub-unreachable")
        assert "ALL_PROXY" in done.document["error"]["message"]
    with Proxy() as proxy:
        wrong = f"socks5://user:wrong@{proxy.address}"
        assert run(asking, COMMANDS[1], ALL_PROXY=wrong).code == 1
        hub.close()
        assert run(asking, COMMANDS[1], ALL_PROXY=f"socks5://{proxy.address}").code == 1
        assert proxy.passages[-1] == Passage("socks5", "127.0.0.1", login=False)


@pytest.mark.story
@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="status", status=429, retry_after="0", times=1),
        Fault(kind="status", status=429, times=1),
        Fault(kind="status", status=503, times=2),
    ],
    ids=["429 with Retry-After", "429", "503 twice"],
)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_trouble_that_passes_is_waited_for(
    asking: Program, hub: HubServer, command: tuple[str, ...], fault: Fault
):
    hub.configure(Settings(faults=(fault,)))
    done = run(asking, command)
    assert done.code == 0, done.err


@pytest.mark.story
@pytest.mark.parametrize(
    ("fault", "token", "kind", "words"),
    [
        (Fault(kind="status", status=401), "hf_old", "hub-refused", "does not accept the token"),
        (Fault(kind="status", status=403), "", "hub-refused", "(HTTP 403)"),
        (Fault(kind="status", status=403, message="Not here."), "", "hub-refused", "Not here."),
        (Fault(kind="status", status=500), "", "hub-unreachable", "HTTP 500"),
        (
            Fault(kind="status", status=429, retry_after="86400"),
            "",
            "hub-unreachable",
            "HTTP 429",
        ),
    ],
)
def test_every_command_says_the_same_of_the_same_refusal(
    asking: Program, hub: HubServer, fault: Fault, token: str, kind: str, words: str
):
    hub.configure(Settings(faults=(fault,)))
    for command in COMMANDS:
        error = run(asking, command, HF_TOKEN=token).document["error"]
        assert error["type"] == kind, command
        assert words in error["message"]
        assert "licence" not in f"{error['message']} {error['hint']}"


@pytest.mark.story
@pytest.mark.parametrize("token", ["", "hf_wrong"])
def test_a_gated_model_speaks_of_its_licence(asking: Program, hub: HubServer, token: str):
    hub.configure(Settings(gated="manual"))
    for command in COMMANDS[1:]:
        error = run(asking, command, HF_TOKEN=token).document["error"]
        assert error["type"] == "gated-model"
        assert f"{hub.url}/{REPO}" in error["hint"]


@pytest.mark.story
def test_a_model_that_is_none_comes_with_the_nearest_of_the_catalog(asking: Program):
    for verb in ("pull", "estimate"):
        error = run(asking, (verb, "acme/Qwen3-8bb")).document["error"]
        assert error["type"] == "model-not-found"
        assert "qwen3-8b" in error["hint"]


@pytest.mark.story
def test_the_token_stays_with_the_hub(asking: Program, hub: HubServer):
    for command in COMMANDS:
        assert run(asking, command, HF_TOKEN="hf_secret").code == 0
    to = {(request.origin, request.authorization) for request in hub.requests}
    assert to == {("hub", "Bearer hf_secret"), ("cdn", None)}


@pytest.mark.story
@pytest.mark.parametrize(
    "spelling", ["{repo}@main", "{hub}/{repo}/tree/main", "hf.co/{repo}", "{repo}/"]
)
def test_a_spelling_means_the_same_to_the_hub(asking: Program, hub: HubServer, spelling: str):
    name = spelling.replace("{repo}", REPO).replace("{hub}", hub.url)
    assert run(asking, ("estimate", name, *MAC)).document["model"] == REPO
    assert run(asking, ("pull", name)).document["repo"] == REPO
    (found,) = run(asking, ("models", "--available", name, *MAC)).document["models"]
    assert found["repo"] == REPO


def test_a_question_is_not_put_again_for_ever(hub: HubServer):
    hub.configure(Settings(faults=(Fault(kind="status", status=503),)))
    environment = HubEnvironment(endpoint=hub.url)
    with pytest.raises(HubUnreachableError), open_hub(environment, REPO, attempts=2) as client:
        client.look_up(REPO)
    assert len(hub.requests) == 2


def test_a_redirect_whose_body_never_ends_is_followed(hub: HubServer):
    hub.configure(Settings(lfs_from_bytes=1, faults=(Fault(kind="endless", path="config.json"),)))
    with open_hub(HubEnvironment(endpoint=hub.url, timeout_s=5)) as client:
        assert client.read(REPO).config["model_type"] == "llama"
