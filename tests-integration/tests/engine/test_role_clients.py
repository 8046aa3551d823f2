"""The libraries that ask for vectors and orders, on the installed product with real engines.

They are set up as `docs/how-to/embeddings.md` says, and by nothing else than what `env` prints.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlx_catalog import ModelRole
from mlx_stack.config import save_values
from mlx_stack.engines.environment import Environment
from mlx_stack.home import Home
from mlx_stack.services.ports import free_ports
from mlx_stack.stack import Stack, Tier, save_stack
from stack_testkit.program import Program
from stack_testkit.reading_models import fetch_embedder, make_pair_classifier, reference
from stack_testkit.real_clients import PACKAGES, clean_environment, install

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]

TEXTS = ["Paris is the capital of France.", "bananas"]
QUERY = "What is the capital of France?"
_EMBED = {
    "openai": """
import openai
client = openai.OpenAI(max_retries=0)
answer = client.embeddings.create(model="embedder", input=TEXTS)
print(json.dumps([row.embedding for row in answer.data]))
""",
    "langchain": """
from langchain_openai import OpenAIEmbeddings
embeddings = OpenAIEmbeddings(model="embedder", check_embedding_ctx_length=False, max_retries=0)
print(json.dumps(embeddings.embed_documents(TEXTS)))
""",
}
_EMBED_IN_NODE = """
import OpenAI from "openai";
const client = new OpenAI({ maxRetries: 0 });
const answer = await client.embeddings.create({ model: "embedder", input: TEXTS });
console.log(JSON.stringify(answer.data.map((row) => row.embedding)));
"""
_TOKEN_IDS = """
from langchain_openai import OpenAIEmbeddings
try:
    OpenAIEmbeddings(model="embedder", tiktoken_enabled=True, max_retries=0).client.create(
        model="embedder", input=[[1, 2, 3]]
    )
except Exception as error:
    print(json.dumps(str(error)))
"""
_RERANK = """
import os, cohere
address = os.environ["OPENAI_BASE_URL"].removesuffix("/v1")
client = cohere.ClientV2(api_key=os.environ["OPENAI_API_KEY"], base_url=address)
answer = client.rerank(model="reranker", query=QUERY, documents=TEXTS)
print(json.dumps([[row.index, row.relevance_score] for row in answer.results]))
"""


@dataclass(frozen=True)
class Product:
    """The stack, up, and what its models must answer."""

    program: Program
    cache: Path
    user: Path
    vectors: list[list[float]]
    scores: list[float]

    def run(self, library: str, script: str) -> object:
        """What a script of a library prints."""
        program, values = install(PACKAGES[library], self.cache), {"TEXTS": TEXTS, "QUERY": QUERY}
        if PACKAGES[library].program == "node":
            path = program.with_name("roles.mjs")
            path.write_text(f"const TEXTS = {json.dumps(TEXTS)};\n{script}")
            command = [str(program), str(path)]
        else:
            given = "".join(f"{name} = {value!r}\n" for name, value in values.items())
            command = [str(program), "-c", f"import json\n{given}{script}"]
        variables = self.program.run("env", "--json").document["env"]
        done = subprocess.run(
            command,
            env=clean_environment(self.user, variables),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        sys.stdout.write(done.stdout + done.stderr)  # shown where the test fails
        assert done.returncode == 0
        return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def product(
    engines_home: Path,
    vllm_mlx_environment: Environment,
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Product]:
    folder = tmp_path_factory.mktemp("role-clients")
    embedder, python = fetch_embedder(folder / "models"), vllm_mlx_environment.python
    reranker = make_pair_classifier(folder / "pairs", tokenizer_of=embedder, engine_python=python)
    home = Home(folder / "home")
    home.create()
    home.engines.symlink_to(engines_home / "engines")
    *ports, gateway_port = free_ports(3)
    roles = {"embedder": ModelRole.EMBEDDING, "reranker": ModelRole.RERANK}
    tiers = tuple(
        Tier(
            name=name,
            model=source.name,
            quant=None,
            source=str(source),
            port=port,
            vllm_flags={},
            role=roles[name],
        )
        for name, source, port in zip(roles, (embedder, reranker), ports, strict=True)
    )
    save_stack(home.stack, Stack(tiers=tiers))
    save_values(home, {"litellm-port": gateway_port, "litellm": "never"})
    program = Program(home, {})
    try:
        started = program.run("up", "--timeout", "300", "--json", timeout_s=400)
        assert started.code == 0, started.out + started.err
        yield Product(
            program,
            Path(pytestconfig.cache.mkdir("clients")),
            folder,
            reference(python, embedder, TEXTS),
            reference(python, reranker, [(QUERY, text) for text in TEXTS]),
        )
    finally:
        program.run("down", timeout_s=60)


@pytest.mark.parametrize("library", ["openai", "langchain", "openai-npm"])
def test_a_library_gets_the_vectors_of_the_model(product: Product, library: str) -> None:
    vectors = product.run(library, _EMBED.get(library, _EMBED_IN_NODE))

    assert isinstance(vectors, list)
    assert vectors == [pytest.approx(vector, abs=1e-5) for vector in product.vectors]


def test_langchain_is_told_which_setting_sends_text(product: Product) -> None:
    assert "check_embedding_ctx_length=False" in str(product.run("langchain", _TOKEN_IDS))


def test_coheres_client_gets_the_order_of_the_model(product: Product) -> None:
    order = product.run("cohere", _RERANK)

    assert isinstance(order, list)
    best = sorted(range(len(TEXTS)), key=lambda index: -product.scores[index])
    assert [index for index, _ in order] == best
    assert [score for _, score in order] == [
        pytest.approx(product.scores[index], abs=1e-5) for index in best
    ]
