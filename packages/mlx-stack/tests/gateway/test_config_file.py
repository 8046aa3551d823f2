"""LiteLLM's configuration: who answers to which name, and who comes next."""

import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlx_stack.gateway.litellm import (
    CLOUD_NAME,
    REQUEST_TIMEOUT_S,
    SILENCE_FIELD,
    build_config,
    fallback_chain,
    longer_context_chain,
    model_names,
    render_config,
)
from mlx_stack.stack import Stack, Tier


def _stack(*contexts: int | None, aliases: dict[str, str] | None = None) -> Stack:
    tiers = tuple(
        Tier(
            name=f"t{index}",
            model=f"model-{index % 2}",
            quant="int4",
            source="owner/repo",
            port=9000 + index,
            vllm_flags={},
            context_tokens=context,
        )
        for index, context in enumerate(contexts)
    )
    return Stack(schema_version=1, tiers=tiers, aliases=aliases or {})


def test_a_tier_falls_back_to_those_after_it_then_to_those_before_it_then_to_the_cloud() -> None:
    stack = _stack(None, None, None)

    assert fallback_chain(stack, stack.tiers[1], cloud=True) == ["t2", "t0", CLOUD_NAME]
    assert fallback_chain(stack, stack.tiers[0], cloud=False) == ["t1", "t2"]


def test_an_overlong_prompt_goes_only_where_more_fits() -> None:
    stack = _stack(4096, 32768, None, 8192)

    assert longer_context_chain(stack, stack.tiers[0], cloud=False) == ["t3", "t1"]
    assert longer_context_chain(stack, stack.tiers[1], cloud=False) == []
    assert longer_context_chain(stack, stack.tiers[1], cloud=True) == [CLOUD_NAME]
    assert longer_context_chain(stack, stack.tiers[2], cloud=True) == []


def test_a_catalog_id_that_two_tiers_share_is_served_by_both() -> None:
    names = model_names(_stack(None, None, None))

    assert [tier.name for tier in names["model-0"]] == ["t0", "t2"]
    assert [tier.name for tier in names["model-1"]] == ["t1"]


def test_an_alias_is_a_name_like_any_other() -> None:
    config = build_config(_stack(None, None, aliases={"gpt-4o": "t1"}), cloud=False)

    rows = yaml.safe_load(render_config(config))["model_list"]
    (alias,) = (row for row in rows if row["model_name"] == "gpt-4o")
    assert alias["litellm_params"]["api_base"] == "http://127.0.0.1:9001/v1"


def test_a_tier_that_reads_in_silence_may_be_silent_as_long_as_a_request_may_take() -> None:
    config = build_config(_stack(None, None), cloud=False, silent_tiers={"t1"})

    rows = yaml.safe_load(render_config(config))["model_list"]
    silences = {row["model_name"]: row["model_info"].get(SILENCE_FIELD) for row in rows}
    assert silences == {
        "t0": None,
        "model-0": None,
        "t1": REQUEST_TIMEOUT_S,
        "model-1": REQUEST_TIMEOUT_S,
    }


def test_the_cloud_is_there_only_with_a_key_and_the_key_is_not() -> None:
    stack = _stack(None)
    without = render_config(build_config(stack, cloud=False))
    with_key = render_config(build_config(stack, cloud=True))

    assert "openrouter" not in without
    assert "os.environ/OPENROUTER_API_KEY" in with_key


@given(st.lists(st.none() | st.integers(1, 10**6), min_size=1, max_size=5), st.booleans())
def test_every_name_has_a_chain_that_never_comes_back_to_it(
    contexts: list[int | None], cloud: bool
) -> None:
    stack = _stack(*contexts, aliases={"alias": "t0"})
    config = yaml.safe_load(render_config(build_config(stack, cloud=cloud)))
    names = {row["model_name"] for row in config["model_list"]}
    chains = {
        name: chain for row in config["router_settings"]["fallbacks"] for name, chain in row.items()
    }

    for name, tiers in model_names(stack).items():
        chain = chains.get(name, [])
        assert len(chain) == len(stack.tiers) - 1 + cloud
        assert tiers[0].name not in chain
        assert set(chain) <= names
