"""Which model several Macs are proposed to serve together."""

from functools import cache

import pytest

from mlx_catalog import ModelRole, Quant, load_catalog
from mlx_hwprobe import HardwareProfile, parse_hardware_specs
from mlx_recommend import (
    Absence,
    Candidate,
    GroupTier,
    Intent,
    MissingTier,
    ReasonKind,
    TierPlan,
    budget_bytes,
    candidate_of,
    choose_group,
    estimate,
    group_reasons,
    make_plan,
)


@cache
def candidates() -> tuple[Candidate, ...]:
    return tuple(candidate_of(each, Quant.INT4, allow_gated=False) for each in load_catalog())


@cache
def planned(spec: str, roles: tuple[ModelRole, ...] = ()) -> TierPlan:
    first = parse_hardware_specs(spec)[0]
    budget = budget_bytes(first) or 0
    return make_plan(candidates(), first, budget_bytes=budget, intent=Intent.BALANCED, roles=roles)


def chosen(spec: str, **options: object) -> GroupTier | MissingTier:
    return choose_group(candidates(), parse_hardware_specs(spec), planned(spec), **options)


@pytest.mark.parametrize(
    "spec",
    ["m4-max:40:128+m4-max:40:128", "m4-pro:20:64+m4-pro:20:48", "m3-ultra:80:512+m3-ultra:80:512"],
)
def test_what_is_proposed_fits_all_macs_and_not_the_first_alone(spec: str):
    macs: tuple[HardwareProfile, ...] = parse_hardware_specs(spec)
    found = chosen(spec)
    assert isinstance(found, GroupTier)
    assert found.estimate.fits
    assert len(found.estimate.parts) == len(macs)
    work = found.estimate.workload
    assert estimate(found.candidate.shape, macs[0], work).fits is False
    assert found.candidate.entry.role.chats


def test_without_a_model_that_can_be_divided_there_is_no_proposal():
    spec = "m4-max:40:128+m4-max:40:128"
    whole = [each for each in candidates() if each.entry.model_type.startswith("gemma")]
    found = choose_group(whole, parse_hardware_specs(spec), planned(spec))
    assert isinstance(found, MissingTier)
    assert found.absence is Absence.NOTHING_TOGETHER


def test_more_macs_run_larger_models():
    two, four = (chosen("+".join(["m4-max:40:128"] * count)) for count in (2, 4))
    weights = [each.candidate.shape.weights_bytes for each in (two, four)]
    assert weights[1] > weights[0]


def test_the_context_that_is_asked_for_is_planned():
    found = chosen("m4-max:40:128+m4-max:40:128", context_tokens=65_536, concurrency=2)
    work = found.estimate.workload
    assert (work.context_tokens, work.concurrency, work.tokens_in_speed) == (65_536, 2, 65_536)


def test_what_is_never_unloaded_keeps_its_room_on_the_first_mac():
    spec = "m4-max:40:128+m4-max:40:128"
    plan = planned(spec, (ModelRole.EMBEDDING,))
    found = choose_group(candidates(), parse_hardware_specs(spec), plan)
    first, second = found.estimate.parts
    assert second.limit_bytes - first.limit_bytes == plan.reading[0].total_bytes


def test_a_model_that_is_no_better_than_one_alone_says_so():
    plan = planned("m4-max:40:128+m4-max:40:128")
    found = chosen("m4-max:40:128+m4-max:40:128")
    kinds = {each.kind: each for each in group_reasons(plan, found)}
    best = max(tier.candidate.quality for tier in plan.tiers)
    assert (ReasonKind.NO_BETTER in kinds) == ((found.candidate.quality or 0) <= best)
    assert ReasonKind.TOO_LARGE in kinds
