"""When the Mac is kept awake, and how the watchdog knows that requests are served."""

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_procsup import RunRecord, write_run
from mlx_stack.config import KeepAwake, save_values
from mlx_stack.engines import guard
from mlx_stack.home import Home
from mlx_stack.services.keep_awake import (
    Activity,
    AssertionHolder,
    configured_policy,
    engines_to_ask,
    is_held_by,
    is_serving,
    kept_awake,
    parse_activity,
    read_activities,
)

METRICS = """# HELP vllm_mlx_http_requests_total HTTP requests handled by the server.
# TYPE vllm_mlx_http_requests_total counter
vllm_mlx_http_requests_total{method="GET",path="/v1/models",status_code="200"} 118.0
vllm_mlx_http_requests_total{method="POST",path="/v1/chat/completions",status_code="200"} 21.0
vllm_mlx_http_requests_total{method="POST",path="/v1/completions",status_code="499"} 1.0
vllm_mlx_http_requests_created{method="POST",path="/v1/chat/completions"} 1.79e+09
# TYPE vllm_mlx_http_requests_in_flight gauge
vllm_mlx_http_requests_in_flight{method="GET",path="/v1/models"} 1.0
vllm_mlx_http_requests_in_flight{method="POST",path="/v1/chat/completions"} 2.0
vllm_mlx_model_loaded 1.0
"""


@dataclass
class Sleeper:
    """The process that holds the assertion, here a `sleep` of a length that no other has."""

    told: list[str] = field(default_factory=list[str])
    command: tuple[str, ...] = ("sleep", "86311.25")

    def holder(self) -> AssertionHolder:
        return AssertionHolder(self.command, self.told.append, linger_s=60)

    def running(self) -> list[psutil.Process]:
        children = psutil.Process().children()
        return [child for child in children if self._is_held_by(child)]

    def _is_held_by(self, child: psutil.Process) -> bool:
        try:
            while not (words := child.cmdline()):
                pass  # the program is being loaded
            return words == list(self.command)
        except psutil.Error:  # it has ended, and no one has waited for it yet
            return False

    def kill(self) -> None:
        """End the process as another program would, and wait until it has ended."""
        for child in self.running():
            child.kill()
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)


def test_a_request_keeps_the_mac_awake_until_a_while_after_it() -> None:
    sleeper = Sleeper()
    holder = sleeper.holder()
    assert not holder.look(KeepAwake.SERVING, serving=False, now_s=0)
    assert holder.look(KeepAwake.SERVING, serving=True, now_s=15)
    assert holder.look(KeepAwake.SERVING, serving=False, now_s=75)
    assert len(sleeper.running()) == 1
    assert not holder.look(KeepAwake.SERVING, serving=False, now_s=76)
    assert not sleeper.running()
    assert sleeper.told == [
        "the Mac is kept awake (requests are served)",
        "the Mac may sleep again",
    ]


def test_a_changed_configuration_counts_at_the_next_look() -> None:
    sleeper = Sleeper()
    holder = sleeper.holder()
    assert holder.look(KeepAwake.ALWAYS, serving=False, now_s=0)
    assert not holder.look(KeepAwake.NEVER, serving=True, now_s=15)
    assert not sleeper.running()


def test_an_assertion_that_another_program_ended_is_taken_again() -> None:
    sleeper = Sleeper()
    holder = sleeper.holder()
    holder.look(KeepAwake.ALWAYS, serving=False, now_s=0)
    sleeper.kill()
    assert not sleeper.running()
    assert holder.look(KeepAwake.ALWAYS, serving=False, now_s=15)
    assert len(sleeper.running()) == 1
    holder.release()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(KeepAwake), st.booleans(), st.booleans(), st.integers(1, 90)),
        max_size=12,
    )
)
def test_at_most_one_assertion_is_held_and_none_after_release(
    looks: list[tuple[KeepAwake, bool, bool, int]],
) -> None:
    sleeper = Sleeper()
    holder, now_s = sleeper.holder(), 0
    try:
        for policy, serving, dies, passed_s in looks:
            now_s += passed_s
            if dies:
                sleeper.kill()
            held = holder.look(policy, serving=serving, now_s=now_s)
            assert len(sleeper.running()) == held
            if policy is not KeepAwake.SERVING:
                assert held is (policy is KeepAwake.ALWAYS)
            elif serving:
                assert held
    finally:
        holder.release()
    assert not sleeper.running()


def test_only_requests_for_inference_count() -> None:
    assert parse_activity(METRICS) == Activity(in_flight=2, answered=22)
    assert parse_activity("") == Activity(0, 0)


@pytest.mark.parametrize(
    ("before", "now", "serving"),
    [
        (None, Activity(0, 22), False),
        (Activity(0, 22), Activity(0, 22), False),
        (Activity(0, 22), Activity(0, 23), True),
        (Activity(0, 22), Activity(1, 22), True),
        (Activity(0, 22), Activity(0, 0), False),
    ],
)
def test_a_request_between_two_looks_counts_and_a_restarted_engine_does_not(
    before: Activity | None, now: Activity, *, serving: bool
) -> None:
    assert is_serving(before, now) is serving


@given(st.text(max_size=200))
def test_any_text_has_some_activity_or_none(text: str) -> None:
    activity = parse_activity(text)
    assert activity.in_flight >= 0
    assert activity.answered >= 0


SECRET = "what-the-engine-was-started-with"
ASK = partial(guard.ask, SECRET)


@contextmanager
def metrics_server(text: str, status: int = 200) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = text.encode()
            given = self.headers[guard.HEADER] or ""
            proof = guard.answer(SECRET, given, "GET", self.path) or ""
            if self.path == guard.CHALLENGE_PATH:
                self.send_response(204)
            else:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
            self.send_header(guard.HEADER, proof)
            self.end_headers()
            self.wfile.write(b"" if self.path == guard.CHALLENGE_PATH else body)

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_an_engine_is_asked_for_its_metrics() -> None:
    with metrics_server(METRICS) as port:
        assert read_activities({"fast": (ASK, port)}) == {"fast": Activity(2, 22)}
    assert read_activities({"fast": (ASK, port)}) == {}


def test_another_process_on_an_engines_port_is_not_believed() -> None:
    with metrics_server(METRICS) as port:
        assert read_activities({"fast": (partial(guard.ask, "another"), port)}) == {}


@pytest.fixture
def caffeinate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of this name on PATH, which stays until it is stopped."""
    program = tmp_path / "bin" / "caffeinate"
    program.parent.mkdir()
    write_caffeinate(program)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program


def write_caffeinate(program: Path) -> None:
    program.write_text("#!/bin/sh\nexec sleep 86312\n")
    program.chmod(0o755)


@pytest.mark.usefixtures("caffeinate")
def test_the_watchdog_holds_a_caffeinate_while_an_engine_answers_requests(tmp_path: Path) -> None:
    home, told = Home(tmp_path / "home"), queue.Queue[str]()
    with metrics_server(METRICS) as port:
        home.stack.parent.mkdir(parents=True)
        home.state_dirs.create()
        write_run(home.state_dirs, "fast", RunRecord(secret=SECRET))
        home.stack.write_text(
            "schema_version: 1\ntiers:\n- {name: fast, model: m, quant: int4, source: /models/m, "
            f"port: {port}, vllm_flags: {{}}}}\n"
        )
        before = psutil.Process().children()
        with kept_awake(home, os.getpid(), told.put, look_every_s=0.01):
            assert told.get(timeout=20) == "the Mac is kept awake (requests are served)"
            assert len(psutil.Process().children()) == len(before) + 1
        assert psutil.Process().children() == before


def test_an_engine_without_metrics_is_not_known_to_serve() -> None:
    with metrics_server("", status=404) as port:
        assert read_activities({"fast": (ASK, port)}) == {}


def test_the_policy_is_read_again_and_a_damaged_file_leaves_the_default(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert configured_policy(home) is KeepAwake.SERVING
    save_values(home, {"keep-awake": "never"})
    assert configured_policy(home) is KeepAwake.NEVER
    home.config.write_text("keep-awake: [")
    assert configured_policy(home) is KeepAwake.SERVING
    assert engines_to_ask(home) == {}


def test_a_caffeinate_among_the_children_is_an_assertion() -> None:
    assert not is_held_by(os.getpid())
    program = "import sys; print(flush=True); sys.stdin.read()"
    sleeper = (sys.executable, "-c", program, "/usr/bin/caffeinate")
    with subprocess.Popen(sleeper, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()  # its command line can be read from then on
        assert is_held_by(os.getpid())
        child.stdin.close()
    assert not is_held_by(child.pid)


def test_a_look_that_fails_is_told_once_and_does_not_end_the_looking(
    tmp_path: Path, caffeinate: Path
) -> None:
    home, told = Home(tmp_path / "home"), queue.Queue[str]()
    home.create()
    save_values(home, {"keep-awake": "never"})
    with kept_awake(home, os.getpid(), told.put, look_every_s=0.01):
        caffeinate.unlink()
        save_values(home, {"keep-awake": "always"})
        assert "can't see whether requests are served" in told.get(timeout=20)
        write_caffeinate(caffeinate)
        assert told.get(timeout=20) == "the Mac is kept awake (always)"
