"""What a web page, another user's process and a client with a key try on a running stack."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import override

import pytest

from mlx_procsup.testing import eventually
from mlx_stack.engines import guard
from stack_testkit.home import define_stack, install_fake_engines
from stack_testkit.program import Program

pytestmark = pytest.mark.story

SECRETS = "the canary of a prompt"


@dataclass
class Squatter:
    """Another process on a port, which answers whatever it is asked and keeps what it gets."""

    port: int
    heard: list[bytes] = field(default_factory=list)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hold the port meanwhile."""
        heard = self.heard

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                heard.append(self.raw_requestline + bytes(self.headers))
                heard.append(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
                body = b'{"object": "list", "data": [{"id": "fast-model"}]}'
                self.send_response(200)
                self.send_header(guard.HEADER, "0" * 64)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                self.do_GET()

            @override
            def log_message(self, format: str, *args: object) -> None:
                del format, args

        with ThreadingHTTPServer(("127.0.0.1", self.port), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()


def _key(program: Program) -> str:
    return json.loads(program.home.credentials.read_text())["gateway_key"]


def _chat(program: Program, model: str) -> tuple[int, dict[str, str], bytes]:
    port = int(program.run("config", "get", "litellm-port").out)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = {"model": model, "messages": [{"role": "user", "content": SECRETS}]}
    headers = {"Authorization": f"Bearer {_key(program)}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, {k.lower(): v for k, v in answer.getheaders()}, content


def _kill(program: Program, name: str) -> None:
    pid = int((program.home.pids / f"{name}.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not Path(f"/proc/{pid}/cmdline").exists() or _is_gone(pid), 20)


def _is_gone(pid: int) -> bool:
    done = subprocess.run(("ps", "-o", "stat=", "-p", str(pid)), capture_output=True, check=False)
    return done.stdout.strip()[:1] in (b"", b"Z")


def test_a_process_on_the_port_of_a_dead_tier_gets_no_prompt_and_answers_nobody(
    served: Program,
) -> None:
    stack = define_stack(served.home, {"standard": {}, "fast": {}})
    assert served.run("up").code == 0
    assert _chat(served, "fast")[1]["x-mlx-stack-tier"] == "fast"
    _kill(served, "fast")
    squatter = Squatter(stack.tiers[1].port)
    with squatter.listening():
        for _ in range(3):
            status, headers, _ = _chat(served, "fast")
            assert (status, headers["x-mlx-stack-tier"]) == (200, "standard")
        rows = served.run("status", "--json").document["services"]
        assert {row["name"]: row["state"] for row in rows}["fast"] == "crashed"
        assert served.run("bench", "fast", "--iterations", "1").code == 1
        served.run("down", "--tier", "fast")
        assert _chat(served, "fast")[1]["x-mlx-stack-tier"] == "standard"
    said = b"".join(squatter.heard)
    assert said, "it was asked who it is"
    assert SECRETS.encode() not in said
    assert _key(served).encode() not in said


def test_what_a_process_hears_of_questions_does_not_open_the_engine(served: Program) -> None:
    stack = define_stack(served.home, {"standard": {}})
    assert served.run("up").code == 0
    port = stack.tiers[0].port
    secret = json.loads((served.home.run / "standard.json").read_text())["secret"]
    heard = guard.ask(secret, "GET", guard.CHALLENGE_PATH).headers
    for method, path in (("POST", "/v1/chat/completions"), ("GET", "/v1/models")):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request(method, path, headers=dict(heard))
        assert connection.getresponse().status == 401
        connection.close()


def test_the_gateway_follows_a_tier_that_was_started_again_without_losing_a_request(
    served: Program,
) -> None:
    define_stack(served.home, {"standard": {}})
    assert served.run("up").code == 0
    secrets = set[str]()
    for _ in range(3):
        status, headers, _ = _chat(served, "standard")
        assert (status, headers["x-mlx-stack-tier"]) == (200, "standard")
        secrets.add(json.loads((served.home.run / "standard.json").read_text())["secret"])
        assert served.run("down", "--tier", "standard").code == 0
        assert served.run("up", "--tier", "standard").code == 0
    assert len(secrets) == 3
    assert _chat(served, "standard")[0] == 200


def test_the_secret_of_an_engine_is_in_its_run_file_and_nowhere_else(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    assert served.run("up").code == 0
    secret = json.loads((served.home.run / "standard.json").read_text())["secret"]
    holders = [
        path.name
        for path in served.home.root.rglob("*")
        if path.is_file() and secret.encode() in path.read_bytes()
    ]
    assert holders == ["standard.json"]
    shown = [served.run(*words) for words in (("status", "--json"), ("up", "--dry-run"), ("logs",))]
    assert not any(secret in done.out + done.err for done in shown)
    listed = subprocess.run(("ps", "-A", "-o", "args="), capture_output=True, text=True, check=True)
    assert secret not in listed.stdout


def test_an_engine_of_a_lost_run_file_is_asked_again(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    assert served.run("up").code == 0
    (served.home.run / "standard.json").unlink()
    assert served.run("up").code == 0
    assert _chat(served, "standard")[1]["x-mlx-stack-tier"] == "standard"


def test_half_open_connections_leave_the_gateway_answering(served: Program) -> None:
    install_fake_engines(served.home)
    define_stack(served.home, {"standard": {}})
    limited = (sys.executable, "-c", _WITH_FEW_FILES, *served.command("up"))
    subprocess.run(limited, env=served.environment, check=True, capture_output=True, timeout=60)
    port = int(served.run("config", "get", "litellm-port").out)
    held = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(300)]
    for each in held:
        each.sendall(b"GET /v1/mod")
    assert _chat(served, "standard")[0] == 200
    for each in held:
        each.close()


_WITH_FEW_FILES = (
    "import os, resource, sys; hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; "
    "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard)); os.execv(sys.argv[1], sys.argv[1:])"
)
