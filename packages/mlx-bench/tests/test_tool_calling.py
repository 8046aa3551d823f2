"""What counts as a tool call."""

import json
from collections.abc import Callable

import pytest

from mlx_bench.client import StreamingClient
from mlx_bench.conformance.server import CHAT, HttpAnswer
from mlx_bench.tool_calling import check_tool_calling, judge_answer


def answer(*calls: dict[str, object], content: str | None = None) -> HttpAnswer:
    message = {"content": content, "tool_calls": list(calls)}
    return answered({"choices": [{"message": message}]})


def answered(document: object) -> HttpAnswer:
    return HttpAnswer(
        CHAT, 200, {"content-type": "application/json"}, json.dumps(document).encode()
    )


def call(name: str, arguments: str) -> dict[str, object]:
    return {"function": {"name": name, "arguments": arguments}}


def test_a_call_of_the_offered_tool_passes() -> None:
    check = judge_answer(answer(call("get_weather", '{"city": "Paris"}')))
    assert check.ok
    assert "Paris" in check.detail


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (answer(content="It is sunny."), "It is sunny."),
        (answer(call("get_news", '{"city": "Paris"}')), "get_news"),
        (answer(call("get_weather", '{"city": ')), "unusable"),
        (answer(call("get_weather", '{"town": "Paris"}')), "unusable"),
        (answered({}), "no tool call"),
    ],
)
def test_anything_else_fails_and_says_why(given: HttpAnswer, why: str) -> None:
    check = judge_answer(given)
    assert not check.ok
    assert why in check.detail


def test_a_server_that_refuses_fails_the_check(
    open_client: Callable[[str], StreamingClient],
) -> None:
    check = check_tool_calling(open_client("status=500"))
    assert not check.ok
    assert "500" in check.detail
