"""What the shipped entries must be, beyond valid."""

import re

import msgspec
import pytest

from mlx_catalog import Catalog, CatalogEntry, ModelRole, Quant, load_catalog
from mlx_catalog.catalog import SHIPPED_MODELS
from mlx_catalog.json_schema import entry_schema


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


def test_there_is_something_for_every_mac_from_8_to_512_gb(catalog: Catalog):
    assert len(catalog) >= 45
    smallest = {
        entry.id: min(entry.weights_bytes(quant) for quant, _ in entry.sources.items()) / 1e9
        for entry in catalog
    }
    for at_least, at_most in ((0, 3), (3, 8), (8, 16), (16, 40), (40, 90), (90, 200), (200, 400)):
        assert any(at_least <= size < at_most for size in smallest.values()), (at_least, at_most)


@pytest.mark.parametrize(
    "tag", ["coding", "reasoning", "tools", "vision", "moe", "hybrid", "small", "long-context"]
)
def test_every_kind_of_model_is_there(catalog: Catalog, tag: str):
    assert len(catalog.filter(tags=[tag])) >= 2


def test_mamba2_hybrids_carry_their_real_architecture(catalog: Catalog):
    attention = {
        entry.id: (entry.geometry.full_attention_layers, entry.geometry.layers)
        for entry in catalog
        if entry.geometry.recurrent is not None and entry.geometry.recurrent.kind == "mamba2"
    }
    assert len(attention) >= 4
    assert attention["nemotron-nano-9b-v2"] == (4, 56)
    assert attention["nemotron-3-nano-30b-a3b"] == (6, 52)
    assert attention["granite-4.0-h-small"] == (4, 40)
    assert attention["falcon-h1-7b"] == (44, 44)


def test_the_gated_deltanet_family_attends_fully_in_every_fourth_layer(catalog: Catalog):
    family = [entry for entry in catalog if "gated-deltanet" in entry.architecture]
    assert {entry.family for entry in family} >= {"qwen3.5", "qwen3.6", "qwen3.8", "qwen3-next"}
    for entry in family:
        assert entry.geometry.full_attention_layers == entry.geometry.layers // 4
        assert entry.geometry.recurrent is not None
        assert entry.geometry.recurrent.layers == entry.geometry.layers * 3 // 4
        assert entry.geometry.state_bytes_per_sequence


@pytest.mark.parametrize(
    ("model", "kv_bytes_per_token"),
    [
        ("qwen3.5-27b", 65536),
        ("qwen3.8-27b", 65536),
        ("qwen3-8b", 147456),
        ("gemma4-31b", 81920),
        ("gemma4-e2b", 6144),
        ("glm-4.7-flash", 54144),
        ("deepseek-v3.1", 70272),
        ("gpt-oss-120b", 36864),
        ("olmo-3-7b", 131072),
        ("kimi-linear-48b-a3b", 8064),
    ],
)
def test_the_cache_grows_by_the_layers_that_grow_only(
    catalog: Catalog, model: str, kv_bytes_per_token: int
):
    growing = catalog.get(model).geometry.growing_kv_elements_per_token
    assert growing is not None
    assert 2 * growing == kv_bytes_per_token


def test_what_was_not_found_is_unknown_and_said_so(catalog: Catalog):
    unknown = {
        entry.id
        for entry in catalog
        if entry.role.chats and entry.geometry.growing_kv_elements_per_token is None
    }
    assert unknown == {
        "deepseek-v4-flash",
        "jamba-reasoning-3b",
        "laguna-xs-2.1",
        "mellum2-12b-a2.5b",
        "minimax-m3",
        "nemotron-super-49b",
        "step-3.5-flash",
    }
    for name in unknown:
        assert any("cache is unknown" in note for note in catalog.get(name).notes), name


def test_every_entry_says_its_embedding_and_its_heads(catalog: Catalog):
    reading = [entry for entry in catalog if entry.role.chats or entry.role.reads_only]
    for entry in reading:
        assert entry.geometry.embedding_params, entry.id
        assert entry.geometry.query_heads, entry.id
    chatting = [entry for entry in reading if entry.role.chats]
    untold = {entry.id for entry in chatting if entry.geometry.tied_embeddings is None}
    assert untold == {
        "deepseek-v4-flash",
        "granite-4.1-8b",  # described as tied, published with two copies
        "granite-4.2-8b",
        "ling-3.0-tiny",
        "minimax-m3",
        "muse-glimmer-30b",
        "nemotron-super-49b",
        "qwen3.8-flash-next",
        "step-3.5-flash",
    }


def test_models_with_vision_say_what_their_towers_take(catalog: Catalog):
    silent = {
        entry.id for entry in catalog if entry.capabilities.vision and not entry.tower_params_b
    }
    assert silent == {"qwen3.8-flash-next"}


@pytest.mark.parametrize(
    ("model", "text_params"),
    [  # counted in published text-only checkpoints
        ("qwen3.5-9b", 8_953_803_264),
        ("gemma3-12b", 11_766_034_176),
        ("mistral-small-3.1-24b", 23_572_403_200),
        ("llama4-scout", 107_769_861_120),
        ("gemma4-31b", 30_697_345_280),
    ],
)
def test_without_its_towers_a_model_is_its_text_model(
    catalog: Catalog, model: str, text_params: int
):
    entry = catalog.get(model)
    assert entry.tower_params_b is not None
    text_b = entry.params_b - entry.tower_params_b - (entry.mtp_params_b or 0)
    assert text_b == pytest.approx(text_params / 1e9, abs=0.02)


@pytest.mark.parametrize(
    ("model", "mlx_params"),
    [  # counted in MLX conversions
        ("qwen3-0.6b", 596_049_920),
        ("glm-4.5-air", 106_852_251_264),
        ("qwen3-next-80b-a3b-instruct", 79_674_388_992),
        ("qwen3.6-27b", 27_356_728_560),
    ],
)
def test_what_is_loaded_is_what_mlx_keeps(catalog: Catalog, model: str, mlx_params: int):
    assert catalog.get(model).loaded_params_b == pytest.approx(mlx_params / 1e9, abs=0.02)


@pytest.mark.parametrize("role", [each for each in ModelRole if not each.chats])
def test_there_is_a_model_for_each_role(catalog: Catalog, role: ModelRole):
    assert len(catalog.filter(role=role))


def test_embedders_say_how_they_make_a_vector_and_how_long_it_is(catalog: Catalog):
    embedders = catalog.filter(role=ModelRole.EMBEDDING)
    assert len(embedders) >= 6
    for entry in embedders:
        assert entry.dimensions, entry.id
        assert entry.pooling, entry.id
        assert entry.matryoshka is not None, entry.id
        assert entry.dimensions == entry.geometry.hidden_size, entry.id


def test_the_entry_of_a_repository_is_known_by_its_last_name_and_type(catalog: Catalog):
    entry = catalog.by_repo_name("qwen3-reranker-0.6b-4bit", "qwen3")
    assert entry is catalog.get("qwen3-reranker-0.6b")
    assert catalog.by_repo_name("Qwen3-Reranker-0.6B", "qwen3") is entry
    assert catalog.by_repo_name("Qwen3-Reranker-0.6B-4bit", "llama") is None
    assert catalog.by_repo_name("no-such-model", "qwen3") is None


def test_a_doubtful_model_is_marked(catalog: Catalog):
    assert catalog.get("nemotron-49b").confidence == "low"
    for entry in catalog:
        assert entry.confidence != "low" or entry.notes, entry.id


def test_no_repository_of_the_unreal_models_is_named(catalog: Catalog):
    unreal = re.compile(
        r"Qwen3\.5-(3|8|14|32|72)B|R1-0528-Qwen3-32B|Nemotron-Mini-8B|Ultra-49B|Llama-3\.3-8B"
    )
    for entry in catalog:
        repos = [entry.hf_base_repo or ""]
        for quant, source in entry.sources.items():
            assert source.source, quant
            repos += [source.hf_repo or "", source.convert_from or ""]
        assert not any(unreal.search(repo) for repo in repos), entry.id


def test_a_mixture_of_experts_is_sized_by_all_of_it(catalog: Catalog):
    for entry in catalog:
        if entry.is_moe:
            assert entry.weights_bytes("int4") > entry.params_b * 1e9 / 8 * 3.5, entry.id


def test_an_estimated_size_says_its_formula_and_a_published_one_its_publisher(catalog: Catalog):
    for entry in catalog:
        for quant, source in entry.sources.items():
            said = source.disk_size_source or ""
            assert said.startswith("estimate") is source.disk_size_estimated, (entry.id, quant)


def test_models_that_see_are_served_by_the_multimodal_half(catalog: Catalog):
    assert catalog.get("qwen3.5-9b").capabilities.vision is True
    assert catalog.get("qwen3-8b").capabilities.vision is False


@pytest.mark.parametrize(
    ("model", "quant", "gb"),
    [
        ("bonsai-8b", "2bit", 2.3),  # as its card says
        ("bonsai-27b", "2bit", 7.7),
        ("qwen3.6-27b", "nvfp4", 15.6),
        ("qwen3.6-35b-a3b", "6bit", 29.2),
        ("gemma4-12b", "int4-qat", 10.7),  # 10 GiB: more than 4 bits a weight
        ("ornith-1.5-9b", "6bit", 7.3),
        ("glm-5.1", "mxfp4", 790),
    ],
)
def test_formats_have_their_real_bits(catalog: Catalog, model: str, quant: str, gb: float):
    assert catalog.get(model).weights_bytes(Quant(quant)) / 1e9 == pytest.approx(gb, rel=0.02)


def test_every_alias_that_is_no_models_name_says_why(catalog: Catalog):
    for alias, name in catalog.aliases.items():
        assert catalog.get(name).alias_notes.get(alias), alias


def test_the_files_are_named_by_family_and_size():
    for file in SHIPPED_MODELS.iterdir():
        assert file.suffix == ".yaml"
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", file.stem)


def test_the_schema_for_editors_is_the_one_of_the_code():
    shipped = SHIPPED_MODELS.parent / "entry.schema.json"
    assert msgspec.json.decode(shipped.read_bytes()) == entry_schema()


def test_an_entry_survives_json(catalog: Catalog):
    for entry in catalog:
        assert msgspec.json.decode(msgspec.json.encode(entry), type=CatalogEntry) == entry
