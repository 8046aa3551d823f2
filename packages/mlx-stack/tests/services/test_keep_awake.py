"""When the Mac is kept awake, and how the watchdog knows that requests are served."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_launchd import KeepAwake
from mlx_stack.config import save_values
from mlx_stack.engines.activity import Activity, is_serving, parse_activity
from mlx_stack.home import Home
from mlx_stack.services.keep_awake import (
    AwakeKeeper,
    RequestWatch,
    configured_policy,
    is_held_by,
    read_activity,
    tier_ports,
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
class Assertion:
    """A power assertion that a test can break."""

    alive: bool = True

    def is_alive(self) -> bool:
        return self.alive

    def release(self) -> None:
        self.alive = False


@dataclass
class Desk:
    """A keeper with everything around it in hand."""

    policy: KeepAwake = KeepAwake.SERVING
    serving: bool = False
    told: list[str] = field(default_factory=list[str])
    taken: list[Assertion] = field(default_factory=list[Assertion])

    def keeper(self) -> AwakeKeeper:
        return AwakeKeeper(
            policy=lambda: self.policy,
            serving=lambda: self.serving,
            hold=self.hold,
            tell=self.told.append,
            linger_s=60,
        )

    def hold(self) -> Assertion:
        self.taken.append(Assertion())
        return self.taken[-1]


def test_a_request_keeps_the_mac_awake_until_a_while_after_it() -> None:
    desk = Desk()
    keeper = desk.keeper()
    assert not keeper.look(0)
    desk.serving = True
    assert keeper.look(15)
    desk.serving = False
    assert keeper.look(75)
    assert not keeper.look(76)
    assert [assertion.alive for assertion in desk.taken] == [False]
    assert desk.told == [
        "the Mac is kept awake (requests are served)",
        "the Mac may sleep again",
    ]


def test_a_changed_configuration_counts_at_the_next_look() -> None:
    desk = Desk(policy=KeepAwake.ALWAYS)
    keeper = desk.keeper()
    assert keeper.look(0)
    desk.policy = KeepAwake.NEVER
    assert not keeper.look(15)


def test_an_assertion_that_somebody_ended_is_taken_again() -> None:
    desk = Desk(policy=KeepAwake.ALWAYS)
    keeper = desk.keeper()
    keeper.look(0)
    desk.taken[0].alive = False
    assert keeper.look(15)
    assert len(desk.taken) == 2


@given(
    st.lists(
        st.tuples(st.sampled_from(KeepAwake), st.booleans(), st.booleans(), st.integers(1, 90)),
        max_size=30,
    )
)
def test_at_most_one_assertion_is_held_and_none_after_release(
    looks: list[tuple[KeepAwake, bool, bool, int]],
) -> None:
    desk = Desk()
    keeper, now_s = desk.keeper(), 0
    for policy, serving, dies, passed_s in looks:
        now_s += passed_s
        desk.policy, desk.serving = policy, serving
        if dies and desk.taken:
            desk.taken[-1].alive = False
        held = keeper.look(now_s)
        assert sum(assertion.alive for assertion in desk.taken) == held
        if policy is not KeepAwake.SERVING:
            assert held is (policy is KeepAwake.ALWAYS)
        elif serving:
            assert held
    keeper.release()
    assert not any(assertion.alive for assertion in desk.taken)


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


@contextmanager
def metrics_server(text: str, status: int = 200) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

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
        assert read_activity(port) == Activity(2, 22)
        assert RequestWatch(lambda: (port,)).look()
    assert read_activity(port) is None


def test_an_engine_without_metrics_is_not_known_to_serve() -> None:
    with metrics_server("", status=404) as port:
        assert read_activity(port) is None
        assert not RequestWatch(lambda: (port,)).look()


def test_the_policy_is_read_anew_and_a_damaged_file_leaves_the_default(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert configured_policy(home) is KeepAwake.SERVING
    save_values(home, {"keep-awake": "never"})
    assert configured_policy(home) is KeepAwake.NEVER
    home.config.write_text("keep-awake: [")
    assert configured_policy(home) is KeepAwake.SERVING
    assert tier_ports(home) == ()


def test_a_caffeinate_among_the_children_is_an_assertion() -> None:
    assert not is_held_by(os.getpid())
    sleeper = (sys.executable, "-c", "import sys; sys.stdin.read()", "/usr/bin/caffeinate")
    with subprocess.Popen(sleeper, stdin=subprocess.PIPE) as child:
        assert is_held_by(os.getpid())
        assert child.stdin is not None
        child.stdin.close()
    assert not is_held_by(child.pid)
