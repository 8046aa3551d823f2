"""The gateway in front of the real vllm-mlx, met with the clients that people use."""

import json
import os
import signal
import subprocess
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import uv

from mlx_procsup.testing import eventually
from mlx_stack.config import save_values
from mlx_stack.engines.environment import Environment
from mlx_stack.home import Home
from mlx_stack.services.ports import free_ports
from mlx_stack.stack import Stack, Tier, load_stack, save_stack
from stack_testkit.gateway_program import client_of
from stack_testkit.program import Program

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

ANSWER_TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def running(stack_home: Home, tiny_model: Path) -> Iterator[Program]:
    """A stack of two tiers of the tiny model, up."""
    home = stack_home
    *ports, gateway_port = free_ports(3)
    tiers = tuple(
        Tier(
            name=name,
            model=f"tiny-{name}",
            quant="int4",
            source=str(tiny_model),
            port=port,
            vllm_flags={},
            context_tokens=context_tokens,
        )
        for name, port, context_tokens in zip(("standard", "fast"), ports, (256, 2048), strict=True)
    )
    stack = Stack(schema_version=1, tiers=tiers, aliases={"claude-local": "standard"})
    save_stack(home.stack, stack)
    save_values(home, {"litellm-port": gateway_port})
    program = Program(home, {})
    # what a company's network sets, without an exception for this machine
    proxied = Program(home, dict.fromkeys(("HTTP_PROXY", "http_proxy"), "http://127.0.0.1:9"))
    started = proxied.run("up", "--timeout", "300", "--json", timeout_s=400)
    assert started.code == 0, started.out + started.err
    yield program
    program.run("down", timeout_s=60)


@pytest.fixture
def stack(running: Program) -> Program:
    """The running stack, whole again after whatever the test before did to it."""
    started = running.run("up", "--timeout", "300", "--json", timeout_s=400)
    assert started.code == 0, started.out + started.err
    return running


def _variables(program: Program) -> dict[str, str]:
    document: dict[str, Any] = program.run("env", "--json").document
    return document["env"]


def _chat(client: httpx.Client, model: str, **more: object) -> httpx.Response:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 4,
        **more,
    }
    return client.post("/chat/completions", json=body)


def _answered_by(response: httpx.Response) -> str:
    return response.headers["x-mlx-stack-tier"]


def _run_client(program: Program, packages: tuple[str, ...], script: str) -> Any:
    """What a script prints as JSON, run with PyPI packages and the variables of `env`."""
    command = [uv.find_uv_bin(), "run", "--no-project", "--isolated", "--quiet"]
    for package in packages:
        command += ["--with", package]
    done = subprocess.run(
        [*command, "python", "-c", textwrap.dedent(script)],
        env={**os.environ, **_variables(program)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("model", ["standard", "fast", "tiny-standard", "claude-local"])
def test_tiers_catalog_ids_and_aliases_are_model_names(stack: Program, model: str) -> None:
    with client_of(stack, ANSWER_TIMEOUT_S) as client:
        assert model in [row["id"] for row in client.get("/models").json()["data"]]
        response = _chat(client, model)

    assert response.status_code == 200, response.text
    assert response.json()["usage"]["completion_tokens"] >= 1


def test_the_openai_client_chats_streams_and_lists_models(stack: Program) -> None:
    seen = _run_client(
        stack,
        ("openai>=2",),
        """
        import json, openai
        client = openai.OpenAI()
        ask = dict(model="standard", max_tokens=5, messages=[{"role": "user", "content": "Hi"}])
        whole = client.chat.completions.create(**ask)
        chunks = list(client.chat.completions.create(stream=True, **ask))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        errors = {}
        for name, change in {"key": {}, "model": {"model": "nobody"}}.items():
            wrong = client.with_options(api_key="sk-wrong") if name == "key" else client
            try:
                wrong.chat.completions.create(**{**ask, **change})
            except openai.APIStatusError as error:
                errors[name] = [type(error).__name__, error.status_code]
        response = client.responses.create(model="standard", input="Hi", max_output_tokens=16)
        print(json.dumps({
            "content": whole.choices[0].message.content, "tokens": whole.usage.completion_tokens,
            "chunks": len(chunks), "text": text, "errors": errors,
            "models": [m.id for m in client.models.list()], "response": response.output_text,
        }))
        """,
    )

    assert seen["content"]
    assert seen["tokens"] <= 5
    assert seen["text"]
    assert seen["chunks"] > 1
    assert "fast" in seen["models"]
    assert seen["response"]
    assert seen["errors"]["key"] == ["AuthenticationError", 401]
    assert seen["errors"]["model"] == ["NotFoundError", 404]


def test_the_anthropic_client_chats_streams_and_is_refused_in_its_own_shape(
    stack: Program,
) -> None:
    seen = _run_client(
        stack,
        ("anthropic>=0.70",),
        """
        import json, anthropic
        client = anthropic.Anthropic()
        ask = dict(model="claude-local", max_tokens=5, messages=[{"role": "user", "content": "Hi"}])
        whole = client.messages.create(**ask)
        with client.messages.stream(**ask) as stream:
            text = "".join(stream.text_stream)
        try:
            anthropic.Anthropic(auth_token=None, api_key="wrong").messages.create(**ask)
        except anthropic.APIStatusError as error:
            refused = [type(error).__name__, error.status_code, error.body["error"]["type"]]
        print(json.dumps({
            "text": whole.content[0].text, "streamed": text, "refused": refused,
            "tokens": whole.usage.output_tokens,
        }))
        """,
    )

    assert seen["text"]
    assert seen["streamed"]
    assert seen["tokens"] <= 5
    assert seen["refused"] == ["AuthenticationError", 401, "authentication_error"]


def test_the_llm_program_answers_after_connect(stack: Program, tmp_path: Path) -> None:
    variables = {**stack.variables, "LLM_USER_PATH": str(tmp_path), "HOME": str(tmp_path)}
    assert Program(stack.home, variables).run("connect", "llm").code == 0

    done = subprocess.run(
        [
            *(uv.find_uv_bin(), "tool", "run", "--quiet", "llm", "-m", "mlx-stack/standard"),
            *("-o", "max_tokens", "4", "--no-log", "Hello"),
        ],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_litellm_client_answers(stack: Program, litellm_environment: Environment) -> None:
    variables = _variables(stack)
    script = """
        import json, os, litellm
        answer = litellm.completion(
            model="litellm_proxy/standard", api_base=os.environ["OPENAI_BASE_URL"],
            api_key=os.environ["OPENAI_API_KEY"], max_tokens=4,
            messages=[{"role": "user", "content": "Hi"}],
        )
        print(json.dumps(answer.choices[0].message.content))
        """
    done = subprocess.run(
        [litellm_environment.python, "-c", textwrap.dedent(script)],
        env={**os.environ, **variables, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])


def test_a_killed_tier_and_a_hung_one_are_answered_by_the_other(stack: Program) -> None:
    standard = load_stack(stack.home.stack).tiers[0]
    pid = int((stack.home.pids / "standard.pid").read_text())
    with client_of(stack, ANSWER_TIMEOUT_S) as client:
        _chat(client, "standard")
        _hang(pid, standard.port)
        hung_at = time.monotonic()
        hung = _chat(client, "standard")
        hung_s = time.monotonic() - hung_at
        os.killpg(pid, signal.SIGKILL)
        dead = _chat(client, "standard")

    assert (hung.status_code, _answered_by(hung)) == (200, "fast")
    assert (dead.status_code, _answered_by(dead)) == (200, "fast")
    assert hung_s < 30, "the long request timeout must not be waited for"


def test_a_request_in_flight_is_answered_by_the_other_when_its_tier_hangs(stack: Program) -> None:
    standard = load_stack(stack.home.stack).tiers[0]
    pid = int((stack.home.pids / "standard.pid").read_text())
    with ThreadPoolExecutor() as pool, client_of(stack, ANSWER_TIMEOUT_S) as client:
        counted = _requests_read(stack)
        answer = pool.submit(_chat, client, "standard", max_tokens=512)
        assert eventually(lambda: _requests_read(stack) > counted, within_s=60)
        _hang(pid, standard.port)
        response = answer.result(ANSWER_TIMEOUT_S)
        os.killpg(pid, signal.SIGKILL)

    assert (response.status_code, _answered_by(response)) == (200, "fast")


def _hang(pid: int, port: int) -> None:
    """Stop the engine's processes, and see that it doesn't answer any more."""
    os.killpg(pid, signal.SIGSTOP)
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=1, trust_env=False)


def _requests_read(stack: Program) -> int:
    """How many questions the tier `standard` has begun to answer."""
    return (stack.home.logs / "standard.log").read_text().count("[schedule]")


def test_without_any_tier_the_answer_is_an_error_and_not_a_wait(stack: Program) -> None:
    for name in ("standard", "fast"):
        os.killpg(int((stack.home.pids / f"{name}.pid").read_text()), signal.SIGKILL)
    with client_of(stack, ANSWER_TIMEOUT_S) as client:
        response = _chat(client, "standard")

    assert response.status_code == 503
    assert "standard: nothing listens there" in response.json()["error"]["message"]


def test_a_prompt_too_long_for_a_tier_goes_where_it_fits_or_is_refused(stack: Program) -> None:
    with client_of(stack, ANSWER_TIMEOUT_S) as client:
        longer = [{"role": "user", "content": "word " * 600}]
        fits_elsewhere = _chat(client, "standard", messages=longer)
        too_long = [{"role": "user", "content": "word " * 6000}]
        fits_nowhere = _chat(client, "standard", messages=too_long)

    assert (fits_elsewhere.status_code, _answered_by(fits_elsewhere)) == (200, "fast")
    assert fits_nowhere.status_code == 400
    assert fits_nowhere.json()["error"]["code"] == "context_length_exceeded"


def test_a_changed_stack_is_taken_over_by_the_same_process(stack: Program) -> None:
    pid = (stack.home.pids / "gateway.pid").read_text()
    before = load_stack(stack.home.stack)
    changed = msgspec.structs.replace(before, aliases={**before.aliases, "gpt-4o": "fast"})
    with client_of(stack, ANSWER_TIMEOUT_S) as client:
        stream = {"stream": True, "max_tokens": 64}
        body = {"model": "standard", "messages": [{"role": "user", "content": "Hi"}], **stream}
        with client.stream("POST", "/chat/completions", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            save_stack(stack.home.stack, changed)
            assert stack.run("up", timeout_s=120).code == 0
            rest = list(lines)
        renamed = _chat(client, "gpt-4o")

    assert "data: [DONE]" in rest, "the answer in flight must come to its end"
    assert renamed.status_code == 200, renamed.text
    assert (stack.home.pids / "gateway.pid").read_text() == pid


def test_a_client_that_goes_away_leaves_the_gateway_well(stack: Program) -> None:
    with client_of(stack, ANSWER_TIMEOUT_S) as client:
        body = {
            "model": "standard",
            "messages": [{"role": "user", "content": "Count"}],
            "max_tokens": 512,
            "stream": True,
        }
        with client.stream("POST", "/chat/completions", json=body) as answer:
            next(answer.iter_lines())
        assert _chat(client, "standard").status_code == 200
    assert stack.run("status", "--json").code == 0


def test_nothing_but_the_liveness_probe_is_open(stack: Program) -> None:
    root = _variables(stack)["ANTHROPIC_BASE_URL"]
    with httpx.Client(base_url=root, trust_env=False, timeout=30) as client:
        assert client.get("/health/liveliness").status_code == 200
        for path in (
            "/ui/api/status",
            "/v1/models",
            "/health",
            "/config/yaml",
            "/metrics",
            "/key/info",
        ):
            assert client.get(path).status_code == 401, path
        page = client.get("/health/liveliness", headers={"Origin": "https://example.org"})
    assert "access-control-allow-origin" not in page.headers


def test_the_key_is_in_no_log_and_no_file_but_its_own(stack: Program) -> None:
    key = _variables(stack)["OPENAI_API_KEY"].encode()
    holders = [
        path
        for path in stack.home.root.rglob("*")
        if path.is_file() and stack.home.engines not in path.parents and key in path.read_bytes()
    ]
    assert holders == [stack.home.credentials]
