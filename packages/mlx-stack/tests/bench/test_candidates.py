"""What `bench --tune` tries of the engine's settings, by how a tier is served."""

import pytest

from mlx_catalog import Quant
from mlx_stack import stack
from mlx_stack.bench.candidates import candidates
from mlx_stack.engines.vllm_mlx import Serving, flags_of
from mlx_stack.stack import FlagValue, Tier

SERVINGS = {
    "text": Serving(reuses_prefixes=True),
    "simple": Serving(),
    "unbatched": Serving(batching=False),
    "sees": Serving(multimodal=True, reuses_prefixes=True, has_mtp=True),
    "parsers": Serving(tool_call_parser="hermes", reasoning_parser="qwen3", reuses_prefixes=True),
}
FORBIDDEN = {"use-paged-cache", "max-kv-size", "prefix-trie-cache", "mtp-optimistic"}


def tier(concurrency: int = 1, **flags: FlagValue) -> Tier:
    """A tier with these flags of the user's."""
    return Tier(
        name="standard",
        model="a-model",
        quant=Quant.INT4,
        source="/models/a-model",
        port=8000,
        vllm_flags=flags,
        concurrency=concurrency,
    )


@pytest.mark.parametrize("serving", SERVINGS.values(), ids=SERVINGS)
@pytest.mark.parametrize("concurrency", [1, 4])
def test_every_flag_is_one_that_the_engine_knows_and_changes_something(
    serving: Serving, concurrency: int
) -> None:
    subject = tier(concurrency)
    now = flags_of(subject, serving)
    found = candidates(subject, serving)
    names = {name for each in found for name in each.settings}
    assert names <= stack._ENGINE_FLAGS  # pyright: ignore[reportPrivateUsage]
    assert not names & FORBIDDEN
    assert ("enable-mtp" in names) is serving.has_mtp
    assert len({str(each.settings) for each in found}) == len(found)
    for each in found:
        assert {**now, **each.settings} != now


def factors(serving: Serving, subject: Tier) -> set[str]:
    """What is tried, by its factor."""
    return {each.factor for each in candidates(subject, serving)}


def test_the_prefix_cache_is_tried_only_where_there_is_one() -> None:
    assert {"prefix cache", "KV bits", "batching"} <= factors(SERVINGS["text"], tier())
    assert not {"prefix cache", "KV bits"} & factors(SERVINGS["simple"], tier())


def test_batching_is_tried_the_other_way_round_and_never_where_it_is_wrong() -> None:
    by_factor = {each.factor: each.settings for each in candidates(tier(), SERVINGS["simple"])}
    assert by_factor["batching"]["continuous-batching"] is True
    assert "batching" not in factors(SERVINGS["unbatched"], tier())


def test_only_kv_bits_may_change_answers() -> None:
    for each in candidates(tier(), SERVINGS["text"]):
        assert each.changes_answers is (each.factor == "KV bits")


def test_what_the_user_has_set_already_is_not_tried_again() -> None:
    own = tier(**{"stream-interval": 4, "prefill-step-size": 512})
    found = [each.settings for each in candidates(own, SERVINGS["text"])]
    assert {"stream-interval": 4} not in found
    assert {"prefill-step-size": 512} not in found
    assert {"prefill-step-size": 2048} in found


def settings(serving: Serving, subject: Tier) -> list[dict[str, FlagValue]]:
    """What is tried."""
    return [dict(each.settings) for each in candidates(subject, serving)]


def test_a_model_that_sees_reads_text_in_the_same_steps_as_any_other() -> None:
    tried = settings(SERVINGS["sees"], tier())
    assert {"prefill-step-size": 1024} in tried
    assert not any("mllm-prefill-step-size" in each for each in tried)


def test_what_the_engine_obeys_with_batching_only_is_tried_only_with_it() -> None:
    alone = Serving(multimodal=True, has_mtp=True)
    assert not factors(alone, tier()) & {"MTP", "stream interval"}
    assert {"MTP", "stream interval"} <= factors(alone, tier(concurrency=2))


def test_mtp_is_tried_with_the_one_draft_that_the_engine_makes() -> None:
    assert [each for each in settings(SERVINGS["sees"], tier()) if "enable-mtp" in each] == [
        {"enable-mtp": True}
    ]
