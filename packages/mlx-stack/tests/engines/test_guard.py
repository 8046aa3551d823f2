"""The door in front of an engine, attacked over real sockets, and what it keeps out of logs."""

# ruff: noqa: G003, G004, G201, TRY301, TRY400, TRY401 - it logs as the engine does

import http.client
import io
import logging
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from mlx_stack.engines import guard

SECRET = "0123456789abcdef" * 4


class Engine:
    """What is behind the door: it notes who came."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def __call__(self, scope, receive, send) -> None:
        del receive
        self.seen.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Engine, int]]:
    engine = Engine()
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(guard.Guard(engine, SECRET), lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield engine, listener.getsockname()[1]
    server.should_exit = True
    thread.join()


@pytest.fixture
def door(served: tuple[Engine, int]) -> tuple[Engine, int]:
    served[0].seen.clear()
    return served


def ask(port: int, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, target, body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


def proof(method: str, target: str, secret: str = SECRET) -> dict[str, str]:
    return dict(guard.ask(secret, method, target).headers)


def test_who_knows_the_secret_is_answered_and_shown_who_answers(door) -> None:
    engine, port = door
    question = guard.ask(SECRET, "GET", "/v1/models?a=b")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/v1/models?a=b", headers=dict(question.headers))
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"hello")
    assert question.is_answered({k.lower(): v for k, v in response.getheaders()})
    challenge = guard.ask(SECRET, "GET", guard.CHALLENGE_PATH)
    connection.request("GET", guard.CHALLENGE_PATH, headers=dict(challenge.headers))
    response = connection.getresponse()
    assert (response.status, response.read()) == (204, b"")
    assert challenge.is_answered({k.lower(): v for k, v in response.getheaders()})
    assert engine.seen == ["/v1/models"]
    connection.close()


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/v1/chat/completions"),
        ("DELETE", "/v1/cache"),
        ("POST", "/v1/requests/1/cancel"),
        ("GET", "/v1/status"),
        ("GET", "/metrics"),
        ("GET", "/proof"),
        ("OPTIONS", "/v1/chat/completions"),
    ],
)
def test_nobody_else_reaches_the_engine(door, method: str, target: str) -> None:
    engine, port = door
    for headers in (
        {},
        {guard.HEADER: ""},
        {guard.HEADER: "0" * 32 + " " + "0" * 64},
        {guard.HEADER: "\u00e9"},
        {"authorization": f"Bearer {SECRET}"},
        proof(method, target, "another secret"),
        proof("GET", "/v1/models"),
    ):
        assert ask(port, method, target, headers) == 401
    assert engine.seen == []


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil", "", "["],
)
def test_a_page_whose_name_was_made_to_mean_this_machine_is_refused(door, host: str) -> None:
    engine, port = door
    headers = {**proof("GET", "/v1/models"), "host": host}
    assert ask(port, "GET", "/v1/models", headers) == 403
    assert engine.seen == []


def test_bodies_are_bounded_and_have_a_length(door) -> None:
    engine, port = door
    target = "/v1/chat/completions"
    large = {**proof("POST", target), "content-length": str(400 * 2**20)}
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
        lines = [
            f"POST {target} HTTP/1.1",
            "host: localhost",
            *(f"{k}: {v}" for k, v in large.items()),
        ]
        raw.sendall("\r\n".join([*lines, "", ""]).encode())
        assert raw.recv(99).startswith(b"HTTP/1.1 413 ")
    endless = {**proof("POST", target), "transfer-encoding": "chunked"}
    assert ask(port, "POST", target, endless) == 411
    assert engine.seen == []


def test_an_answer_without_the_secret_is_no_answer() -> None:
    question = guard.ask(SECRET, "GET", "/")
    assert not question.is_answered({})
    assert not question.is_answered({guard.HEADER: question.headers[guard.HEADER]})
    assert not guard.ask("", "GET", "/").is_answered({guard.HEADER: ""})
    assert not guard.ask("", "GET", "/").is_answered({})


@given(st.text(), st.text(max_size=99), st.text(max_size=99))
def test_no_other_proof_is_taken(given_proof: str, method: str, target: str) -> None:
    assert guard.answer(SECRET, given_proof, method, target) is None


def test_an_engine_without_a_secret_does_not_start() -> None:
    done = subprocess.run(
        (sys.executable, "-I", str(Path(guard.__file__)), "serve", "m"),
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "MLX_ENGINE_SECRET is not set" in done.stderr


# the log

CANARY = "my PIN is 4711"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[io.StringIO]:
    """Everything that is logged, as a handler writes it."""
    del caplog
    before, hook = logging.getLogRecordFactory(), threading.excepthook
    access = logging.getLogger("uvicorn.access")
    filters, propagates = list(access.filters), access.propagate
    access.propagate = True  # a server in this process that keeps no access log leaves it off
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(levelname)s:%(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    guard.keep_text_out_of_logs()
    yield written
    logging.setLogRecordFactory(before)
    threading.excepthook = hook
    access.filters[:], access.propagate = filters, propagates
    root.removeHandler(handler)
    root.setLevel(level)


def test_previews_of_prompts_are_not_logged(log: io.StringIO) -> None:
    logger = logging.getLogger("vllm_mlx.server")
    logger.info("[REQUEST] last user message preview: %s", f"{CANARY}\n{CANARY}")
    logger.info(
        "[REQUEST] POST /v1/completions stream=False temp=0.5 prompt_chars=9 prompt_preview="
        + CANARY
    )
    logger.info(
        f"[REQUEST] POST /v1/chat/completions msgs=1 roles=['{CANARY}'] response_format={CANARY}"
    )
    logger.info(f"  Chat msg 0: role=user, content={CANARY}...")
    logger.warning("Parsed value '%s' of parameter '%s' is not an integer", CANARY, "x")
    logging.getLogger("uvicorn.access").info(
        '%s - "%s %s HTTP/%s" %d',
        "127.0.0.1",
        "POST",
        f"/v1/audio/speech?input={CANARY}",
        "1.1",
        200,
    )
    assert CANARY not in log.getvalue()
    assert "stream=False temp=0.5 prompt_chars=9" in log.getvalue()
    assert "POST /v1/audio/speech HTTP/1.1" in log.getvalue()


def test_exceptions_are_logged_without_what_they_quote(log: io.StringIO) -> None:
    logger = logging.getLogger("vllm_mlx.server")
    try:
        try:
            raise ValueError(f"can't read {CANARY}\nin two lines")
        except ValueError as error:
            logger.error(f"Streaming error: {error}")
            logger.warning("Tool parser error: %s", str(error).replace("\n", "\\n"))
            raise KeyError(CANARY) from error
    except KeyError:
        logger.exception("it failed")
        logging.getLogger("uvicorn.error").error("Exception in ASGI application\n", exc_info=True)
    thread = threading.Thread(target=lambda: int(CANARY))
    thread.start()
    thread.join()
    said = log.getvalue()
    assert CANARY not in said
    assert "Streaming error: <ValueError>" in said
    assert "test_guard.py" in said, "where it happened is what helps"
    assert "a thread ended" in said


def test_what_the_system_says_is_still_logged(log: io.StringIO) -> None:
    logger = logging.getLogger("vllm_mlx.engine")
    for error in (
        OSError(28, "No space left on device"),
        RuntimeError("[METAL] Command buffer execution failed: Insufficient Memory"),
    ):
        try:
            raise error
        except Exception as caught:
            logger.exception("stopped: %s", caught)
    assert log.getvalue().count("No space left on device") == 2
    assert log.getvalue().count("Insufficient Memory") == 2


def test_our_own_looks_are_not_logged_unless_they_fail(log: io.StringIO) -> None:
    access = logging.getLogger("uvicorn.access")
    for path, status in (
        (guard.CHALLENGE_PATH, 204),
        (guard.STATUS_PATH, 200),
        ("/v1/models", 200),
    ):
        access.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1", "GET", path, "1.1", status)
    assert log.getvalue() == ""
    access.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1", "GET", "/v1/models", "1.1", 500)
    access.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1", "POST", "/v1/models", "1.1", 200)
    assert len(log.getvalue().splitlines()) == 2


def test_each_line_of_the_log_begins_with_its_time() -> None:
    code = (
        "import copy, logging, logging.config, uvicorn.config;"
        "from mlx_stack.engines import guard;"
        "guard.stamp_lines(uvicorn.config.LOGGING_CONFIG);"
        "logging.config.dictConfig(uvicorn.config.LOGGING_CONFIG);"
        "logging.basicConfig(level=logging.INFO);"  # as the engine does
        "logging.getLogger('vllm_mlx.server').info('loaded');"
        "logging.getLogger('uvicorn.error').info('ready');"
        "logging.getLogger('uvicorn.access').info("
        "'%s - \"%s %s HTTP/%s\" %d', '127.0.0.1:1', 'POST', '/v1/x', '1.1', 200);"
        "print('INFO: loading', end=''); print(' a model\\n\\nINFO: ready')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = [*done.stderr.splitlines(), *done.stdout.splitlines()]
    assert lines.pop(-2) == ""
    assert len(lines) == 5
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO:", line) for line in lines), lines


# what passes through the door


def passing(traffic: guard.Traffic, body_bytes: int, *messages: dict[str, object]) -> None:
    with traffic.passing(body_bytes) as request:
        for message in messages:
            request.see(message)


def in_flight(traffic: guard.Traffic) -> list[str]:
    """Its rows without how old they are, which is a moment at most."""
    rows = [row.rpartition(":") for row in traffic.render().split(" ")[2:]]
    assert all(0 <= float(age) < 10 for _, _, age in rows)
    return [row for row, _, _ in rows]


def opening(status: int, kind: bytes = b"application/json") -> dict[str, object]:
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [(b"content-type", kind)],
    }


def piece(body: bytes, *, more: bool = False) -> dict[str, object]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def test_the_door_tells_how_far_each_answer_is() -> None:
    traffic = guard.Traffic()
    assert traffic.render() == "0 0"
    with traffic.passing(4096) as first, traffic.passing(220):
        assert in_flight(traffic) == ["1:4096:w:0", "2:220:w:0"]
        first.see(opening(200, b"text/event-stream; charset=utf-8"))
        first.see(piece(b": heartbeat\n\n", more=True))
        first.see(piece(b'data: {"choices": []}\n\n', more=True))
        assert in_flight(traffic) == ["1:4096:s:1", "2:220:w:0"]
    assert traffic.render() == "0 0"


def test_the_door_counts_answers_that_are_errors_in_a_row_whatever_their_status() -> None:
    traffic = guard.Traffic()
    passing(traffic, 1, opening(500), piece(b'{"detail": "no"}'))
    passing(traffic, 1, opening(200), piece(b'{"choices": [{"finish_reason": "error"}]}'))
    passing(traffic, 1, opening(200), piece(b'data: {"error": {"message": "no"}}\n\n'))
    assert traffic.render() == "0 3"
    passing(traffic, 1, opening(200), piece(b'{"choices": [{"finish_reason": "stop"}]}'))
    assert traffic.render() == "1 0"


def test_a_client_that_leaves_is_nobodys_error_and_a_mistake_of_its_own_neither() -> None:
    traffic = guard.Traffic()
    passing(traffic, 1, opening(500), piece(b"{}"))
    passing(traffic, 1, opening(200), piece(b"half", more=True))
    assert traffic.render() == "0 1"
    passing(traffic, 1, opening(422), piece(b"{}"))
    assert traffic.render() == "0 0"


def test_an_engine_that_breaks_off_has_failed() -> None:
    traffic = guard.Traffic()
    with pytest.raises(RuntimeError), traffic.passing(1):
        raise RuntimeError
    assert traffic.render() == "0 1"
