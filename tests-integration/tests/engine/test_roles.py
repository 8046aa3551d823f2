"""An embedder, a reranker and a model with eyes beside one that chats: real engines, one endpoint.

The model with eyes is random: what it says of a picture means nothing, and hangs on every pixel.
"""

import base64
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import pytest
import yaml

from mlx_bench.roles.pictures import data_url, png
from mlx_catalog import ModelRole
from mlx_procsup import read_pid
from mlx_stack.config import save_values
from mlx_stack.engines.environment import Environment
from mlx_stack.home import Home
from mlx_stack.services.ports import free_ports
from mlx_stack.stack import load_stack, save_stack
from stack_testkit.gateway_program import client_of
from stack_testkit.program import Program
from stack_testkit.reading_models import (
    DIMENSIONS,
    fetch_embedder,
    make_pair_classifier,
    reference,
)
from stack_testkit.tiny_families import make_model_with_eyes

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

EXACT = 1e-5
TEXTS = ["Paris is the capital of France.", "bananas", "The sky was grey over the harbour, and wet"]
QUERY = "What is the capital of France?"


@pytest.fixture(scope="module")
def embedder(engines_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = engines_home / "models" / "all-MiniLM-L6-v2"
    return kept if kept.is_dir() else fetch_embedder(tmp_path_factory.mktemp("embedder"))


@pytest.fixture(scope="module")
def reranker(
    embedder: Path, vllm_mlx_environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return make_pair_classifier(
        tmp_path_factory.mktemp("reranker") / "pairs",
        tokenizer_of=embedder,
        engine_python=vllm_mlx_environment.python,
    )


@pytest.fixture(scope="module")
def eyes(make_model: Callable[..., Path]) -> Path:
    return make_model(make_model_with_eyes, "eyes")


@pytest.fixture(scope="module")
def program(
    stack_home: Home, tiny_model: Path, embedder: Path, reranker: Path, eyes: Path
) -> Iterator[Program]:
    """A stack of all four, made as a user makes one, up."""
    (gateway_port,) = free_ports(1)
    save_values(stack_home, {"litellm-port": gateway_port, "litellm": "never"})
    program = Program(stack_home, {})
    models = [
        word for each in (tiny_model, embedder, reranker, eyes) for word in ("--add", str(each))
    ]
    usual = [word for name in ("standard", "fast", "longctx") for word in ("--remove", name)]
    made = program.run("init", *usual, *models, "--json")
    assert made.code == 0, made.out + made.err
    stack = load_stack(stack_home.stack)
    seeing = msgspec.structs.replace(stack.tiers[-1], role=ModelRole.VISION)
    save_stack(stack_home.stack, msgspec.structs.replace(stack, tiers=(*stack.tiers[:-1], seeing)))
    started = program.run("up", "--timeout", "300", "--json", timeout_s=400)
    assert started.code == 0, started.out + started.err
    yield program
    assert program.run("down", timeout_s=60).code == 0


@pytest.fixture
def client(program: Program) -> Iterator[httpx.Client]:
    with client_of(program) as client:
        yield client


def embed(client: httpx.Client, texts: Sequence[str], **more: object) -> list[Any]:
    body = {"model": "all-minilm-l6-v2", "input": texts, **more}
    answer = client.post("/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    return [row["embedding"] for row in answer.json()["data"]]


def farthest(found: Sequence[Sequence[float]], meant: Sequence[Sequence[float]]) -> float:
    pairs = zip(found, meant, strict=True)
    return max(abs(a - b) for f, m in pairs for a, b in zip(f, m, strict=True))


def test_the_role_of_each_model_is_known_from_its_files(program: Program) -> None:
    tiers = {tier.name: tier for tier in load_stack(program.home.stack).tiers}
    assert {name: str(tier.role) for name, tier in tiers.items()} == {
        "tiny": "chat",
        "all-minilm-l6-v2": "embedding",
        "pairs": "rerank",
        "eyes": "vision",
    }
    models = yaml.safe_load(program.home.gateway_settings.read_text())["models"]
    assert models["all-minilm-l6-v2"]["dimensions"] == DIMENSIONS
    assert [each["fallbacks"] for each in models.values()] == [["eyes"], [], [], ["tiny"]]


def test_vectors_are_those_of_the_model_as_a_list_and_in_base64(
    client: httpx.Client, embedder: Path, vllm_mlx_environment: Environment
) -> None:
    meant = reference(vllm_mlx_environment.python, embedder, TEXTS)
    assert farthest(embed(client, TEXTS), meant) < EXACT
    packed = map(base64.b64decode, embed(client, TEXTS, encoding_format="base64"))
    assert farthest([struct.unpack(f"<{DIMENSIONS}f", each) for each in packed], meant) < EXACT


def test_a_text_that_begins_as_a_picture_does_is_a_text(
    client: httpx.Client, embedder: Path, vllm_mlx_environment: Environment
) -> None:
    texts = ["data:image/png;base64,iVBORw0KGgo="]
    meant = reference(vllm_mlx_environment.python, embedder, texts)
    assert farthest(embed(client, texts), meant) < EXACT


def test_vectors_that_may_not_be_shortened_are_not(client: httpx.Client) -> None:
    asked = {"model": "all-minilm-l6-v2", "input": "x", "dimensions": 128}
    answer = client.post("/embeddings", json=asked)
    assert answer.status_code == 400
    assert "can't be shortened" in answer.json()["error"]["message"]


def test_a_long_request_is_computed_in_batches_and_comes_back_in_its_order(
    client: httpx.Client,
) -> None:
    words = ["tree", "house", "river", "lamp", "a lamp by the river and a tree by the house"]
    texts = [words[number % len(words)] for number in range(70)]
    vectors, alone = embed(client, texts), dict(zip(words, embed(client, words), strict=True))
    assert farthest(vectors, [alone[text] for text in texts]) < EXACT


def test_documents_come_back_in_the_order_of_the_reference(
    client: httpx.Client, reranker: Path, vllm_mlx_environment: Environment
) -> None:
    pairs = [(QUERY, text) for text in TEXTS]
    meant = reference(vllm_mlx_environment.python, reranker, pairs)
    body = {"model": "pairs", "query": QUERY, "documents": TEXTS}
    answer = client.post("/rerank", json=body)
    assert answer.status_code == 200, answer.text
    found = [(each["index"], each["relevance_score"]) for each in answer.json()["results"]]
    assert [index for index, _ in found] == sorted(range(3), key=lambda index: -meant[index])
    assert max(starmap(lambda index, score: abs(score - meant[index]), found)) < EXACT


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
@pytest.mark.parametrize("are_objects", [False, True])
def test_cohere_and_jina_read_the_best_documents_their_text_and_what_was_used(
    client: httpx.Client, reranker: Path, vllm_mlx_environment: Environment, path: str,
    are_objects: bool,
) -> None:  # fmt: skip
    meant = reference(vllm_mlx_environment.python, reranker, [(QUERY, text) for text in TEXTS])
    best = sorted(range(3), key=lambda index: -meant[index])[:2]
    given = [{"text": text} if are_objects else text for text in TEXTS]
    body = {"model": "pairs", "query": QUERY, "documents": given, "top_n": 2}
    root = client.base_url.copy_with(path="/")

    plain = client.post(root.join(path), json=body).json()
    told = client.post(root.join(path), json=body | {"return_documents": True}).json()

    assert [row["index"] for row in plain["results"]] == best
    assert not any("document" in row for row in plain["results"])
    assert [row["document"]["text"] for row in told["results"]] == [TEXTS[each] for each in best]
    assert told["model"] == "pairs"
    used = told["usage"]["total_tokens"]
    assert used == told["meta"]["tokens"]["input_tokens"] > 3 * len(QUERY.split())


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/embeddings", {"model": "tiny", "input": "x"}, "all-minilm-l6-v2"),
        ("/rerank", {"model": "tiny", "query": "x", "documents": ["y"]}, "pairs"),
        (
            "/chat/completions",
            {"model": "pairs", "messages": [{"role": "user", "content": "x"}]},
            "tiny",
        ),
    ],
)
def test_a_model_asked_for_another_ones_work_names_the_one_that_does_it(
    client: httpx.Client, path: str, body: dict[str, object], named: str
) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 400
    assert named in answer.json()["error"]["message"]


def test_an_embedder_answers_nobody_but_its_stack(program: Program) -> None:
    port = next(t.port for t in load_stack(program.home.stack).tiers if t.role == "embedding")
    for host, status in ((f"evil.example:{port}", 403), (f"localhost:{port}", 401)):
        url, headers = f"http://127.0.0.1:{port}/v1/embeddings", {"Host": host}
        answer = httpx.post(url, headers=headers, json={"input": "x"}, trust_env=False)
        assert answer.status_code == status
    assert {each.laddr.ip for each in psutil.net_connections() if each.laddr.port == port} <= {
        "127.0.0.1"
    }


def picture(*colour: int) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": data_url(png(224, [colour] * 4))}}


def test_a_model_with_eyes_tells_red_from_blue(client: httpx.Client) -> None:
    said: list[str] = []
    for colour in ((255, 0, 0), (0, 0, 255), (255, 0, 0)):
        content = [picture(*colour), {"type": "text", "text": "Which colour?"}]
        body = {"model": "eyes", "messages": [{"role": "user", "content": content}]}
        answer = client.post("/chat/completions", json=body | {"max_tokens": 6, "temperature": 0})
        assert answer.status_code == 200, answer.text
        said.append(answer.json()["choices"][0]["message"]["content"])
    assert said[0] == said[2] != said[1]


DOT = png(1, [(0, 0, 0)])
BOMB = DOT[:16] + struct.pack(">II", 50_000, 50_000) + DOT[24:]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/embeddings", {"model": "all-minilm-l6-v2", "input": ["x"] * 10_000}, "10,000 texts"),
        ("/rerank", {"model": "pairs", "query": "x", "documents": ["y"] * 10_000}, "10,000 texts"),
        ("/embeddings", {"model": "all-minilm-l6-v2", "input": "word " * 100_000}, "512 tokens"),
        ("/embeddings", {"model": "all-minilm-l6-v2", "input": [[1, 2], [3]]}, "Token IDs"),
        ("/embeddings", {"model": "nobody/knows-this", "input": "x"}, "nobody/knows-this"),
        ("/rerank", {"model": "nobody", "query": "x", "documents": ["y"]}, "nobody"),
        (data_url(BOMB), {}, "50,000 x 50,000 pixels"),
        ("file:///etc/passwd", {}, "addresses are not supported"),
        ("https://example.org/cat.png", {}, "`mlx-stack config set remote-images true`"),
    ],
)
def test_what_no_model_can_do_is_refused_in_words(
    client: httpx.Client, path: str, body: dict[str, object], said: str
) -> None:
    if not body:
        content = [{"type": "image_url", "image_url": {"url": path}}]
        body = {"model": "eyes", "messages": [{"role": "user", "content": content}]}
        path = "/chat/completions"
    answer = client.post(path, json=body)
    assert answer.status_code in (400, 404), answer.text
    assert said in answer.json()["error"]["message"]


def test_ask_shows_a_picture_and_refuses_a_bomb(program: Program, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(png(64, [(255, 0, 0)]))
    (tmp_path / "bomb.png").write_bytes(BOMB)
    asked = ("ask", "What is it?", "--tier", "eyes", "--max-tokens", "2", "--json", "--image")

    shown = program.run(*asked, str(tmp_path / "red.png"), timeout_s=120)
    bomb = program.run(*asked, str(tmp_path / "bomb.png"))

    assert shown.code == 0, shown.out
    assert shown.document["answer"]
    assert bomb.code == 2
    assert "50,000 x 50,000 pixels" in bomb.document["error"]["message"]


@pytest.mark.parametrize(
    ("tier", "size", "unit", "shown"),
    [
        ("all-minilm-l6-v2", "32", "texts/s", "texts of 32 tokens per request"),
        ("pairs", "40", "pairs/s", "documents of 40 tokens per request"),
        ("eyes", "64", "images/s", "images of 64 pixels per request"),
    ],
)
def test_bench_measures_what_a_tier_is_for_and_status_shows_it(
    program: Program, tier: str, size: str, unit: str, shown: str
) -> None:
    asked = ("bench", tier, "--items", "2", "--sizes", size, "--iterations", "2", "--save")
    done = program.run(*asked, "--json", timeout_s=200)

    assert done.code == 0, done.out
    assert (done.document["unit"], done.document["finished"]) == (unit, True)
    (summary,) = done.document["summary"]
    rate = summary["rate"]
    assert 0 < rate["low"] <= rate["value"] <= rate["high"]
    assert "prompt-length" not in {each["code"] for each in done.document["cautions"]}
    rows = program.run("status", "--json").document["services"]
    measured = next(row for row in rows if row["name"] == tier)["measured"]
    assert (measured["value"], measured["unit"]) == (rate["value"], unit)
    assert measured["load"] == f"2 {shown}"
    refused = program.run(*asked, "--generation-tokens", "5", "--json")
    assert (refused.code, "is for chat" in refused.document["error"]["message"]) == (2, True)


def test_status_shows_each_role_as_a_service_like_any(program: Program) -> None:
    shown = program.run("status", "--json")
    assert shown.code == 0, shown.out
    rows = {row["name"]: row for row in shown.document["services"]}
    roles = [rows[name]["role"] for name in ("tiny", "all-minilm-l6-v2", "pairs", "eyes")]
    assert roles == ["chat", "embedding", "rerank", "vision"]
    assert rows["all-minilm-l6-v2"]["state"] == rows["pairs"]["state"] == "healthy"
    assert read_pid(program.home.state_dirs, "pairs") == rows["pairs"]["pid"]
