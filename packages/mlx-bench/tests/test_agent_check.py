"""What counts as fit for agents, and what is said of it."""

import json
import subprocess
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_bench.agent_check import coherence
from mlx_bench.agent_check.ask import CHAT_WHOLE, MESSAGES_STREAMED, WAYS, CheckTurn, Request, ask
from mlx_bench.agent_check.check import judge_coherence
from mlx_bench.agent_check.needle import Needle, haystack, lengths, predict_s
from mlx_bench.agent_check.questions import QUESTIONS, is_like
from mlx_bench.agent_check.report import CheckConditions, CheckedCase, CheckReport, judge
from mlx_bench.agent_check.saved import latest_check, load_check, save_check
from mlx_bench.conformance.server import CHAT, MESSAGES, HttpAnswer, Server
from mlx_bench.errors import ReportError
from mlx_bench.report import EngineVersion

type Say = Callable[..., subprocess.CompletedProcess[str]]


def case(
    name: str, topic: str, *, is_right: bool | None = True, way: str = "Messages"
) -> CheckedCase:
    return CheckedCase(name, topic, f"{topic}: {way}", "r", is_right)


MUSTS = (case("T01c", "tool calls"), case("T08c", "use of tool results"))


def report(
    answers: dict[str, str] | None = None,
    *,
    conditions: CheckConditions | None = None,
    at: str = "2026-11-01T00:00:00+00:00",
    model: str = "m",
) -> CheckReport:
    return CheckReport(
        target="t", model=model, started_at=at, seconds=1.0,
        conditions=conditions or CheckConditions(),
        is_ready=True, verdict="agent-ready: 2 of 2", right=2, tried=2, cases=MUSTS,
        answers=answers or {},
    )  # fmt: skip


SENSIBLE = {name: f"It is {word}." for name, (_, word) in coherence.PROMPTS.items()}


def test_a_verdict_counts_and_names_what_is_missing() -> None:
    parallel = [case("T03c", "parallel calls", is_right=False)]
    nested = [
        case("T04c", "nested arguments", way="Chat Completions"),
        case("T04m", "nested arguments", is_right=False),
    ]
    many = [case(f"T05{n}", "calls without arguments") for n in range(8)]

    assert judge([*MUSTS, *many]) == (True, "agent-ready: 10 of 10")
    assert judge([*MUSTS, *parallel, *many]) == (True, "agent-ready: 10 of 11, no parallel calls")
    assert judge([*MUSTS, *nested, *many])[1].endswith("no nested arguments in Messages")
    assert judge([*MUSTS, *many, case("needle", "n", is_right=None)])[1] == "agent-ready: 10 of 10"


def test_without_tool_calls_or_with_much_wrong_nothing_is_ready() -> None:
    right = [case(f"T05{n}", "x") for n in range(20)]
    no_tools = judge([case("T01c", "tool calls", is_right=False), MUSTS[1], *right])
    half = judge([*MUSTS, *(case(f"T{n}c", f"topic {n}", is_right=n < 30) for n in range(20, 40))])

    assert no_tools == (False, "not agent-ready: 21 of 22, no tool calls")
    assert half[0] is False
    assert half[1].endswith("no topic 30, no topic 31, no topic 32, and 7 more")
    assert judge([])[0] is False


def test_there_are_at_least_twenty_cases_over_both_apis_streamed_and_not() -> None:
    asked = [(question.id, way) for question in QUESTIONS for way in question.ways]

    assert len(asked) >= 20
    assert {way for _, way in asked} == set(WAYS)
    assert len({question.id for question in QUESTIONS}) == len(QUESTIONS)


def test_other_answers_are_wrong_unless_something_else_explains_them() -> None:
    before = report(SENSIBLE)
    others = {**SENSIBLE, "capital": "Paris it is."}
    newer = CheckConditions(engine=EngineVersion("e", "2"))

    assert judge_coherence(SENSIBLE, None, CheckConditions())[0]
    assert judge_coherence(SENSIBLE, before, CheckConditions())[0]
    wrong, why = judge_coherence(others, before, CheckConditions())
    assert not wrong
    assert "capital" in why
    is_right, named = judge_coherence(others, before, newer)
    assert is_right
    assert "engine e 2, before unknown" in named
    assert not judge_coherence(dict.fromkeys(SENSIBLE, "the the"), None, newer)[0]


@pytest.mark.parametrize(
    ("now", "before", "words"),
    [
        (("--offline", "--n", "1"), ("--offline", "--n", "8"), ("--n 1, before 8",)),
        (("--n=1",), ("--n", "8"), ("--n 1, before 8",)),
        (("--offline", "--mtp"), ("--offline",), ("now with --mtp",)),
        (("--offline",), ("--offline", "--n", "8"), ("now without --n 8",)),
        (("--a", "--b"), ("--b", "--a"), ("the flags in a different order",)),
        (None, ("--a",), ("flags unknown",)),
        (("--a",), None, ("flags unknown before",)),
        (("--a",), ("--a",), ()),
    ],
)
def test_only_the_flags_that_differ_are_named(
    now: tuple[str, ...] | None, before: tuple[str, ...] | None, words: tuple[str, ...]
) -> None:
    assert CheckConditions(flags=now).differences(CheckConditions(flags=before)) == words


def test_a_difference_says_where_it_begins() -> None:
    (found,) = coherence.compare({"sum": "It is 42"}, {"sum": "It was 42", "days": "x"})

    assert (found.name, found.at) == ("sum", 3)
    assert coherence.compare({"sum": "ab"}, {"sum": "abc"})[0].at == 2


@given(st.integers(1, 2_000_000))
def test_the_needle_is_sought_in_ever_longer_texts_up_to_the_promise(promised: int) -> None:
    tried = list(lengths(promised))

    assert tried == sorted(set(tried))
    assert tried[-1] == max(promised - 256, 1)
    assert len(tried) <= 7


def test_what_would_take_too_long_is_said_and_not_wrong() -> None:
    skipped = Needle(131_072, 16_384, 16_384, 212.0)

    assert skipped.is_right is None
    assert skipped.words == "found in 16,384 tokens; 131,072 would take about 212 s"
    assert Needle(8192, 4096, 1024).is_right is False
    assert Needle(8192, 7936, 7936).is_right is True
    assert Needle(None, 0, 0).is_right is None
    assert predict_s(1.0, 1000, 4000) == pytest.approx(8.0)


def test_every_text_hides_its_number_once_and_begins_differently() -> None:
    one, other = haystack(500, 12345), haystack(500, 54321)

    assert one.count("12345") == 1
    assert one[:20] != other[:20]
    assert 400 < len(one.split()) < 600


@pytest.mark.parametrize(
    ("expected", "found", "is_same"),
    [
        ({"city": "Paris"}, {"city": "paris, France"}, True),
        ({"city": "Paris"}, {"town": "Paris"}, False),
        ({"a": [{"b": "x"}]}, {"a": [{"b": "X", "c": 1}]}, True),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"amount": 250}, {"amount": 250.0}, True),
        ({"amount": 250}, {"amount": "250"}, False),
        ({"city": "Paris"}, "Paris", False),
    ],
)
def test_arguments_mean_the_same_or_not(expected: object, found: object, *, is_same: bool) -> None:
    assert is_like(expected, found) is is_same


def test_checks_are_kept_and_the_last_of_a_model_is_found(tmp_path: Path) -> None:
    known = CheckConditions(model_hash="abc", flags=("--x",))
    save_check(report(at="2026-11-02"), tmp_path / "b.json")
    save_check(report(at="2026-11-01", conditions=known), tmp_path / "a.json")
    save_check(report(at="2026-11-03", model="other"), tmp_path / "c.json")

    assert load_check(tmp_path / "b.json") == report(at="2026-11-02")
    last, of_hash = latest_check(tmp_path, "m"), latest_check(tmp_path, "m", model_hash="abc")
    assert last is not None
    assert of_hash is not None
    assert (last.started_at, of_hash.started_at) == ("2026-11-02", "2026-11-01")
    assert latest_check(tmp_path / "none", "m") is None


@pytest.mark.parametrize("content", [b"", b"[]", b'{"schema_version": 1}', b"\0", b'{"a": "\xff"}'])
def test_a_damaged_check_names_its_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)

    with pytest.raises(ReportError, match=r"a\.json"):
        load_check(path)


class Deaf(BaseHTTPRequestHandler):
    """Keeps what it is asked, and always says the same, without ever calling a tool."""

    asked: list[tuple[str, dict[str, Any]]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append((self.path, body))
        message = {"role": "assistant", "content": "Paris: 17, 42"}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        data = json.dumps({"choices": choices, "usage": {"prompt_tokens": 9}}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        """Say nothing."""


@pytest.fixture
def deaf() -> Iterator[str]:
    Deaf.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Deaf) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_one_question_has_the_form_of_each_api(deaf: str) -> None:
    tool = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    turns = (
        CheckTurn("hi"),
        CheckTurn("ho", is_users=False),
        CheckTurn(call=("f", {"a": 1}), result="r"),
    )
    request = Request("so?", turns, (tool,), "f", {"type": "object"}, ("x",), 9, thinks=False)
    server = Server(deaf, "m")
    for way in (CHAT_WHOLE, MESSAGES_STREAMED):
        ask(server, way, request)
    server.close()
    (chat_path, chat), (message_path, message) = Deaf.asked

    assert (chat_path, message_path) == (CHAT, MESSAGES)
    assert chat["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert message["tool_choice"] == {"type": "tool", "name": "f"}
    assert [each["role"] for each in chat["messages"]] == [
        "user", "assistant", "assistant", "tool", "user",
    ]  # fmt: skip
    assert message["messages"][3]["content"][0]["type"] == "tool_result"
    assert chat["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert message["output_config"]["format"]["schema"] == {"type": "object"}
    assert (chat["stop"], message["stop_sequences"]) == (["x"], ["x"])
    assert message["thinking"] == {"type": "disabled"}
    assert (message["stream"], "stream" in chat) == (True, False)


def test_an_answer_that_is_no_call_is_wrong_in_every_question_for_calls() -> None:
    said = {"choices": [{"message": {"content": "<tool_call>"}, "finish_reason": "stop"}]}
    answer = HttpAnswer(CHAT, 200, {"content-type": "application/json"}, json.dumps(said).encode())

    assert not any(question.is_right(answer) for question in QUESTIONS if question.calls)


def test_the_program_says_that_a_model_without_tools_is_not_ready(
    deaf: str, say: Say, tmp_path: Path
) -> None:
    done = say(deaf, "--model", "m", "--check", "--context-tokens", "9", "--json", "--save")
    (saved,) = (tmp_path / "benchmarks" / "checks").glob("*.json")

    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["schema_version"] == 1
    assert document["verdict"].startswith("not agent-ready: ")
    assert load_check(saved).verdict == document["verdict"]


def test_a_check_of_nothing_and_a_wrong_use_are_one_line(say: Say) -> None:
    nobody = say("http://127.0.0.1:9", "--model", "m", "--check")
    wrong = say("http://127.0.0.1:9", "--check", "--csv")

    assert (nobody.returncode, wrong.returncode) == (1, 2)
    assert "Nothing answers" in nobody.stderr
    assert "Traceback" not in nobody.stderr + wrong.stderr
