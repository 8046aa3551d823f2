"""Defining a stack: what is written, what is refused, and what stays."""

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlx_catalog import ModelRole, Quant, UnknownModelError
from mlx_recommend import Absence, Intent
from mlx_stack.config import load_config, save_values
from mlx_stack.errors import InvalidFileError, StackError, UsageError
from mlx_stack.home import Home
from mlx_stack.models.disk.manifest import Manifest, write_manifest
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.init import Addition, Draft, draft_stack, write_draft
from mlx_stack.planning.recommend import Constraints
from mlx_stack.planning.tiers import tier_name_of
from mlx_stack.stack import load_stack


def define(home: Home, constraints: Constraints | None = None, **request: object) -> Draft:
    opened = OpenStack(home)
    draft = draft_stack(opened, constraints, **request)
    write_draft(opened, draft)
    return draft


def test_the_recommended_tiers_are_written_with_all_that_a_tier_needs(home: Home):
    draft = define(home)
    stack = load_stack(home.stack)
    assert stack == draft.stack
    assert [tier.name for tier in stack.tiers] == ["standard", "fast", "longctx"]
    assert stack.hardware_profile == "m4-max-64"
    assert stack.intent == "balanced"
    for tier in stack.tiers:
        assert "/" in tier.source
        assert tier.context_tokens
        assert tier.concurrency == 1
    assert draft.total_bytes <= draft.budget_bytes == 64 * 2**30 * 40 // 100
    assert home.gateway_settings.exists()


def test_a_stack_that_is_defined_is_not_overwritten(home: Home):
    define(home)
    before = home.stack.read_text()
    with pytest.raises(StackError, match="already defined"):
        draft_stack(OpenStack(home), Constraints(intent=Intent.AGENT_FLEET))
    assert home.stack.read_text() == before


def test_force_replaces_it_also_when_it_is_damaged(home: Home):
    define(home)
    home.stack.write_text("tiers: [", encoding="utf-8")
    with pytest.raises(InvalidFileError):
        draft_stack(OpenStack(home), additions=(Addition("qwen3-8b"),))
    define(home, Constraints(intent=Intent.AGENT_FLEET), replaces=True)
    assert load_stack(home.stack).intent == "agent-fleet"


def test_an_added_model_gets_a_tier_of_its_own_and_room_in_the_budget(home: Home):
    draft = define(home, additions=(Addition("qwen3-14b", "coder"), Addition("qwen3-0.6b")))
    stack = load_stack(home.stack)
    assert [tier.name for tier in stack.tiers][-2:] == ["coder", "qwen3-0-6b"]
    assert stack.tier("coder").model == "qwen3-14b"
    assert stack.tier("coder").source == "mlx-community/Qwen3-14B-4bit"
    assert draft.total_bytes <= draft.budget_bytes


@pytest.mark.parametrize("name", ["bge-m3", "mlx-community/bge-m3-mlx-4bit"])
def test_an_embedder_of_the_catalog_gets_its_role_and_its_memory(home: Home, name: str):
    draft = define(home, additions=(Addition(name, "embedder"),))
    found = load_stack(home.stack).tier("embedder")
    assert (found.model, found.role, found.context_tokens) == ("bge-m3", "embedding", 8192)
    planned = next(each for each in draft.tiers if each.tier.name == "embedder")
    assert planned.memory_bytes > planned.memory.weights_bytes
    assert planned.generation_tps is None


def test_a_context_that_is_asked_for_is_that_of_the_tiers_that_chat(home: Home):
    added = (Addition("bge-m3"), Addition("soprano-80m"), Addition("qwen3-0.6b"))
    draft = define(home, Constraints(context_tokens=20_000), additions=added)
    contexts = {tier.model: tier.context_tokens for tier in draft.stack.tiers}

    assert contexts["bge-m3"] == 8192, "what it was trained for"
    assert contexts["soprano-80m"] is None, "a voice has none"
    assert contexts["qwen3-0.6b"] == 20_000


def test_a_model_of_two_tiers_is_downloaded_once(home: Home):
    one = define(home, additions=(Addition("qwen3-0.6b", "a"),), only_additions=True)
    two = define(home, additions=(Addition("qwen3-0.6b", "b"),))

    assert [tier.name for tier in two.stack.tiers] == ["a", "b"]
    assert two.pulls == one.pulls == ("qwen3-0.6b",)
    assert two.download_bytes == one.download_bytes


def test_a_whisper_without_its_processor_is_refused_once_it_is_here(home: Home) -> None:
    opened, whisper = OpenStack(home), Addition("whisper-large-v3-turbo", "whisper")
    draft = draft_stack(opened, additions=(whisper,))
    assert draft.stack.tier("whisper").role is ModelRole.SPEECH_TO_TEXT

    folder = home.models / "mlx-community--whisper-large-v3-turbo"
    folder.mkdir(parents=True)
    names = ("config.json", "preprocessor_config.json", "tokenizer.json")
    (folder / names[0]).write_text('{"model_type": "whisper"}')
    header = b"{}".ljust(8)
    (folder / "weights.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    write_manifest(
        folder,
        Manifest(
            repo="mlx-community/whisper-large-v3-turbo",
            revision="0" * 40,
            quant=Quant.BF16,
            origin="downloaded",
            files=(),
            model="whisper-large-v3-turbo",
        ),
    )
    with pytest.raises(UsageError, match="tokenizer and processor") as caught:
        draft_stack(opened, additions=(whisper,))
    assert "mlx-stack pull whisper-large-v3-turbo" in (caught.value.hint or "")

    for name in names[1:]:
        (folder / name).write_text("{}")
    draft = draft_stack(opened, additions=(whisper,))
    assert draft.stack.tier("whisper").role is ModelRole.SPEECH_TO_TEXT


def test_a_model_that_cannot_speak_here_is_refused_for_one_that_can(home: Home) -> None:
    with pytest.raises(UsageError, match="misaki") as caught:
        draft_stack(OpenStack(home), additions=(Addition("kokoro-82m"),))
    assert "mlx-stack init --add soprano-80m" in (caught.value.hint or "")

    draft = draft_stack(OpenStack(home), additions=(Addition("soprano-80m", "speaker"),))
    planned = next(each for each in draft.tiers if each.tier.name == "speaker")
    assert planned.tier.role is ModelRole.TEXT_TO_SPEECH
    assert planned.memory_bytes is not None


def test_a_plan_with_an_embedder_keeps_it_loaded_and_within_the_budget(home: Home):
    roles = (ModelRole.EMBEDDING, ModelRole.RERANK)
    draft = define(home, Constraints(roles=roles))
    found = load_stack(home.stack)
    assert [tier.name for tier in found.tiers][-2:] == ["embedder", "reranker"]
    assert [(tier.role, tier.pinned) for tier in found.tiers][-2:] == [
        (each, True) for each in roles
    ]
    assert draft.total_bytes <= draft.budget_bytes
    with pytest.raises(UsageError, match="--with"):
        draft_stack(OpenStack(home), Constraints(roles=roles), additions=(Addition("qwen3-8b"),))


@pytest.mark.parametrize(
    "request_",
    [
        {"additions": (Addition("all-minilm-l6-v2", "embedder"),)},
        {"removals": ("embedder",)},
    ],
    ids=["replaced", "removed"],
)
def test_an_embedder_that_is_not_planned_leaves_its_share_to_the_chat(
    home: Home, request_: dict[str, Any]
) -> None:
    opened = OpenStack(home)
    usual = {key: value for key, value in request_.items() if key == "additions"}
    budget = Constraints(budget_bytes=14 * 2**30)

    draft = draft_stack(opened, replace(budget, roles=(ModelRole.EMBEDDING,)), **request_)

    plain = draft_stack(opened, budget, **usual)
    assert [each.tier for each in draft.tiers] == [each.tier for each in plain.tiers]


def test_a_usual_tier_can_be_given_to_another_model(home: Home):
    define(home, additions=(Addition("qwen3-8b", "fast"),))
    tiers = load_stack(home.stack).tiers
    assert [tier.name for tier in tiers] == ["standard", "fast", "longctx"]
    assert tiers[1].model == "qwen3-8b"
    assert tiers[1].port == 8001 or tiers[1].port > 8002


def test_changing_a_stack_leaves_its_other_tiers_alone(home: Home):
    before = define(home).stack
    define(home, additions=(Addition("qwen3-8b", "coder"),), removals=("longctx",))
    after = load_stack(home.stack)
    assert [tier.name for tier in after.tiers] == ["standard", "fast", "coder"]
    assert after.tiers[:2] == before.tiers[:2]
    assert after.hardware_profile == before.hardware_profile


def test_removing_a_tier_removes_its_aliases(home: Home):
    define(home)
    text = home.stack.read_text().replace("aliases: {}", "aliases: {cheap: fast, big: standard}")
    home.stack.write_text(text, encoding="utf-8")
    define(home, removals=("fast",))
    assert load_stack(home.stack).aliases == {"big": "standard"}


def test_ports_in_use_are_avoided_and_a_forced_init_keeps_those_of_its_own_stack(home: Home):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        save_values(home, {"litellm-port": taken})
        draft = define(home)
        assert draft.gateway_port != taken
        assert load_config(home).litellm_port == draft.gateway_port
        assert any(str(taken) in note for note in draft.notes)
    ports = {tier.name: tier.port for tier in draft.stack.tiers}
    assert len({*ports.values(), draft.gateway_port}) == 4
    with socket.socket() as engine:  # as a running tier does
        engine.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        engine.bind(("127.0.0.1", ports["standard"]))
        engine.listen()
        again = define(home, replaces=True)
    assert again.stack.tier("standard").port == ports["standard"]


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"removals": ("nope",)}, UsageError),
        ({"additions": (Addition("qwen3-8b", "Not A Name"),)}, UsageError),
        ({"additions": (Addition("qwen3-8b", "gateway"),)}, UsageError),
        ({"additions": (Addition("qwen3-8b", "litellm"),)}, UsageError),
        ({"additions": (Addition("qwen3-8b", "a"), Addition("qwen3-14b", "a"))}, UsageError),
        ({"additions": (Addition("no-such-model"),)}, UnknownModelError),
        ({"constraints": Constraints(budget_bytes=10**9)}, StackError),
        (
            {
                "additions": (Addition("qwen3-8b", "x"),),
                "removals": ("x",),
                "only_additions": True,
            },
            UsageError,
        ),
    ],
    ids=["remove", "name", "reserved", "reserved-too", "twice", "model", "budget", "nothing-left"],
)
def test_what_makes_no_stack_is_refused_and_nothing_is_written(
    home: Home, request_: dict[str, Any], error: type[Exception]
):
    with pytest.raises(error):
        draft_stack(OpenStack(home), **request_)
    assert not home.stack.exists()


@pytest.mark.parametrize("name", ["fast", "mine"])
def test_a_tier_that_is_removed_and_added_again_gets_the_new_model(home: Home, name: str):
    define(home, additions=(Addition("qwen3-8b", "mine"),))
    before = load_stack(home.stack)
    define(home, additions=(Addition("qwen3-4b", name),), removals=(name,))
    after = load_stack(home.stack)
    assert [(each.name, each.port) for each in after.tiers] == [
        (each.name, each.port) for each in before.tiers
    ]
    assert after.tier(name).model == "qwen3-4b"


def test_a_tier_that_is_imported_can_be_left_out(home: Home):
    imported = (Addition("qwen3-8b", "standard"), Addition("qwen3-4b", "fast"))
    draft = define(home, additions=imported, removals=("fast",), only_additions=True)
    assert [each.tier.name for each in draft.tiers] == ["standard"]


def test_more_than_the_budget_is_allowed_on_request_and_said(home: Home):
    draft = define(home, Constraints(budget_bytes=4 * 10**9), additions=(Addition("qwen3-8b"),))
    assert any("more than the budget" in note for note in draft.notes)


def test_a_small_mac_gets_what_fits_with_the_reason_for_the_rest(home: Home, on_mac):
    on_mac("m1:8:8")
    draft = define(home)
    assert [each.tier.name for each in draft.tiers] == ["standard"]
    assert {each.tier for each in draft.missing} == {"fast", "longctx"}
    assert all(isinstance(each.absence, Absence) for each in draft.missing)


def test_tiers_that_are_there_already_keep_their_speed_in_the_table(home: Home, on_mac):
    on_mac("m4-pro:20:48")
    first = {each.tier.name: each.generation_tps for each in define(home).tiers}
    embedder = (Addition("bge-m3", "embedder"),)
    again = {each.tier.name: each for each in define(home, additions=embedder).tiers}
    assert {name: again[name].generation_tps for name in first} == first
    assert None not in first.values()
    assert again["embedder"].generation_tps is None


def test_context_and_concurrency_are_those_asked_for(home: Home):
    for tier in define(home, Constraints(context_tokens=4096, concurrency=3)).stack.tiers:
        assert (tier.context_tokens, tier.concurrency) == (4096, 3)


def test_a_folder_is_served_from_where_it_is(home: Home, tmp_path: Path):
    folder = tmp_path / "My Model"
    folder.mkdir()
    config = {"model_type": "llama", "quantization": {"group_size": 64, "bits": 8}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    draft = define(home, additions=(Addition(str(folder)),), only_additions=True)
    tier = draft.stack.tiers[0]
    assert (tier.name, tier.model, tier.quant) == ("my-model", "My Model", "int8")
    assert tier.source == str(folder)
    assert draft.total_bytes is None


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("qwen3-8b", "qwen3-8b"),
        ("mlx-community/SmolLM2-135M.Instruct", "smollm2-135m-instruct"),
        ("1bit-thing", "m-1bit-thing"),
        ("x" * 40, "x" * 32),
    ],
)
def test_a_tier_is_named_after_its_model(model: str, name: str):
    assert tier_name_of(model) == name
