"""What the gateway is told: who answers to which name, and who comes next."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_catalog import ModelRole
from mlx_gateway.settings import Upstream, parse_settings
from mlx_stack.config import CloudFallback, Config, LiteLlmMode
from mlx_stack.errors import UsageError
from mlx_stack.gateway import litellm
from mlx_stack.gateway.litellm import CLOUD_NAME
from mlx_stack.gateway.settings import (
    SILENT_S,
    TierAtGateway,
    build_settings,
    fallback_chain,
    render_settings,
)
from mlx_stack.stack import Replica, Stack, Tier

WITH_KEY = Config(openrouter_key="sk-or-v1-secret")


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
            concurrency=index + 1,
        )
        for index, context in enumerate(contexts)
    )
    return Stack(schema_version=1, tiers=tiers, aliases=aliases or {})


def test_a_tier_falls_back_to_those_after_it_then_to_those_before_it_then_to_the_cloud() -> None:
    stack = _stack(None, None, None)

    assert fallback_chain(stack, stack.tiers[1], WITH_KEY) == ("t2", "t0", CLOUD_NAME)
    assert fallback_chain(stack, stack.tiers[2], Config()) == ("t0", "t1")


def test_a_model_that_several_tiers_serve_is_asked_for_in_all_of_them_before_another() -> None:
    stack = _stack(None, None, None, None)

    assert build_settings(stack, Config(), {}, litellm_port=1).aliases["model-0"] == "t0"
    assert fallback_chain(stack, stack.tiers[0], Config()) == ("t2", "t1", "t3")
    assert fallback_chain(stack, stack.tiers[3], WITH_KEY) == ("t1", "t0", "t2", CLOUD_NAME)


def test_what_does_not_chat_is_in_no_chain_and_has_none() -> None:
    chat, other = _stack(None, None).tiers
    embedder = msgspec.structs.replace(other, name="embedder", port=9009, role=ModelRole.EMBEDDING)
    stack = Stack(tiers=(chat, embedder, other))
    known = {"embedder": TierAtGateway(dimensions=384)}

    models = build_settings(stack, WITH_KEY, known, litellm_port=1).models
    assert models["t0"].fallbacks == ("t1", CLOUD_NAME)
    assert models["embedder"].fallbacks == ()
    assert (models["embedder"].role, models["embedder"].dimensions) == ("embedding", 384)
    assert models["t0"].role == "chat"


def test_one_sound_is_heard_at_a_time_and_few_wait() -> None:
    _, other = _stack(None, None).tiers
    whisper = msgspec.structs.replace(other, role=ModelRole.SPEECH_TO_TEXT)
    model = build_settings(Stack(tiers=(whisper,)), Config(), {}, litellm_port=1).models["t1"]
    assert (whisper.concurrency, model.max_concurrent, model.queue) == (2, 1, 8)


def test_nothing_leaves_the_machine_unless_it_may() -> None:
    stack = _stack(100)
    never = Config(openrouter_key="sk-or", cloud_fallback=CloudFallback.NEVER)
    too_long = Config(openrouter_key="sk-or", cloud_fallback=CloudFallback.ALSO_TOO_LONG)

    assert fallback_chain(stack, stack.tiers[0], never) == ()
    assert CLOUD_NAME in build_settings(stack, never, {}, litellm_port=1).models, "by its name"
    when_down = build_settings(stack, WITH_KEY, {}, litellm_port=1)
    assert not when_down.models[CLOUD_NAME].takes_overflow
    assert build_settings(stack, too_long, {}, litellm_port=1).models[CLOUD_NAME].takes_overflow
    off = Config(openrouter_key="sk-or", litellm=LiteLlmMode.NEVER)
    assert CLOUD_NAME not in build_settings(stack, off, {}, litellm_port=1).models


def test_a_catalog_id_and_an_alias_are_names_of_their_tier() -> None:
    settings = build_settings(
        _stack(None, None, aliases={"gpt-4o": "t1"}), Config(), {}, litellm_port=1
    )

    assert settings.aliases == {"gpt-4o": "t1", "model-0": "t0", "model-1": "t1"}
    assert settings.models["t1"].upstreams[0].url == "http://127.0.0.1:9001"
    assert settings.models["t1"].upstreams[0].model == "model-1"
    assert settings.models["t1"].max_concurrent == 2


def test_a_tier_that_reads_in_silence_may_be_silent_for_long() -> None:
    known = {"t1": TierAtGateway(sees_images=True, calls_tools=True, reads_in_silence=True)}

    settings = build_settings(_stack(None, None), Config(), known, litellm_port=1)

    assert settings.models["t0"].silence_s is None
    assert settings.models["t1"].silence_s == SILENT_S
    assert settings.models["t1"].sees_images
    assert settings.models["t1"].calls_tools
    assert settings.models["t0"].thinks is None, "nobody knows"


def test_ollamas_port_is_the_gateways_second_where_it_is_set() -> None:
    assert build_settings(_stack(None), Config(), {}, litellm_port=1).ollama_port is None
    config = Config(ollama_port=11434)
    settings = build_settings(_stack(None), config, {}, litellm_port=1)
    assert parse_settings(render_settings(settings)).ollama_port == 11434


def test_prompts_pass_as_they_came_where_the_user_wants_that() -> None:
    stack = _stack(None)

    assert build_settings(stack, Config(), {}, litellm_port=1).stable_prompts
    off = build_settings(stack, Config(stable_prompts=False), {}, litellm_port=1)
    assert not parse_settings(render_settings(off)).stable_prompts


def test_no_secret_is_in_the_generated_files() -> None:
    text = render_settings(build_settings(_stack(None), WITH_KEY, {}, litellm_port=4001))

    assert "secret" not in text + litellm.render_config()
    assert "os.environ/OPENROUTER_API_KEY" in litellm.render_config()
    assert litellm.master_key("sk-one") != litellm.master_key("sk-two")


@given(st.lists(st.none() | st.integers(1, 10**6), min_size=1, max_size=5), st.booleans())
def test_what_is_written_is_what_the_gateway_reads(
    contexts: list[int | None], has_key: bool
) -> None:
    stack = _stack(*contexts, aliases={"alias": "t0"})
    settings = build_settings(stack, WITH_KEY if has_key else Config(), {}, litellm_port=4001)

    assert parse_settings(render_settings(settings)) == settings
    for name, model in settings.models.items():
        assert name not in model.fallbacks


def test_a_replica_on_another_mac_comes_after_the_own_engine() -> None:
    tier = msgspec.structs.replace(
        _stack(None).tiers[0], replicas=(Replica(node="studio", tier="big"),)
    )
    stack = Stack(tiers=(tier,))

    with pytest.raises(UsageError, match="not a node"):
        build_settings(stack, Config(), {}, litellm_port=1)
    urls = {"studio": "http://10.0.1.2:4000"}
    model = build_settings(stack, Config(), {}, litellm_port=1, node_urls=urls).models[tier.name]

    assert model.upstreams[0].node is None
    assert model.upstreams[1] == Upstream("http://10.0.1.2:4000", "big", "studio")
