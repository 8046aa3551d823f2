"""The hub client against a small hub on this machine, which speaks the Hub's own paths."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from mlx_catalog import (
    GatedRepoError,
    HubConnectionError,
    HubError,
    RepoNotFoundError,
    RevisionNotFoundError,
    TokenRefusedError,
)
from mlx_catalog.hub import Hub, HubCommit, HubFile

SHA = "1f" * 20
CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 16,
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 131072,
    "quantization": {"group_size": 64, "bits": 4},
}
TREE: list[dict[str, object]] = [
    {"type": "directory", "oid": "d", "size": 0, "path": "assets"},
    {"type": "file", "oid": "a", "size": len(json.dumps(CONFIG)), "path": "config.json"},
    {"type": "file", "oid": "b", "size": 400_000_000, "path": "model-00001.safetensors"},
    {"type": "file", "oid": "c", "size": 300_000_000, "path": "model-00002.safetensors"},
    {"type": "file", "oid": "e", "size": 17_000_000, "path": "tokenizer.json"},
]
LISTED = [
    {
        "id": "mlx-community/Lynx-1B-4bit",
        "downloads": 1200,
        "likes": 7,
        "gated": False,
        "tags": ["mlx", "text-generation"],
        "lastModified": "2026-10-01T00:00:00.000Z",
        "safetensors": {
            "parameters": {"BF16": 1_000_000, "U32": 150_000_000},
            "total": 151_000_000,
        },
    },
    {"id": "someone/Puma", "downloads": 3, "gated": "manual"},
]


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        hub = self.server
        assert isinstance(hub, _Hub)
        url = urlsplit(self.path)
        hub.asked.append((url.path, parse_qs(url.query), dict(self.headers)))
        status, headers, body = hub.answers.get(url.path, (404, {}, b""))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ARG002 - its name
        return


class _Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, dict[str, list[str]], dict[str, str]]] = []
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, path: str, value: object, status: int = 200, **headers: str) -> None:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        self.answers[path] = (status, named, json.dumps(value).encode())

    def add_repo(self, repo: str, tree: object = TREE) -> None:
        self.answer(f"/api/models/{repo}/revision/main", {"id": repo, "sha": SHA, "gated": False})
        self.answer(f"/api/models/{repo}/tree/{SHA}", tree)
        self.answer(f"/{repo}/resolve/{SHA}/config.json", CONFIG)


@pytest.fixture
def server() -> Iterator[_Hub]:
    with _Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.01,))
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()


@pytest.fixture
def hub(server: _Hub) -> Iterator[Hub]:
    with Hub(server.endpoint) as client:
        yield client


def test_a_search_lists_mlx_models_by_downloads_with_the_bytes_of_their_weights(
    server: _Hub, hub: Hub
):
    server.answer("/api/models", LISTED)
    lynx, puma = hub.search("lynx", limit=5)
    assert (lynx.repo, lynx.downloads, lynx.gated) == ("mlx-community/Lynx-1B-4bit", 1200, False)
    assert lynx.weights_bytes == 2 * 1_000_000 + 4 * 150_000_000
    assert (puma.gated, puma.weights_bytes, puma.likes) == (True, None, None)
    _, query, _ = server.asked[0]
    assert query["filter"] == ["mlx"]
    assert (query["search"], query["sort"], query["limit"]) == (["lynx"], ["downloads"], ["5"])


def test_no_query_asks_for_the_most_downloaded(server: _Hub, hub: Hub):
    server.answer("/api/models", [])
    assert hub.search() == ()
    assert "search" not in server.asked[0][1]


def test_a_repository_is_read_without_its_weights(server: _Hub, hub: Hub):
    server.add_repo("mlx-community/Lynx-1B-4bit")
    found = hub.read("mlx-community/Lynx-1B-4bit")
    assert found.revision == SHA
    assert found.weights_bytes == 700_000_000
    assert found.download_bytes == 717_000_000 + len(json.dumps(CONFIG))
    assert found.model.params == round(700_000_000 * 8 / 4.5)
    assert found.model.geometry is not None
    assert found.model.geometry.growing_kv_elements_per_token == 16 * 2 * 8 * 64
    assert not any("safetensors" in path for path, _, _ in server.asked)


def test_a_second_layout_of_the_same_weights_is_not_counted(server: _Hub, hub: Hub):
    again = ["consolidated.safetensors", "original/model-00001.safetensors"]
    files = [{"type": "file", "size": 700_000_000, "path": path} for path in again]
    server.add_repo("someone/Twice", [*TREE, *files])
    assert hub.read("someone/Twice").weights_bytes == 700_000_000


def test_a_long_file_list_is_read_page_by_page(server: _Hub, hub: Hub):
    repo = "mlx-community/Lynx-1B-4bit"
    server.add_repo(repo)
    following = f'<{server.endpoint}/more>; rel="next"'
    server.answer(f"/api/models/{repo}/tree/{SHA}", TREE[:3], Link=following)
    server.answer("/more", TREE[3:])
    assert hub.read(repo).weights_bytes == 700_000_000


def test_the_token_is_sent(server: _Hub):
    server.answer("/api/models", [])
    with Hub(server.endpoint, "hf_secret") as client:
        client.search()
    assert server.asked[0][2]["authorization"] == "Bearer hf_secret"


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (403, {"x_error_code": "GatedRepo"}, GatedRepoError),
        (401, {"x_error_code": "GatedRepo"}, GatedRepoError),
        (401, {"x_error_code": "RepoNotFound"}, RepoNotFoundError),
        (404, {"x_error_code": "RepoNotFound"}, RepoNotFoundError),
        (401, {}, RepoNotFoundError),
        (404, {}, RepoNotFoundError),
        (404, {"x_error_code": "RevisionNotFound"}, RevisionNotFoundError),
        (403, {}, HubError),
        (500, {}, HubError),
        (429, {}, HubError),
    ],
)
def test_a_refusal_is_told_for_what_it_is(
    server: _Hub, hub: Hub, status: int, headers: dict[str, str], error: type[HubError]
):
    server.answer("/api/models/a/b/revision/main", {}, status, **headers)
    with pytest.raises(HubError) as caught:
        hub.read("a/b")
    assert type(caught.value) is error
    assert caught.value.endpoint == server.endpoint


def test_a_token_that_the_hub_does_not_know_is_not_a_missing_repository(server: _Hub):
    server.answer("/api/models/a/b/revision/main", {}, 401)
    with Hub(server.endpoint, "hf_old") as client, pytest.raises(TokenRefusedError):
        client.read("a/b")


def test_a_refusal_keeps_the_hubs_own_words(server: _Hub, hub: Hub):
    server.answer("/api/models/a/b/revision/main", {}, 403, x_error_message="Blocked in X.")
    with pytest.raises(HubError, match="Blocked in X") as caught:
        hub.read("a/b")
    assert (caught.value.status, caught.value.said) == (403, "Blocked in X.")


def test_the_token_goes_neither_to_another_page_nor_behind_a_redirect(server: _Hub):
    repo = "mlx-community/Lynx-1B-4bit"
    server.add_repo(repo)
    with _Hub() as other:
        thread = threading.Thread(target=other.serve_forever, args=(0.01,))
        thread.start()
        other.answer("/more", TREE[3:])
        other.answer("/config.json", CONFIG)
        following = f'<{other.endpoint}/more>; rel="next"'
        server.answer(f"/api/models/{repo}/tree/{SHA}", TREE[:3], Link=following)
        elsewhere = {"Location": f"{other.endpoint}/config.json"}
        server.answer(f"/{repo}/resolve/{SHA}/config.json", {}, 302, **elsewhere)
        with Hub(server.endpoint, "hf_secret") as client:
            client.read(repo)
        other.shutdown()
        thread.join()
    assert {asked[2].get("authorization") for asked in server.asked} == {"Bearer hf_secret"}
    assert {path for path, _, _ in other.asked} == {"/more", "/config.json"}
    assert {asked[2].get("authorization") for asked in other.asked} == {None}


def test_a_commit_is_looked_up_and_its_files_come_with_their_digests(server: _Hub, hub: Hub):
    large = {"type": "file", "oid": "p", "size": 133, "path": "w.safetensors"}
    lfs = {"oid": "ab" * 32, "size": 9_000_000_000, "pointerSize": 133}
    server.add_repo("a/b", [TREE[1], {**large, "lfs": lfs}])
    commit = hub.look_up("a/b")
    assert commit == HubCommit("a/b", SHA, is_gated=False)
    assert hub.list_files(commit) == (
        HubFile("config.json", len(json.dumps(CONFIG)), "git-sha1", "a"),
        HubFile("w.safetensors", 9_000_000_000, "sha256", "ab" * 32),
    )


def test_a_revision_is_asked_for_by_name(server: _Hub, hub: Hub):
    server.add_repo("a/b")
    server.answer("/api/models/a/b/revision/refs%2Fpr%2F1", {"sha": SHA})
    assert hub.read("a/b", "refs/pr/1").revision == SHA


def test_what_names_no_commit_is_no_hub(server: _Hub, hub: Hub):
    server.answer("/api/models/a/b/revision/main", {"login": "please"})
    with pytest.raises(HubError, match="is it a model hub"):
        hub.look_up("a/b")


@pytest.mark.parametrize("entry", [{"type": "file"}, {"type": "file", "path": "x", "size": "1"}])
def test_a_list_of_files_that_makes_no_sense_is_told(
    server: _Hub, hub: Hub, entry: dict[str, object]
):
    server.add_repo("a/b", [entry])
    with pytest.raises(HubError, match="list of files of a/b is damaged"):
        hub.read("a/b")


def test_a_list_whose_pages_go_in_a_circle_ends(server: _Hub, hub: Hub):
    server.add_repo("a/b")
    again = f'</api/models/a/b/tree/{SHA}?recursive=true>; rel="next"'
    server.answer(f"/api/models/a/b/tree/{SHA}", TREE, Link=again)
    assert hub.read("a/b").weights_bytes == 700_000_000


def test_a_repository_without_a_config_is_no_model(server: _Hub, hub: Hub):
    server.add_repo("a/b", [entry for entry in TREE if entry["path"] != "config.json"])
    with pytest.raises(HubError, match=r"a/b has no config\.json"):
        hub.read("a/b")


@pytest.mark.parametrize("content", [b"<html>maintenance</html>", b'["\xff"]', b"[" * 100_000])
def test_an_answer_that_is_no_json_is_told(server: _Hub, hub: Hub, content: bytes):
    server.answers["/api/models"] = (200, {}, content)
    with pytest.raises(HubError, match="no JSON"):
        hub.search()


def test_a_listing_that_is_no_list_is_told(server: _Hub, hub: Hub):
    server.answer("/api/models", {"error": "no"})
    with pytest.raises(HubError, match="a list"):
        hub.search()


def test_several_repositories_are_read_at_once_and_a_bad_one_spoils_nothing(server: _Hub, hub: Hub):
    server.add_repo("a/good")
    found = hub.read_many(["a/good", "a/bad", "a/good"])
    assert list(found) == ["a/good", "a/bad"]
    assert not isinstance(found["a/good"], Exception)
    assert isinstance(found["a/bad"], RepoNotFoundError)


def test_a_hub_that_is_not_there_is_unreachable():
    with _Hub() as closed:
        endpoint = closed.endpoint
    with Hub(endpoint) as client, pytest.raises(HubConnectionError) as caught:
        client.search("x")
    assert caught.value.endpoint == endpoint


def test_a_hub_that_does_not_answer_in_time_is_unreachable():
    late = pytest.raises(HubConnectionError, match="no answer in time")
    with _Hub() as silent, httpx.Client(timeout=0.05) as client, late:
        Hub(silent.endpoint, client=client).search()


def test_an_endpoint_that_is_no_url_is_unreachable():
    with Hub("nonsense") as client, pytest.raises(HubConnectionError):
        client.search()


def test_an_answer_without_end_is_not_read_to_its_end(server: _Hub, hub: Hub):
    server.add_repo("x/big")
    server.answers[f"/x/big/resolve/{SHA}/config.json"] = (200, {}, b" " * 40_000_000)
    with pytest.raises(HubError, match="larger than 16 MB"):
        hub.read("x/big")


def test_a_config_that_is_announced_too_large_is_not_asked_for(server: _Hub, hub: Hub):
    tree = [{"type": "file", "oid": "a", "size": 17_000_000, "path": "config.json"}]
    server.add_repo("x/big", tree)
    with pytest.raises(HubError, match="too large"):
        hub.read("x/big")
    assert not [path for path, _, _ in server.asked if path.endswith("config.json")]
