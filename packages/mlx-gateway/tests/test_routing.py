"""Which model a name means, and which a request may go to."""

import pytest

from mlx_gateway.errors import ApiError
from mlx_gateway.routing import candidates, least_busy, needs_count, resolve, too_long
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
        ("zzz", "There are: standard"),
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

    assert least_busy([first, second], {}) is first
    assert least_busy([first, second], {"http://a:1": 1}) is second
    assert least_busy([first, second], {"http://a:1": 1, "http://b:1": 1}) is first


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
