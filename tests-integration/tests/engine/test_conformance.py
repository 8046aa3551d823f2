"""Every kind of request that clients make, at the real engine through the gateway.

What is wrong through the gateway must be a fault of the engine that is known here, and be wrong at
the engine as well.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlx_bench.conformance.inputs import CALLED, TOOL
from mlx_bench.conformance.server import Server
from mlx_bench.conformance.table import USUAL, Conformance, cases_of, try_cases
from mlx_stack.engines.vllm_mlx import Serving
from stack_testkit.gateway_program import running_gateway

type Serve = Callable[..., str]

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

KEY = "a-key-of-the-test"
TRAITS = Serving(tool_call_parser="hermes", reuses_prefixes=True)
THINKS = Serving(tool_call_parser="hermes", reasoning_parser="qwen3", reuses_prefixes=True)
SIMPLE = Serving(tool_call_parser="hermes", batching=False)
FAULTS: dict[str, str] = {}
"""The cases that are wrong through the gateway, and what vllm-mlx 0.6 does in each."""
FIXED = {
    "C16": "sends a call's tag as text where the tokenizer makes several tokens of it",
    "A05": "the same",
    "A05n": "the same, and begins a block of text that stays empty",
    "C32h": "drops the thoughts of earlier answers before the template sees them",
    "A02e": "tells nobody how long a prompt is before it has been read",
    "A11": "counts the texts of a request and not what the template makes of them",
    "A11t": "the same",
    "A11u": "the same",
}
"""The cases that backports make right."""
TAGGED = {
    "kimi": (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0"
        '<|tool_call_argument_begin|>{"city": "Paris"}<|tool_call_end|><|tool_calls_section_end|>'
    ),
    "deepseek": (
        "<|tool_calls_begin|><|tool_call_begin|>function<|tool_sep|>weather\n"
        '```json\n{"city": "Paris"}\n```<|tool_call_end|><|tool_calls_end|>'
    ).translate({ord("|"): "\uff5c", ord("_"): "\u2581"}),
    "mistral": '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Paris"}}]',
}
"""Calls as three parsers read them, which the engine's streams take for text or for other calls."""


@contextmanager
def gateway_to(folder: Path, engine: str) -> Iterator[str]:
    """The program `mlx-gateway` in front of an engine; its URL."""
    model = {
        "upstreams": [{"url": engine, "model": "scripted"}],
        "max_concurrent": 2,
        "sees_images": False,
        "context_tokens": 131_072,
    }
    with running_gateway(folder, {"scripted": model}, key=KEY) as url:
        yield url


def tried(url: str, *names: str, key: str = "") -> Conformance:
    """The table of a server, printed."""
    server = Server(url, "scripted", key)
    try:
        table = try_cases(server, cases_of(names))
    finally:
        server.close()
    sys.stdout.write(table.render())
    return table


def wrong(table: Conformance) -> set[str]:
    return {outcome.case.id for outcome in table.outcomes if not outcome.is_right}


def test_what_clients_need_is_right_but_for_known_faults_of_the_engine(
    serve: Serve, scripted_model: Path, tmp_path: Path
) -> None:
    engine = serve(scripted_model, traits=TRAITS, concurrency=2, has_additions=True)
    with gateway_to(tmp_path, engine) as url:
        through = tried(url, *USUAL, key=KEY)

    assert wrong(through) == FAULTS.keys(), "a fault is gone, or there is a new one"
    assert through.tried == len(through.outcomes) > 250

    bare = serve(scripted_model, name="bare", traits=TRAITS)
    directly = tried(bare, *sorted(wrong(through)), *FIXED)
    assert directly.right == 0, "the gateway is worse than the engine, or a backport can go"


def test_a_model_that_thinks_is_right_in_every_api(
    serve: Serve, scripted_model: Path, tmp_path: Path
) -> None:
    engine = serve(scripted_model, traits=THINKS, has_additions=True)
    with gateway_to(tmp_path, engine) as url:
        assert wrong(tried(url, "thinking", key=KEY)) == set()


@pytest.mark.parametrize("parser", TAGGED)
def test_a_call_is_a_call_in_a_stream_and_nothing_of_it_is_text(
    serve: Serve, scripted_model: Path, parser: str
) -> None:
    def is_right(name: str, *, has_additions: bool) -> bool:
        traits = Serving(tool_call_parser=parser, reuses_prefixes=True)
        url = serve(scripted_model, name=name, traits=traits, has_additions=has_additions)
        server = Server(url, "scripted", "")
        try:
            answer = server.chat(f"Repeat: I look. {TAGGED[parser]}", tools=[TOOL], stream=True)
            found = (answer.said, answer.calls) == ("I look. ", CALLED)
        except ValueError:  # the arguments are no JSON
            found = False
        finally:
            server.close()
        return found

    assert is_right("fixed", has_additions=True)
    assert not is_right("bare", has_additions=False), "a newer engine needs no backport"


def test_stops_and_clients_that_leave_are_right_in_simple_mode(
    serve: Serve, scripted_model: Path, tmp_path: Path
) -> None:
    engine = serve(scripted_model, traits=SIMPLE, has_additions=True)
    cases = (
        "C04",
        "C04s",
        "C05",
        "C05s",
        "P03",
        "P04",
        "A12",
        "A12s",
        "O03s",
        "K01",
        "K02",
        "K03",
        *FIXED,
    )
    with gateway_to(tmp_path, engine) as url:
        assert wrong(tried(url, *cases, key=KEY)) == set()
    bare = serve(scripted_model, name="bare", traits=SIMPLE)
    assert tried(bare, "K01").right == 0, "the engine no longer needs `end_whole_answers`"
