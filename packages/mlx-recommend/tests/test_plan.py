"""Plans: what is chosen, that it fits, and that more room is never worse."""

from functools import cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_catalog import ModelRole, load_catalog
from mlx_hwprobe import HardwareProfile, parse_hardware_spec
from mlx_recommend import (
    Absence,
    Exclusion,
    Intent,
    ReasonKind,
    TierPlan,
    budget_bytes,
    candidate_of,
    make_plan,
    reasons,
)

CATALOG = load_catalog()
MACS = ("m1:8:8", "m2:10:16", "m4-pro:20:24", "m3-max:40:64", "m4-max:40:128", "m3-ultra:80:512")


@cache
def candidates(*, allow_gated: bool = False):
    return [candidate_of(entry, "int4", allow_gated=allow_gated) for entry in CATALOG]


def plan_for(spec: str, *, budget: int | None = None, **options: object) -> TierPlan:
    mac = parse_hardware_spec(spec)
    room = budget if budget is not None else budget_bytes(mac)
    return make_plan(candidates(), mac, budget_bytes=room, **options)


def tier(plan: TierPlan, name: str):
    return next((each for each in plan.tiers if each.kind.name == name), None)


@given(spec=st.sampled_from(MACS), budget=st.integers(0, 300 * 10**9))
@settings(max_examples=15, deadline=None)
def test_what_reads_gets_a_small_share_first_and_chat_the_rest(spec, budget):
    plan = plan_for(spec, budget=budget, roles=(ModelRole.EMBEDDING, ModelRole.RERANK))
    assert plan.total_bytes <= plan.budget_bytes == budget
    assert all(each.total_bytes <= 0.2 * budget for each in plan.reading)
    taken = sum(each.total_bytes for each in plan.reading)
    alone = plan_for(spec, budget=budget - taken)
    assert plan.tiers == alone.tiers
    named = {each.name for each in plan.reading} | {each.tier for each in plan.missing}
    assert {"embedder", "reranker"} <= named


def test_a_large_mac_has_an_embedder_and_a_reranker_and_a_small_one_is_told_why_not():
    roles = (ModelRole.EMBEDDING, ModelRole.RERANK)
    large = plan_for("m4-max:40:64", roles=roles)
    assert [each.role for each in large.reading] == list(roles)
    tight = plan_for("m1:8:8", budget=10**9, roles=roles)
    absent = {each.tier: each for each in tight.missing}
    assert absent["reranker"].absence is Absence.NO_SHARE
    assert absent["reranker"].smallest_bytes > absent["reranker"].left_bytes


@given(
    spec=st.sampled_from(MACS),
    budget=st.integers(0, 300 * 10**9),
    intent=st.sampled_from(Intent),
    context=st.none() | st.integers(512, 200_000),
    concurrency=st.integers(1, 16),
)
@settings(max_examples=40, deadline=None)
def test_the_tiers_together_always_fit_the_budget(spec, budget, intent, context, concurrency):
    plan = plan_for(
        spec, budget=budget, intent=intent, context_tokens=context, concurrency=concurrency
    )
    assert plan.total_bytes <= budget
    assert plan.total_bytes == sum(each.estimate.memory.with_process_bytes for each in plan.tiers)
    assert {each.kind.name for each in plan.tiers} | {each.tier for each in plan.missing} == {
        "standard",
        "fast",
        "longctx",
    }
    for each in plan.tiers:
        assert each.estimate.workload.concurrency == concurrency
        assert context is None or each.estimate.workload.context_tokens == context


@given(
    spec=st.sampled_from(MACS),
    budget=st.integers(10**9, 200 * 10**9),
    more=st.integers(0, 100 * 10**9),
    intent=st.sampled_from(Intent),
)
@settings(max_examples=40, deadline=None)
def test_a_bigger_budget_never_gives_a_worse_plan(spec, budget, more, intent):
    smaller = plan_for(spec, budget=budget, intent=intent)
    bigger = plan_for(spec, budget=budget + more, intent=intent)
    # For agents, the long-context tier's model may give way to a longer standard context.
    given_way = 0.2 * 0.2 if intent is Intent.AGENT_FLEET else 0
    assert bigger.score >= smaller.score - given_way
    assert len(bigger.tiers) >= len(smaller.tiers)
    if smaller.tiers:
        assert bigger.tiers[0].candidate.quality >= smaller.tiers[0].candidate.quality


@pytest.mark.parametrize("spec", MACS[3:])
@pytest.mark.parametrize("intent", Intent)
def test_a_mac_with_room_gets_three_tiers_that_do_what_they_are_for(spec: str, intent: Intent):
    plan = plan_for(spec, intent=intent)
    standard, fast, long_context = (tier(plan, name) for name in ("standard", "fast", "longctx"))
    assert len({each.candidate.model for each in plan.tiers}) == 3
    assert fast.generation_tps > standard.generation_tps
    assert standard.candidate.quality >= max(fast.candidate.quality, long_context.candidate.quality)
    assert long_context.candidate.keeps_context_cheap
    assert long_context.estimate.workload.context_tokens >= 65_536
    assert fast.candidate.quality >= standard.candidate.quality / 2


@pytest.mark.parametrize("spec", MACS[4:])
def test_room_to_spare_makes_contexts_longer(spec: str):
    roomy = plan_for(spec, intent=Intent.AGENT_FLEET)
    for each in roomy.tiers:
        assert each.estimate.workload.context_tokens >= min(2 * each.kind.context_tokens, 65_536)
    assert any(
        each.estimate.workload.context_tokens > 2 * each.kind.context_tokens for each in roomy.tiers
    )


@pytest.mark.parametrize("spec", MACS)
def test_an_agents_first_prompt_fits_into_every_tier(spec: str):
    for each in plan_for(spec, intent=Intent.AGENT_FLEET).tiers:
        assert each.estimate.workload.context_tokens >= 32_768


@pytest.mark.parametrize("spec", MACS)
def test_a_long_context_tier_of_agents_can_do_their_work_and_never_crowds_out_the_standard(
    spec: str,
):
    plan = plan_for(spec, intent=Intent.AGENT_FLEET)
    standard, long_context = tier(plan, "standard"), tier(plan, "longctx")
    if long_context is not None:
        assert long_context.candidate.entry.capabilities.tool_calling
        assert standard.estimate.workload.context_tokens >= 49_152


@pytest.mark.parametrize("intent", Intent)
def test_a_mac_of_128_gb_gives_people_and_agents_contexts_to_work_in(intent: Intent):
    plan = plan_for("m4-max:40:128", intent=intent)
    contexts = {each.kind.name: each.estimate.workload.context_tokens for each in plan.tiers}
    assert len(contexts) == 3
    assert min(contexts.values()) >= 49_152


def test_a_mac_of_512_gb_plans_the_most_for_agents():
    plan = plan_for("m3-ultra:80:512", intent=Intent.AGENT_FLEET)
    assert min(each.estimate.workload.context_tokens for each in plan.tiers) >= 131_072


def test_a_context_that_was_asked_for_is_not_stretched():
    plan = plan_for("m3-ultra:80:512", context_tokens=20_000)
    assert {each.estimate.workload.context_tokens for each in plan.tiers} == {20_000}


@pytest.mark.parametrize("spec", MACS[4:])
@pytest.mark.parametrize("intent", Intent)
def test_the_fast_tier_of_a_large_mac_is_a_mixture_of_experts(spec: str, intent: Intent):
    assert tier(plan_for(spec, intent=intent), "fast").candidate.shape.is_moe


@pytest.mark.parametrize("spec", ["m1-ultra:64:128", "m2-ultra:60:128"])
def test_where_small_models_are_very_fast_the_fast_tier_is_not_one_of_them(spec: str):
    assert tier(plan_for(spec), "fast").candidate.shape.is_moe


def test_what_asks_for_a_newer_mlx_lm_than_the_engines_is_never_proposed_and_says_why():
    newer = [each for each in candidates() if (each.entry.min_mlx_lm_version or "0") >= "0.32"]
    asked_for = {"ling-3.0-tiny", "minimax-m3", "muse-glimmer-30b"}
    assert {each.model for each in newer} >= {"laguna-xs-2.1", "gemma4-12b", *asked_for}
    for each in newer:
        assert each.exclusion is Exclusion.NEEDS_NEWER
        assert "needs mlx-lm 0.32" in each.excluded_because


def test_a_licence_that_forbids_commercial_use_is_among_the_reasons():
    only = [each for each in candidates() if each.model == "minimax-m2.7"]
    mac = parse_hardware_spec("m3-ultra:80:512")
    plan = make_plan(only, mac, budget_bytes=400 * 10**9)
    assert ReasonKind.NON_COMMERCIAL in {each.kind for each in reasons(plan, plan.tiers[0])}


def test_a_small_mac_gets_fewer_tiers_with_the_reason():
    plan = plan_for("m1:8:8")
    assert [each.kind.name for each in plan.tiers] == ["standard"]
    assert [each.tier for each in plan.missing] == ["fast", "longctx"]
    for each in plan.missing:
        assert each.absence in (Absence.NO_ROOM, Absence.BETTER_WITHOUT)
        assert each.smallest_bytes > each.left_bytes


def test_where_nothing_fits_the_plan_is_empty_and_says_what_the_smallest_would_take():
    plan = plan_for("m1:8:8", budget=10**9)
    assert plan.tiers == ()
    assert plan.score == 0
    assert all(each.absence is Absence.NO_ROOM for each in plan.missing)
    assert all(each.smallest_bytes > 10**9 for each in plan.missing)


def test_an_empty_catalog_gives_an_empty_plan():
    plan = make_plan([], parse_hardware_spec("m4:10:32"), budget_bytes=10**10)
    assert plan.tiers == ()
    assert {each.absence for each in plan.missing} == {Absence.NO_CANDIDATE}


def test_a_context_beyond_what_a_model_was_trained_for_rules_it_out():
    plan = plan_for("m3-ultra:80:512", context_tokens=200_000)
    assert all(each.candidate.entry.max_context_tokens >= 200_000 for each in plan.tiers)


def test_gated_models_are_chosen_only_with_a_token():
    exclusions = {each.model: each.exclusion for each in candidates()}
    assert exclusions["llama3.1-8b"] is Exclusion.GATED
    with_token = {each.model: each.exclusion for each in candidates(allow_gated=True)}
    assert with_token["llama3.1-8b"] is None


def test_what_the_engine_cannot_serve_or_nobody_is_sure_of_is_never_chosen():
    for spec in MACS:
        assert all(
            each.candidate.exclusion is None
            for each in plan_for(spec, intent=Intent.BALANCED).tiers
        )
    exclusions = {each.model: each.exclusion for each in candidates()}
    assert exclusions["nemotron-super-49b"] is not None


def test_components_are_shares_and_the_ranking_is_in_order():
    plan = plan_for("m4-max:40:128")
    for each in plan.ranking:
        parts = each.components
        for part in (parts.speed, parts.quality, parts.tool_calling, parts.memory, each.score):
            assert 0 <= part <= 1
    scores = [each.score for each in plan.ranking]
    assert scores == sorted(scores, reverse=True)


def test_reasons_tell_the_rank_the_factor_and_the_runner_up():
    plan = plan_for("m4-max:40:128")
    told = {
        each.kind.name: {reason.kind: reason for reason in reasons(plan, each)}
        for each in plan.tiers
    }
    standard, fast = tier(plan, "standard"), tier(plan, "fast")
    faster = told["fast"][ReasonKind.FASTER]
    assert faster.model == standard.candidate.model
    assert faster.value == pytest.approx(fast.generation_tps / standard.generation_tps)
    assert told["longctx"][ReasonKind.CHEAP_CONTEXT].value > 0
    assert told["standard"][ReasonKind.QUALITY_RANK].rank >= 1
    assert told["standard"][ReasonKind.RUNNER_UP].size_bytes > 0


def test_an_unknown_machine_still_gets_a_plan_for_its_budget():
    unknown = HardwareProfile(memory_bytes=64 * 2**30)
    plan = make_plan(candidates(), unknown, budget_bytes=budget_bytes(unknown))
    assert tier(plan, "standard") is not None


def test_thousands_of_entries_can_be_planned_at_once():
    many = [
        msgspec.structs.replace(
            entry, id=f"{entry.id}-{index}", params_b=entry.params_b * (1 + index / 997)
        )
        for index in range(5000 // len(CATALOG) + 1)
        for entry in CATALOG
    ][:5000]
    mac = parse_hardware_spec("m4-max:40:128")
    plan = make_plan(
        [candidate_of(entry, "int4", allow_gated=True) for entry in many],
        mac,
        budget_bytes=budget_bytes(mac),
    )
    assert len(plan.tiers) == 3
