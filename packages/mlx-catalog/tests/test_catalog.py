from pathlib import Path

import pytest

from mlx_catalog import Catalog, UnknownModelError, load_catalog
from mlx_catalog.parse import parse_entry


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


@pytest.mark.parametrize(
    ("asked", "answer", "note"),
    [
        ("qwen3.5-0.8b", "qwen3.5-0.8b", ""),
        ("qwen3.5-3b", "qwen3.5-4b", "No Qwen3.5 of 3B was ever published"),
        ("qwen3.5-8b", "qwen3.5-9b", "No Qwen3.5 of 8B was ever published"),
        ("qwen3.5-14b", "qwen3.5-9b", "No Qwen3.5 of 14B was ever published"),
        ("qwen3.5-32b", "qwen3.5-27b", "No Qwen3.5 of 32B was ever published"),
        ("qwen3.5-72b", "qwen3.5-122b-a10b", "No Qwen3.5 of 72B was ever published"),
        ("gemma3-4b", "gemma3-4b", ""),
        ("gemma3-12b", "gemma3-12b", ""),
        ("gemma3-27b", "gemma3-27b", ""),
        ("deepseek-r1-8b", "deepseek-r1-0528-qwen3-8b", "dense transformer"),
        ("deepseek-r1-32b", "deepseek-r1-distill-qwen-32b", "dense transformer"),
        ("nemotron-8b", "nemotron-nano-8b", "Nemotron-Mini is a 4B"),
        ("nemotron-49b", "nemotron-super-49b", "Nemotron-Ultra has 253B"),
        ("qwen3-8b", "qwen3-8b", ""),
        ("llama3.3-8b", "llama3.1-8b", "at 70B only"),
    ],
)
def test_each_of_the_first_ids_leads_to_a_real_model_and_says_why(
    catalog: Catalog, asked: str, answer: str, note: str
):
    found = catalog.resolve(asked)
    assert found.entry.id == answer
    assert note in found.note
    assert bool(found.note) is bool(note)
    assert catalog.get(asked) is found.entry


def test_names_are_found_in_any_case_and_with_blanks_around(catalog: Catalog):
    assert catalog.get(" Qwen3-8B ").id == "qwen3-8b"


@pytest.mark.parametrize(
    ("asked", "near"),
    [("qwen3.5-28b", "qwen3.5-27b"), ("gpt-oss", "gpt-oss-20b"), ("lama3.1-8b", "llama3.1-8b")],
)
def test_a_miss_names_the_nearest(catalog: Catalog, asked: str, near: str):
    with pytest.raises(UnknownModelError) as caught:
        catalog.get(asked)
    assert near in caught.value.close_matches
    assert near in str(caught.value)


def test_a_hopeless_miss_names_nothing(catalog: Catalog):
    with pytest.raises(UnknownModelError) as caught:
        catalog.get("zzzz")
    assert caught.value.close_matches == ()


def test_an_entry_is_found_by_its_repositories(catalog: Catalog):
    assert catalog.by_repo("mlx-community/Qwen3-8B-8bit") is catalog.get("qwen3-8b")
    assert catalog.by_repo("qwen/qwen3-8b") is catalog.get("qwen3-8b")
    assert catalog.by_repo("mlx-community/no-such-model") is None
    assert catalog.get("qwen3-8b").quant_of("MLX-community/qwen3-8b-8bit") == "int8"
    assert catalog.get("qwen3-8b").quant_of("Qwen/Qwen3-8B") == "bf16"
    assert catalog.get("qwen3-8b").quant_of("Qwen/Qwen3-14B") is None


def test_filters_join(catalog: Catalog):
    found = catalog.filter(family="qwen3.5", tags=["moe"], vision=True, max_params_b=130)
    assert [entry.id for entry in found] == ["qwen3.5-35b-a3b", "qwen3.5-122b-a10b"]


def test_a_family_is_found_by_the_start_of_its_name(catalog: Catalog):
    families = {entry.family for entry in catalog.filter(family="Gemma")}
    assert families == {"gemma3", "gemma3n", "gemma4"}


def test_what_is_unknown_of_an_entry_meets_no_condition_on_it(catalog: Catalog):
    unknown = {entry.id for entry in catalog if entry.capabilities.tool_calling is None}
    assert unknown
    for answer in (True, False):
        found = {entry.id for entry in catalog.filter(tool_calling=answer)}
        assert not found & unknown


def test_entries_come_by_family_and_size(catalog: Catalog):
    order = [(entry.family, entry.params_b) for entry in catalog]
    assert order == sorted(order)


def test_a_users_entry_is_added(entry_folder: Path):
    catalog = load_catalog(entry_folder)
    assert catalog.get("lynx").id == "lynx-7b"
    assert "qwen3-8b" in catalog


def test_a_users_entry_replaces_the_shipped_one_of_its_id(entry_folder: Path, entry_text: str):
    own = entry_text.replace("id: lynx-7b", "id: qwen3-8b")
    (entry_folder / "lynx-7b.yaml").rename(entry_folder / "qwen3-8b.yaml").write_text(own)
    catalog = load_catalog(entry_folder)
    assert catalog.get("qwen3-8b").name == "Lynx 7B"
    assert len(catalog) == len(load_catalog())


def test_a_users_alias_and_id_win_over_shipped_aliases(entry_folder: Path, entry_text: str):
    own = entry_text.replace("aliases: [lynx]", "aliases: [qwen3.5-3b]")
    (entry_folder / "lynx-7b.yaml").write_text(own)
    named = entry_text.replace("id: lynx-7b", "id: nemotron-8b").replace("aliases: [lynx]\n", "")
    (entry_folder / "nemotron-8b.yaml").write_text(named)
    catalog = load_catalog(entry_folder)
    assert catalog.get("qwen3.5-3b").id == "lynx-7b"
    assert catalog.get("nemotron-8b").id == "nemotron-8b"
    assert catalog.aliases["qwen3.5-8b"] == "qwen3.5-9b"


def test_a_folder_that_does_not_exist_has_no_entries(tmp_path: Path):
    assert len(load_catalog(tmp_path / "none")) == len(load_catalog())


def test_weights_are_the_published_size_or_parameters_times_bits(entry_text: str):
    entry = parse_entry(entry_text, "lynx-7b.yaml").entry
    assert entry is not None
    assert entry.weights_bytes("int4") == 4_100_000_000
    assert entry.weights_bytes("bf16") == 14_500_000_000


def test_a_name_in_any_case_is_in_the_catalog_and_keeps_its_note():
    catalog = load_catalog()
    assert "QWEN3.5-14B" in catalog
    assert catalog.resolve("QWEN3.5-14B").note == catalog.resolve("qwen3.5-14b").note != ""
    assert 5 not in catalog
