"""Which model a name means, and which a request may go to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway.errors import ApiError
from mlx_gateway.routing import (
    IDLE,
    NodeLoad,
    candidates,
    fewest_tokens,
    needs_count,
    resolve,
    too_long,
)
from mlx_gateway.settings import ModelSettings, Upstream, parse_settings

SETTINGS = parse_settings(
    """
    schema_version: 1
    models:
      standard:
        upstreams: [{url: "http://a:1", model: x}]
        fallbacks: [fast, standard, cloud, fast]
      fast: {upstreams: [{url: "http://b:1", model: y}], fallbacks: [standard]}
      cloud: {upstreams: [{url: "http://c:1", model: z}]}
    aliases: {qwen: standard, coder: qwen, claude-haiku-4-5: coder}
    """
)


@pytest.mark.parametrize("asked", ["standard", "qwen", "coder", "claude-haiku-4-5"])
def test_a_model_is_found_by_its_name_and_its_aliases(asked: str) -> None:
    assert resolve(SETTINGS, asked) == "standard"


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("standart", "Did you mean standard"),
        ("Standard", "standard"),
        ("zzz", "Available: standard"),
    ],
)
def test_a_name_that_is_nobodys_is_answered_with_the_nearest(asked: str, hint: str) -> None:
    with pytest.raises(ApiError) as caught:
        resolve(SETTINGS, asked)

    assert (caught.value.status, caught.value.code) == (404, "model_not_found")
    assert hint in caught.value.message


def test_a_name_without_end_is_not_repeated_in_full() -> None:
    with pytest.raises(ApiError) as caught:
        resolve(SETTINGS, "x" * 100_000)

    assert len(caught.value.message) < 1000


def test_each_model_is_tried_once_in_the_order_of_the_settings() -> None:
    assert [each.name for each in candidates(SETTINGS, "standard")] == ["standard", "fast", "cloud"]
    assert [each.name for each in candidates(SETTINGS, "cloud")] == ["cloud"]


@pytest.mark.parametrize(
    ("context_tokens", "prompt_bytes", "counts"),
    [(None, 10**9, False), (1000, 2000, False), (1000, 2001, True), (1, 0, False)],
)
def test_only_prompts_near_the_limit_are_counted(
    context_tokens: int | None, prompt_bytes: int, counts: bool
) -> None:
    model = ModelSettings((Upstream("http://a:1", "x"),), context_tokens=context_tokens)

    assert needs_count(model, prompt_bytes) is counts


def test_a_prompt_that_is_too_long_is_refused_in_the_words_on_which_agents_compact() -> None:
    problem = too_long("standard", 5000, 4096)

    assert (problem.status, problem.code) == (400, "context_length_exceeded")
    assert problem.message.startswith("prompt is too long: 5000 tokens > 4096 maximum")


def test_a_request_goes_where_the_fewest_are() -> None:
    first, second = Upstream("http://a:1", "x"), Upstream("http://b:1", "x")
    one = IDLE.with_one(0)

    assert fewest_tokens([first, second], {}, {}) is first
    assert fewest_tokens([first, second], {"http://a:1": one}, {}) is second
    assert fewest_tokens([first, second], {"http://a:1": one, "http://b:1": one}, {}) is first


tokens = st.integers(0, 50_000)


@given(st.lists(st.tuples(st.integers(0, 8), tokens, tokens), min_size=1, max_size=5))
def test_no_other_node_has_fewer_outstanding_plus_unseen_tokens(
    nodes: list[tuple[int, int, int]],
) -> None:
    upstreams = [Upstream(f"http://n{i}:1", "x") for i in range(len(nodes))]
    loads = {
        f"http://n{i}:1": NodeLoad(running, unread) for i, (running, unread, _) in enumerate(nodes)
    }
    unseen = {f"http://n{i}:1": new for i, (_, _, new) in enumerate(nodes)}

    chosen = fewest_tokens(upstreams, loads, unseen)

    costs = {root: loads[root].outstanding_tokens + unseen[root] for root in loads}
    assert costs[chosen.root] == min(costs.values())


@given(tokens, tokens)
def test_a_conversation_stays_where_it_was_read_while_that_is_cheaper(past: int, busy: int) -> None:
    here, there = Upstream("http://a:1", "x"), Upstream("http://b:1", "x")
    loads = {here.root: NodeLoad(0, busy)}

    chosen = fewest_tokens([here, there], loads, {there.root: past})

    assert chosen is (here if busy <= past else there)


@given(st.lists(tokens))
def test_when_every_request_has_ended_nothing_is_outstanding(requests: list[int]) -> None:
    load = IDLE
    for each in requests:
        load = load.with_one(each)
    for each in requests:
        load = load.without_one(each)

    assert load == IDLE


def test_what_would_have_to_start_stands_in_last_and_the_cloud_after_it() -> None:
    settings = parse_settings(
        """
        schema_version: 1
        litellm: {url: "http://l:1"}
        models:
          a: {upstreams: [{url: "http://a:1", model: a}], fallbacks: [cloud, b, c, d]}
          b: {upstreams: [{url: "http://b:1", model: b}]}
          c: {upstreams: [{url: "http://c:1", model: c}]}
          d: {upstreams: [{url: "http://d:1", model: d}]}
          cloud: {upstreams: [{url: "http://l:1", model: cloud}]}
        """
    )

    order = [each.name for each in candidates(settings, "a", lambda name: name in "ab")]

    assert order == ["a", "c", "d", "b", "cloud"]
