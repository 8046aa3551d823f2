"""A tier whose model is divided between Macs, planned for this one: m4-max-64."""

import pytest

from mlx_catalog import Quant, engine_fit, load_catalog
from mlx_recommend import SplitKind, shape_of_entry, split
from mlx_stack.errors import UsageError
from mlx_stack.home import Home
from mlx_stack.models.disk.layout import places_of
from mlx_stack.models.disk.manifest import Manifest, write_manifest
from mlx_stack.models.errors import ModelTooLargeError
from mlx_stack.models.serving import memory_of, serving_of
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.init import Addition, draft_stack
from mlx_stack.planning.recommend import Constraints
from mlx_stack.planning.tiers import PlannedTier
from mlx_stack.stack import Tier

CATALOG = load_catalog()
LARGE = "qwen3.5-122b-a10b"
"""Too large for 64 GB, not for twice as much."""


def planned(home: Home, model: str, *hosts: str, **asked: int) -> PlannedTier:
    addition = Addition(model, "huge", hosts)
    draft = draft_stack(
        OpenStack(home), Constraints(**asked), additions=(addition,), only_additions=True
    )
    return draft.tiers[0]


def served(tier: Tier, **fields: object) -> Tier:
    known = {name: getattr(tier, name) for name in tier.__struct_fields__}
    return Tier(**{**known, **fields})


def test_a_model_that_is_too_large_for_this_mac_is_not_for_two(home: Home):
    with pytest.raises(ModelTooLargeError):
        planned(home, LARGE)
    found = planned(home, LARGE, "studio-b")
    assert [each.host for each in found.tier.workers] == ["studio-b"]
    weights = shape_of_entry(CATALOG.get(LARGE), Quant.INT4).weights_bytes
    assert weights / 2 < found.memory.weights_bytes < weights * 0.55


def test_a_part_that_is_too_large_is_called_one(home: Home):
    with pytest.raises(ModelTooLargeError, match=r"This Mac's part of glm-4\.7"):
        planned(home, "glm-4.7", "studio-b")


def test_three_macs_hold_less_each(home: Home):
    two = planned(home, LARGE, "studio-b").memory.weights_bytes
    assert planned(home, LARGE, "studio-b", "studio-c").memory.weights_bytes < two


def test_the_context_that_is_asked_for_is_planned_for_the_part(home: Home):
    short, long = (planned(home, LARGE, "b", context_tokens=each) for each in (8192, 65_536))
    assert long.tier.context_tokens == 65_536
    assert long.memory.kv_cache_bytes == 8 * short.memory.kv_cache_bytes


@pytest.mark.parametrize(
    ("model", "flags"),
    [
        ("llama3.3-70b", {}),  # by tensor only
        ("qwen3-next-80b-a3b-instruct", {"pipeline": True}),  # by pipeline only
        (LARGE, {"pipeline": True}),  # both, and reads little for a token
    ],
)
def test_it_is_divided_in_the_way_that_is_possible_or_quicker(home: Home, model: str, flags):
    assert planned(home, model, "studio-b").tier.mlx_lm_flags == flags


@pytest.mark.parametrize(
    ("model", "hosts", "word"),
    [
        ("gemma4-31b", ("b",), "can't divide models of the type gemma4"),
        ("llama3.3-70b", ("b", "c"), "64 attention heads can't be divided evenly by 3 Macs"),
        ("bge-m3", ("b",), "embedding"),
    ],
)
def test_what_cannot_be_divided_is_refused_before_it_is_written(
    home: Home, model: str, hosts: tuple[str, ...], word: str
):
    with pytest.raises(UsageError, match=word):
        planned(home, model, *hosts)
    assert not home.stack.exists()


def put_on_disk(home: Home, model: str, *names: str) -> None:
    """The model's folder, with files of these names."""
    tier = planned(home, model, "studio-b").tier
    folder = places_of(home.models, tier.source).published
    folder.mkdir(parents=True)
    for name in ("config.json", *names):
        (folder / name).write_text("{}", encoding="utf-8")
    manifest = Manifest(
        repo=tier.source, revision="0" * 40, quant=tier.quant, origin="downloaded", files=()
    )
    write_manifest(folder, manifest)


def test_layers_that_mlx_lm_cannot_find_are_not_divided(home: Home):
    put_on_disk(home, LARGE)
    assert planned(home, LARGE, "studio-b").tier.mlx_lm_flags == {}


def test_layers_with_an_index_are(home: Home):
    put_on_disk(home, LARGE, "model.safetensors.index.json")
    assert planned(home, LARGE, "studio-b").tier.mlx_lm_flags == {"pipeline": True}


def test_a_model_that_only_has_layers_to_divide_needs_the_index(home: Home):
    put_on_disk(home, "qwen3-next-80b-a3b-instruct")
    with pytest.raises(UsageError) as refused:
        planned(home, "qwen3-next-80b-a3b-instruct", "studio-b")
    assert "model.safetensors.index.json" in str(refused.value.hint)
    assert not home.stack.exists()


@pytest.mark.parametrize("kind", SplitKind)
def test_each_mac_is_planned_for_its_own_part(home: Home, kind: SplitKind):
    tier = planned(home, "glm-4.7", *"bcdefgh").tier  # 92 layers
    tier = served(tier, mlx_lm_flags={"pipeline": True} if kind is SplitKind.PIPELINE else {})
    entry = CATALOG.get("glm-4.7")
    shape, fit = shape_of_entry(entry, tier.quant), engine_fit(entry)
    parts = split(shape, 8, kind).shares
    weights = [memory_of(shape, fit, tier, rank).weights_bytes for rank in range(8)]
    assert weights == [part.shape.weights_bytes for part in parts]
    assert (weights[0] > weights[7]) == (kind is SplitKind.PIPELINE)


def test_an_engine_keeps_as_much_as_the_plan_counts_of_its_part(home: Home):
    found = planned(home, "llama3.3-70b", "studio-b")
    serving = serving_of(CATALOG, found.tier, home.models / "none")
    assert serving.cache_bytes == found.memory.prefix_cache_bytes
