"""An embedder and a reranker beside a model that chats: real engines, one endpoint."""

import base64
import struct
from collections.abc import Iterator, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from mlx_procsup import read_pid
from mlx_stack.config import save_values
from mlx_stack.engines.environment import Environment
from mlx_stack.home import Home
from mlx_stack.services.ports import free_ports
from mlx_stack.stack import load_stack
from stack_testkit.program import Program
from stack_testkit.reading_models import (
    DIMENSIONS,
    fetch_embedder,
    make_pair_classifier,
    reference,
)

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
def program(
    stack_home: Home, tiny_model: Path, embedder: Path, reranker: Path
) -> Iterator[Program]:
    """A stack of all three, made as a user makes one, up."""
    (gateway_port,) = free_ports(1)
    save_values(stack_home, {"litellm-port": gateway_port, "litellm": "never"})
    program = Program(stack_home, {})
    models = [word for each in (tiny_model, embedder, reranker) for word in ("--add", str(each))]
    usual = [word for name in ("standard", "fast", "longctx") for word in ("--remove", name)]
    made = program.run("init", *usual, *models, "--json")
    assert made.code == 0, made.out + made.err
    started = program.run("up", "--timeout", "300", "--json", timeout_s=400)
    assert started.code == 0, started.out + started.err
    yield program
    assert program.run("down", timeout_s=60).code == 0


@pytest.fixture
def client(program: Program) -> Iterator[httpx.Client]:
    variables: dict[str, Any] = program.run("env", "--json").document["env"]
    headers = {"Authorization": f"Bearer {variables['OPENAI_API_KEY']}"}
    url = variables["OPENAI_BASE_URL"]
    with httpx.Client(base_url=url, headers=headers, timeout=240, trust_env=False) as client:
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
    }
    models = yaml.safe_load(program.home.gateway_settings.read_text())["models"]
    assert models["all-minilm-l6-v2"]["dimensions"] == DIMENSIONS
    assert [each["fallbacks"] for each in models.values()] == [[], [], []]


def test_vectors_are_those_of_the_model_as_a_list_and_in_base64(
    client: httpx.Client, embedder: Path, vllm_mlx_environment: Environment
) -> None:
    meant = reference(vllm_mlx_environment.python, embedder, TEXTS)
    assert farthest(embed(client, TEXTS), meant) < EXACT
    packed = map(base64.b64decode, embed(client, TEXTS, encoding_format="base64"))
    assert farthest([struct.unpack(f"<{DIMENSIONS}f", each) for each in packed], meant) < EXACT


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


def test_status_shows_each_role_as_a_service_like_any(program: Program) -> None:
    shown = program.run("status", "--json")
    assert shown.code == 0, shown.out
    rows = {row["name"]: row for row in shown.document["services"]}
    assert rows["all-minilm-l6-v2"]["state"] == rows["pairs"]["state"] == "healthy"
    assert read_pid(program.home.state_dirs, "pairs") == rows["pairs"]["pid"]
