"""Agents against the calibration server, whose cache and clock are known."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_bench.__main__ import main
from mlx_bench.agents.conversation import Conversation
from mlx_bench.agents.export import render_agents_table
from mlx_bench.agents.report import AgentsReport, fairness
from mlx_bench.agents.runner import run_agents
from mlx_bench.agents.workload import AgentParameters, AgentTexts
from mlx_bench.calibration.server import ServedRequests
from mlx_bench.cautions import CautionCode
from mlx_bench.client import StreamingClient
from mlx_bench.completion import Answer, ToolCall
from mlx_bench.errors import EndpointError, ParametersError, ReportError
from mlx_bench.report_file import load_report, load_saved, save_report
from mlx_bench.runner import Conditions
from mlx_bench.workload import PromptMaker

if TYPE_CHECKING:
    from collections.abc import Sequence

type OpenClient = Callable[[str], StreamingClient]

CONDITIONS = Conditions(target="here", machine={"chip": None})
SMALL = AgentParameters(
    agents=3, turns=4, prefix_tokens=900, task_tokens=60, result_tokens=80, generation_tokens=12
)
CALL = ToolCall("call-1", "read_file", '{"path": "a"}')


def codes(report: AgentsReport) -> set[CautionCode]:
    """The cautions, but for the one that depends on how busy this machine is."""
    return {caution.code for caution in report.cautions} - {CautionCode.CLIENT_BUSY}


def served_by(client: StreamingClient, model: str) -> "Sequence[int]":
    """How many tokens the server itself says that it read, in the order of arrival."""
    page = client.endpoint.base_url.removesuffix("/v1") + "/calibration/requests"
    served = client.get(page, ServedRequests)
    assert served is not None
    assert client.endpoint.model == model
    return [request.prompt_tokens - request.cached_tokens for request in served.requests]


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_with_a_cache_a_turn_reads_exactly_what_is_new(open_client: OpenClient, calls: int) -> None:
    client = open_client(f"ttft_ms=2,tps=2000,cache=2,tool_calls={calls}")
    report = run_agents(client, SMALL, CONDITIONS)

    assert report.finished
    assert [turn.turn for turn in report.turns] == [1, 2, 3, 4]
    assert report.turns[0].prompt_tokens == SMALL.prefix_tokens + SMALL.task_tokens
    for turn in report.turns[1:]:
        # The result, the template around it and before the answer; nothing of what was said.
        assert turn.new_tokens == turn.read_tokens == SMALL.result_tokens + 1 + max(calls, 1)
    assert all(run.tool_calls == calls for run in report.runs)
    assert (CautionCode.NO_TOOL_CALLS in codes(report)) is (calls == 0)


def test_without_a_cache_everything_is_read_again(open_client: OpenClient) -> None:
    report = run_agents(open_client("ttft_ms=2,tps=2000,tool_calls=1"), SMALL, CONDITIONS)

    for before, turn in pairwise(report.turns):
        assert turn.read_tokens == turn.prompt_tokens
        assert (turn.prompt_tokens or 0) > (before.prompt_tokens or 0)
    assert report.totals.read_tokens == report.totals.prompt_tokens
    assert (report.totals.new_tokens or 0) < (report.totals.prompt_tokens or 0) / 2


def test_a_cache_of_prompts_alone_reads_the_answers_again(open_client: OpenClient) -> None:
    report = run_agents(open_client("ttft_ms=2,tps=2000,cache=1,seed=31"), SMALL, CONDITIONS)

    last = report.turns[-1]
    assert (last.read_tokens or 0) - (last.new_tokens or 0) == SMALL.generation_tokens


def test_reasoning_does_not_go_back_and_counts_as_new(open_client: OpenClient) -> None:
    model = "ttft_ms=2,tps=2000,cache=2,reasoning=5,seed=32"
    report = run_agents(open_client(model), SMALL, CONDITIONS)

    spoken = SMALL.generation_tokens - 5
    assert report.turns[-1].new_tokens == SMALL.result_tokens + 2 + spoken
    assert report.turns[-1].read_tokens == report.turns[-1].new_tokens


def test_conversations_that_push_each_other_out_are_seen(open_client: OpenClient) -> None:
    model = "ttft_ms=2,tps=2000,cache=2,cache_entries=1,seed=33"
    report = run_agents(open_client(model), SMALL, CONDITIONS)

    assert (report.totals.read_tokens or 0) > 1.2 * (SMALL.agents * SMALL.turns * 82 + 960)


def test_the_time_to_the_first_token_is_what_the_tokens_read_cost(open_client: OpenClient) -> None:
    asked = msgspec.structs.replace(SMALL, agents=1, prefix_tokens=4000)
    model = "ttft_ms=10,tps=2000,prefill_tps=20000,cache=2,tool_calls=1,seed=34"
    report = run_agents(open_client(model), asked, CONDITIONS)

    late_s = [run.ttft_s - (0.010 + (run.read_tokens or 0) / 20_000) for run in report.runs]
    assert min(late_s) > -0.005
    assert median(late_s) < 5
    assert report.fairness is None


def test_who_waits_for_a_lane_is_slower(open_client: OpenClient) -> None:
    asked = msgspec.structs.replace(SMALL, agents=2, turns=1, generation_tokens=20)
    report = run_agents(open_client("ttft_ms=20,tps=25,lanes=1"), asked, CONDITIONS)

    # One answer takes 780 ms; the second agent has waited for the first.
    assert report.fairness == pytest.approx(2.0, rel=0.25)
    assert report.throughput_tps == pytest.approx(40 / 1.56, rel=0.25)


def test_the_engines_counter_tells_where_usage_does_not(open_client: OpenClient) -> None:
    alone = msgspec.structs.replace(SMALL, agents=1)
    model = "ttft_ms=2,tps=2000,cache=2,tell_cache=0,tool_calls=1,seed=35"
    report = run_agents(open_client(model), alone, CONDITIONS)
    assert [turn.read_tokens for turn in report.turns[1:]] == [82, 82, 82]

    several = run_agents(open_client(model + "1"), SMALL, CONDITIONS)
    assert {turn.read_tokens for turn in several.turns} == {None}
    assert several.totals.read_tokens is not None
    assert several.totals.read_tokens < (several.totals.prompt_tokens or 0) / 2


def test_where_nothing_tells_what_was_read_it_is_unknown(open_client: OpenClient) -> None:
    report = run_agents(open_client("ttft_ms=2,tps=2000,usage=0"), SMALL, CONDITIONS)

    assert {turn.read_tokens for turn in report.turns} == {None}
    assert report.totals.new_tokens is None
    assert codes(report) >= {CautionCode.READS_UNKNOWN, CautionCode.PROMPT_LENGTH}
    assert "-" in render_agents_table(report)


def test_an_agent_whose_turn_fails_ends_and_is_counted(open_client: OpenClient) -> None:
    model = "ttft_ms=2,tps=2000,fail_after=3,failure=disconnect"
    with pytest.raises(EndpointError, match="None of 3 agents"):
        run_agents(open_client(model), SMALL, CONDITIONS)


def test_a_server_that_refuses_tools_is_measured_without(open_client: OpenClient) -> None:
    report = run_agents(open_client("ttft_ms=2,tps=2000,refuse=tools"), SMALL, CONDITIONS)

    assert codes(report) == {CautionCode.NO_TOOL_CALLS}
    assert report.turns[0].prompt_tokens == 960


def test_conversations_that_do_not_fit_are_refused_before_anything_is_sent(
    open_client: OpenClient,
) -> None:
    client = open_client("ttft_ms=2,tps=2000,seed=36")
    conditions = Conditions(target="here", machine={}, context_tokens=1000)
    before = len(served_by(client, client.endpoint.model))
    with pytest.raises(ParametersError, match="1,344 tokens; the model has 1,000") as refused:
        run_agents(client, SMALL, conditions)
    assert "--prefix-tokens 556 or less" in refused.value.hint
    assert len(served_by(client, client.endpoint.model)) == before


def test_a_prefix_shorter_than_the_tools_is_refused_with_the_least(open_client: OpenClient) -> None:
    client = open_client("ttft_ms=2,tps=2000")
    asked = msgspec.structs.replace(SMALL, prefix_tokens=20)
    with pytest.raises(ParametersError) as refused:
        run_agents(client, asked, CONDITIONS)
    least = int("".join(filter(str.isdigit, refused.value.hint)))
    report = run_agents(client, msgspec.structs.replace(asked, prefix_tokens=least), CONDITIONS)
    assert report.turns[0].prompt_tokens == least + SMALL.task_tokens


def test_more_agents_than_the_model_takes_is_a_caution(open_client: OpenClient) -> None:
    conditions = Conditions(target="here", machine={}, concurrency=2)
    report = run_agents(open_client("ttft_ms=2,tps=2000,tool_calls=1"), SMALL, conditions)
    assert codes(report) == {CautionCode.AGENTS_QUEUE}


def test_the_report_so_far_is_given_after_every_turn(open_client: OpenClient) -> None:
    seen: list[AgentsReport] = []
    run_agents(open_client("ttft_ms=2,tps=2000"), SMALL, CONDITIONS, on_report=seen.append)
    assert [report.finished for report in seen][-2:] == [False, True]
    assert [len(report.turns) for report in seen][-1] == 4


def test_a_saved_report_reads_back_as_it_was(open_client: OpenClient, tmp_path: Path) -> None:
    report = run_agents(open_client("ttft_ms=2,tps=2000"), SMALL, CONDITIONS)
    report = msgspec.structs.replace(report, extra={"tier": "fast"})
    path = tmp_path / "agents.json"
    save_report(report, path)
    again = load_saved(path)
    assert again == report
    with pytest.raises(ReportError, match="is of agents"):
        load_report(path)


def test_the_shape_is_the_documented_one(
    server_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "agents.json"
    arguments = [server_url, "--model", "ttft_ms=2,tps=2000,cache=2", "--agents", "2"]
    small = ["--turns", "2", "--prefix-tokens", "900", "--result-tokens", "50"]
    assert main([*arguments, *small, "--json", "-o", str(saved)]) == 0
    shape = json.loads(capsys.readouterr().out)
    assert shape == json.loads(saved.read_text())
    assert (shape["schema_version"], shape["agents"]) == (1, 2)
    assert {"target", "agents", "turns", "throughput_tps", "fairness"} <= set(shape)
    for turn in shape["turns"]:
        assert {"turn", "prompt_tokens", "new_tokens", "read_tokens"} <= set(turn)
        assert {"value", "low", "high", "p95"} <= set(turn["ttft_s"])
    assert main(["report", str(saved)]) == 0
    table = capsys.readouterr().out
    assert "2 agents at once, 2 turns" in table
    assert max(map(len, table.splitlines())) < 80


@pytest.mark.parametrize(
    "wrong",
    [
        ("--agents", "0"),
        ("--agents", "2", "--turns", "0"),
        ("--agents", "2", "--html", "page.html"),
        ("--agents", "2", "--csv"),
        ("--agents", "2", "-o", "report.md"),
        ("--agents", "2", "--iterations", "7"),
        ("--agents", "2", "--concurrency", "1,4"),
        ("--agents", "2", "--precision", "0.1"),
        ("--agents", "2", "--context-tokens", "9"),
        ("--agents", "2", "--prefix-tokens", "1000000000000"),
        ("--agents", "2", "--result-tokens", "1000000000000"),
        ("--prompt-tokens", "1,1000000000000"),
        ("--turns", "3"),
        ("--prefix-tokens", "500"),
        ("--check", "--turns", "3"),
        ("--check", "--generation-tokens", "9"),
        ("--check", "--check-tools"),
    ],
)
def test_what_agents_cannot_be_asked_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], wrong: tuple[str, ...]
) -> None:
    """Also options of another kind of benchmark, which would do nothing."""
    assert main(["http://127.0.0.1:9/v1", "--model", "m", *wrong]) == 2
    assert capsys.readouterr().err.startswith("mlx-bench: ")


def texts_of(seed: int) -> AgentTexts:
    return AgentTexts(msgspec.structs.replace(SMALL, seed=seed), PromptMaker(), 40)


answers = st.builds(
    Answer,
    st.text(max_size=20),
    st.lists(
        st.builds(ToolCall, st.sampled_from(["", "id"]), st.sampled_from(["", "x"]), st.text())
        | st.just(CALL),
        max_size=3,
    ).map(tuple),
    st.booleans(),
)


@given(st.integers(0, 2**31), st.lists(answers, max_size=4))
def test_a_conversation_only_ever_grows_and_every_call_has_its_result(
    seed: int, said: list[Answer]
) -> None:
    conversation = Conversation.begin(texts_of(seed), 1)
    for answer in said:
        grown = conversation.after(answer)
        assert grown.messages[: len(conversation.messages)] == conversation.messages
        assistant, *results = grown.messages[len(conversation.messages) :]
        calls = assistant.get("tool_calls", [])
        assert isinstance(calls, list)
        asked = [call["id"] for call in calls]  # pyright: ignore[reportUnknownVariableType]
        assert [each.get("tool_call_id") for each in results] == (asked or [None])
        conversation = grown


@given(st.integers(0, 2**31))
def test_the_same_seed_makes_the_same_agents_and_no_two_agents_are_alike(seed: int) -> None:
    one, again = (Conversation.begin(texts_of(seed), 0) for _ in range(2))
    other = Conversation.begin(texts_of(seed), 1)
    assert one.messages == again.messages
    assert one.messages[0] == other.messages[0]
    assert one.messages[1] != other.messages[1]
    assert one.messages[0] != Conversation.begin(texts_of(seed + 1), 0).messages[0]


def test_fairness_needs_two_agents_that_made_every_turn(open_client: OpenClient) -> None:
    report = run_agents(open_client("ttft_ms=2,tps=2000"), SMALL, CONDITIONS)
    assert (report.fairness or 0) >= 1
    assert fairness([run for run in report.runs if run.agent == 0], SMALL.turns) is None
    assert fairness(report.runs, SMALL.turns + 1) is None
