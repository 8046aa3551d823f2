"""When a request leaves this machine: LiteLLM on demand, and the tiers before it."""

import json
import os
import signal
import urllib.error
import urllib.request
from typing import Any

import pytest

from stack_testkit.home import define_stack
from stack_testkit.program import Program

pytestmark = pytest.mark.story

KEY = {"openrouter-key": "sk-or-v1-of-the-test"}


def ask(program: Program, model: str, **more: object) -> tuple[int, Any, dict[str, str]]:
    """A chat completion: its status, its document and its headers."""
    key = json.loads(program.home.credentials.read_text())["gateway_key"]
    url = program.run("env", "--json").document["env"]["OPENAI_BASE_URL"]
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], **more}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response), dict(response.headers)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), dict(error.headers)


def states(program: Program) -> dict[str, str]:
    services = program.run("status", "--json").document["services"]
    return {service["name"]: service["state"] for service in services}


def kill(program: Program, name: str) -> None:
    os.killpg(int((program.home.pids / f"{name}.pid").read_text()), signal.SIGKILL)


def test_litellm_starts_with_the_first_request_that_needs_it_and_stops_with_the_rest(
    served: Program,
) -> None:
    define_stack(served.home, {"standard": {}}, config=KEY)
    assert served.run("up").code == 0
    assert states(served)["litellm"] == "stopped"
    assert served.run("status").code == 0, "LiteLLM at rest is healthy"

    status, document, headers = ask(served, "cloud")

    assert status == 200, document
    assert document["choices"][0]["message"]["content"] == "The cloud says hello."
    assert headers["x-mlx-stack-tier"] == "cloud"
    assert states(served)["litellm"] == "healthy"
    served.run("down")
    assert states(served)["litellm"] == "stopped"


def test_the_cloud_answers_for_dead_tiers_only_where_it_may(served: Program) -> None:
    define_stack(served.home, {"standard": {}}, config=KEY)
    served.run("up")
    kill(served, "standard")

    status, _, headers = ask(served, "standard")
    assert status == 200
    assert headers["x-mlx-stack-tier"] == "cloud"
    assert headers["x-mlx-stack-fallback-from"] == "standard"

    served.run("config", "set", "cloud-fallback", "never")
    served.run("up")
    kill(served, "standard")
    status, document, _ = ask(served, "standard")
    assert status == 503
    assert "standard" in document["error"]["message"]


@pytest.mark.parametrize("more", [{"max_tokens": -1}, {"messages": []}])
def test_a_mistake_of_the_client_never_reaches_the_cloud(
    served: Program, more: dict[str, object]
) -> None:
    define_stack(served.home, {"standard": {}}, config=KEY)
    served.run("up")

    status, _, _ = ask(served, "standard", **more)

    assert status == 400
    assert states(served)["litellm"] == "stopped"


def test_a_key_given_while_the_gateway_runs_opens_the_cloud(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    served.run("up")
    assert ask(served, "cloud")[0] == 404

    served.run("config", "set", "openrouter-key", "-", stdin=KEY["openrouter-key"])
    assert served.run("up").code == 0

    status, document, _ = ask(served, "cloud")
    assert status == 200, document


def test_litellm_that_died_is_started_again_by_the_next_request(served: Program) -> None:
    define_stack(served.home, {"standard": {}}, config=KEY)
    served.run("up")
    ask(served, "cloud")
    kill(served, "litellm")

    status, _, headers = ask(served, "cloud")

    assert status == 200
    assert headers["x-mlx-stack-tier"] == "cloud"


def test_litellm_goes_on_with_the_key_that_is_set_now(served: Program) -> None:
    define_stack(served.home, {"standard": {}}, config=KEY)
    served.run("up")
    ask(served, "cloud")

    assert served.run("up").code == 0
    assert states(served)["litellm"] == "healthy", "nothing has changed for it"

    served.run("config", "set", "openrouter-key", "-", stdin="sk-or-v1-another")
    assert served.run("up").code == 0
    assert states(served)["litellm"] == "stopped"
    assert ask(served, "cloud")[0] == 200
    assert states(served)["litellm"] == "healthy"

    served.run("config", "set", "litellm", "never")
    stopped = {
        each["name"]: each["outcome"] for each in served.run("up", "--json").document["services"]
    }
    assert stopped["litellm"] == "stopped"
