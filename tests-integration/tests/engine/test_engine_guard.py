"""The real engine behind its guard: who is answered, and what of it stays on the disk."""

import gzip
import http.client
import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mlx_procsup.testing import eventually
from mlx_stack.config import save_values
from mlx_stack.home import Home
from mlx_stack.services.engine_door import asker
from mlx_stack.services.keep_awake import is_serving, read_activities
from mlx_stack.services.ports import free_ports
from mlx_stack.stack import Stack, Tier, load_stack, save_stack
from stack_testkit.gateway_program import client_of
from stack_testkit.program import Program

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

CANARY = "zebra4711canary"
PICTURE = f"data:image/png;base64,{b64encode(CANARY.encode()).decode()}"


@pytest.fixture(scope="module")
def running(stack_home: Home, tiny_model: Path) -> Iterator[Program]:
    """One tier of the tiny model, up, and a gateway."""
    home = stack_home
    port, gateway_port = free_ports(2)
    tier = Tier(
        name="fast", model="tiny", quant="int4", source=str(tiny_model), port=port, vllm_flags={}
    )
    save_stack(home.stack, Stack(schema_version=1, tiers=(tier,)))
    save_values(home, {"litellm-port": gateway_port})
    program = Program(home, {})
    started = program.run("up", "--timeout", "300", "--json", timeout_s=400)
    assert started.code == 0, started.out + started.err
    yield program
    assert program.run("down", timeout_s=60).code == 0
    assert not list(home.run.glob("*.tmp")), "its temporary files go with it"


@pytest.fixture
def client(running: Program) -> Iterator[httpx.Client]:
    with client_of(running, timeout_s=120) as client:
        yield client


def port_of(program: Program) -> int:
    return load_stack(program.home.stack).tiers[0].port


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/status"),
        ("GET", "/metrics"),
        ("DELETE", "/v1/cache"),
        ("POST", "/v1/requests/x/cancel"),
        ("GET", "/openapi.json"),
        ("POST", "/v1/audio/speech?model=x&input=y"),
    ],
)
def test_the_engine_answers_nobody_but_its_stack(running: Program, method: str, path: str) -> None:
    evil = f"evil.example:{port_of(running)}"
    for host, status in ((evil, 403), ("localhost", 401)):
        connection = http.client.HTTPConnection("127.0.0.1", port_of(running), timeout=20)
        connection.request(method, path, headers={"Host": host, "Origin": f"http://{evil}"})
        assert connection.getresponse().status == status
        connection.close()


def test_nothing_that_was_said_is_on_the_disk_afterwards(
    running: Program, client: httpx.Client
) -> None:
    said = {"role": "user", "content": f"My word is {CANARY}. Say it."}
    pictured = {"type": "image_url", "image_url": {"url": PICTURE}}
    tool = {"type": "function", "function": {"name": CANARY, "description": CANARY}}
    schema = {"type": "object", "properties": {CANARY: {"type": "string"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    remote = {"type": "image_url", "image_url": {"url": f"http://10.0.0.1/{CANARY}"}}
    requests: list[tuple[str, dict[str, object]]] = [
        ("chat/completions", {"messages": [said], "max_tokens": 4}),
        ("chat/completions", {"messages": [said], "max_tokens": 4, "stream": True}),
        ("chat/completions", {"messages": [said], "tools": [tool], "max_tokens": 4}),
        ("chat/completions", {"messages": [said], "response_format": form, "max_tokens": 4}),
        ("chat/completions", {"messages": [{"role": CANARY, "content": CANARY}], "max_tokens": 4}),
        (
            "chat/completions",
            {"messages": [{**said, "content": [pictured]}], "max_tokens": 4},
        ),
        (
            "chat/completions",
            {"messages": [{**said, "content": [remote]}], "max_tokens": 4},
        ),
        ("chat/completions", {"messages": [said], "max_tokens": CANARY}),
        ("completions", {"prompt": CANARY, "max_tokens": 4}),
        ("responses", {"input": CANARY, "instructions": CANARY, "max_output_tokens": 16}),
        ("messages", {"messages": [said], "system": CANARY, "max_tokens": 4}),
        ("messages/count_tokens", {"messages": [said]}),
        ("embeddings", {"input": CANARY}),
        ("rerank", {"query": CANARY, "documents": [CANARY]}),
        ("audio/speech", {"input": CANARY, "voice": "x"}),
    ]
    for path, body in requests:
        client.post(f"/{path}", json={"model": "fast", **body})
    # what passes the gateway's checks by, as another version of it might
    ask, port = asker(running.home.state_dirs, "fast"), port_of(running)
    headers = {"Content-Type": "application/json"}
    for path, body in requests:
        target = f"/v1/{path}?input={CANARY}"
        content = json.dumps({"model": "tiny", **body}).encode()
        question = ask("POST", target)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("POST", target, content, {**headers, **question.headers})
        connection.getresponse().read()
        connection.close()
    assert running.run("logs", "--rotate", "fast").code == 0
    holders = [
        str(path)
        for path in running.home.root.rglob("*")
        if path.is_file() and path.parent.name != "engines" and _holds(path, CANARY)
    ]
    assert holders == []
    bundle = running.home.root.parent / "bundle.json"
    running.run("doctor", "--bundle", str(bundle))
    assert not _holds(bundle, CANARY)


def _holds(path: Path, word: str) -> bool:
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    return word.encode() in content


def test_a_streamed_answer_is_in_flight_until_its_last_token(
    running: Program, client: httpx.Client
) -> None:
    engines = {"fast": (asker(running.home.state_dirs, "fast"), port_of(running))}
    idle = read_activities(engines)["fast"]
    question = {
        "model": "fast",
        "messages": [{"role": "user", "content": "Count."}],
        "max_tokens": 300,
        "stream": True,
    }
    with client.stream("POST", "/chat/completions", json=question) as answer:
        pieces = answer.iter_lines()
        next(pieces)
        assert is_serving(idle, read_activities(engines)["fast"])
        assert sum(1 for piece in pieces if piece) > 1
    assert eventually(lambda: read_activities(engines)["fast"].in_flight == 0, 30)
    done = read_activities(engines)["fast"]
    assert done.answered > idle.answered
    assert not is_serving(done, done)


def test_a_gateway_does_not_notice_that_its_engine_was_started_again(
    running: Program, client: httpx.Client
) -> None:
    body = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    assert client.post("/chat/completions", json=body).status_code == 200
    assert running.run("down", "--tier", "fast", timeout_s=60).code == 0
    assert running.run("up", "--tier", "fast", timeout_s=300).code == 0
    assert client.post("/chat/completions", json=body).status_code == 200
