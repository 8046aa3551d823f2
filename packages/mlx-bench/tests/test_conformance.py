"""The table of cases: how answers are read, and what the program says of a server."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mlx_bench.conformance.case import Case, judge
from mlx_bench.conformance.server import CHAT, MESSAGES, RESPONSES, HttpAnswer, Server
from mlx_bench.conformance.table import GROUPS, USUAL, cases_of, try_cases

type Say = Callable[..., subprocess.CompletedProcess[str]]


class Parrot(BaseHTTPRequestHandler):
    """Chat Completions that repeat what they are told, and refuse nothing."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            asked = json.loads(body)
            text = asked["messages"][-1]["content"].removeprefix("Repeat: ")
            if text == "die":
                self.server.is_dead = True  # pyright: ignore[reportAttributeAccessIssue]
            message = {"role": "assistant", "content": text}
            usage = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            status, answer = 200, {"id": "chatcmpl-1", "choices": [choice], "usage": usage}
        except (ValueError, KeyError, TypeError):
            status, answer = 500, {"detail": "sorry"}
        if getattr(self.server, "is_dead", False):
            status = 503
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def parrot() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Parrot) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def stream(path: str, *documents: dict[str, Any]) -> HttpAnswer:
    body = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in documents)
    return HttpAnswer(path, 200, {"content-type": "text/event-stream"}, body)


def whole(path: str, document: object, status: int = 200) -> HttpAnswer:
    return HttpAnswer(
        path, status, {"content-type": "application/json"}, json.dumps(document).encode()
    )


def test_every_case_has_an_id_of_its_own_and_says_what_is_right() -> None:
    cases = [case for group in GROUPS.values() for case in group]

    assert len({case.id for case in cases}) == len(cases) > 270
    assert all(case.kind and case.right for case in cases)
    assert cases_of(()) == cases_of(USUAL)
    assert cases_of(("C04", "thinking"))[0].id == "C04"
    with pytest.raises(KeyError):
        cases_of(("nothing",))


def test_a_call_in_pieces_is_one_call() -> None:
    function = {"name": "f", "arguments": '{"a"'}
    chat = stream(
        CHAT,
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": function}]}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}}]},
    )
    start = {"type": "content_block_start", "index": 1,
             "content_block": {"type": "tool_use", "name": "f", "input": {}}}  # fmt: skip
    delta = {"type": "input_json_delta", "partial_json": '{"a":1}'}
    message = stream(MESSAGES, start, {"type": "content_block_delta", "index": 1, "delta": delta})

    assert chat.calls == message.calls == [("f", {"a": 1})]


def test_a_call_that_comes_twice_is_no_call() -> None:
    item = {"type": "function_call", "name": "f", "arguments": '{"a":1}'}
    twice = stream(
        RESPONSES,
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": '{"a":1}'},
    )

    with pytest.raises(ValueError, match="Extra data"):
        assert twice.calls


@pytest.mark.parametrize(
    ("path", "document", "is_refused"),
    [
        (CHAT, {"error": {"message": "no", "type": "invalid_request_error"}}, True),
        (CHAT, {"detail": "no"}, False),
        (CHAT, {"error": {"message": "", "type": "x"}}, False),
        (CHAT, None, False),
        (CHAT, [1], False),
        (MESSAGES, {"type": "error", "error": {"message": "no", "type": "x"}}, True),
        (MESSAGES, {"error": {"message": "no", "type": "x"}}, False),
        ("/api/chat", {"error": "no"}, True),
        ("/api/chat", {"error": {"message": "no", "type": "x"}}, False),
    ],
)
def test_a_refusal_has_words_in_the_shape_of_its_api(
    path: str, document: object, *, is_refused: bool
) -> None:
    assert whole(path, document, 400).is_refused() is is_refused
    assert not whole(path, document, 500).is_refused()


def test_what_is_wrong_is_shown_and_what_breaks_is_wrong(parrot: str) -> None:
    server = Server(parrot, "m")
    right = judge(server, Case("X1", "k", "r", lambda s: s.chat("Repeat: ok").said == "ok"))
    wrong = judge(server, Case("X2", "k", "r", lambda s: s.chat("Repeat: no").said == "ok"))
    broken = judge(server, Case("X3", "k", "r", lambda s: s.chat().document["nothing"]))
    keyed = judge(server, Case("X4", "k", "r", lambda _: False, needs_key=True))
    server.close()

    assert (right.is_right, wrong.is_right, broken.is_right) == (True, False, False)
    assert keyed.is_right is None
    assert wrong.seen.startswith("HTTP 200")
    assert broken.seen.startswith("KeyError: 'nothing'")


def test_a_server_that_has_died_is_asked_nothing_more_unless_it_comes_back(parrot: str) -> None:
    cases = [
        Case("X1", "k", "r", lambda s: s.chat("Repeat: die").status == 200),
        Case("X2", "k", "r", lambda s: s.chat().status == 503),
    ]
    server = Server(parrot, "m")

    assert [each.is_right for each in try_cases(server, cases).outcomes] == [False, None]
    revived = try_cases(server, cases, revive=lambda: True)
    server.close()
    assert [each.is_right for each in revived.outcomes] == [False, True]


def test_the_program_prints_a_table_and_says_whether_all_is_right(
    parrot: str, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "x")
    one = say("conformance", f"{parrot}/v1", "--model", "m", "C01")
    keyed = ("--api-key-env", "A_KEY")
    two = say("conformance", parrot, "C01", "C28t", "--model", "m", "--json", *keyed)

    assert (one.returncode, two.returncode) == (0, 1)
    assert "C01   right  a plain answer" in one.stdout
    assert one.stdout.endswith("1 of 1 right\n")
    document = json.loads(two.stdout)
    assert (document["right"], document["tried"]) == (1, 2)
    assert [each["is_right"] for each in document["cases"]] == [True, False]


def test_a_mistake_on_the_command_line_is_one_line(parrot: str, say: Say) -> None:
    unknown = say("conformance", parrot, "C0", "--model", "m")
    nobody = say("conformance", "http://127.0.0.1:9", "--model", "m")

    assert unknown.returncode == 2
    assert "there is no case 'C0'" in unknown.stderr
    assert nobody.returncode == 1
    assert "Traceback" not in unknown.stderr + nobody.stderr
