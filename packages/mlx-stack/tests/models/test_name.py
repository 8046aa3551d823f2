import pytest

from mlx_catalog import UnknownModelError, load_catalog
from mlx_stack.errors import UsageError
from mlx_stack.models.name import find_in_catalog, parse_repo


@pytest.mark.parametrize(
    ("name", "repo", "revision"),
    [
        ("org/model", "org/model", "main"),
        ("org/model@v1.0", "org/model", "v1.0"),
        ("https://huggingface.co/org/model", "org/model", "main"),
        ("https://huggingface.co/org/model/tree/v2", "org/model", "v2"),
        ("https://huggingface.co/org/model/tree/refs%2Fpr%2F1", "org/model", "refs/pr/1"),
        ("https://huggingface.co/org/model/blob/main/config.json", "org/model", "main"),
    ],
)
def test_a_repository_is_understood_however_it_is_written(name: str, repo: str, revision: str):
    source = parse_repo(name, None)
    assert source is not None
    assert (source.repo, source.revision, source.quant) == (repo, revision, None)


@pytest.mark.parametrize("name", ["qwen3-8b", "a/b/c", "../a", "https://huggingface.co"])
def test_other_names_are_left_to_the_catalog(name: str):
    assert parse_repo(name, None) is None


def test_a_catalog_id_means_ready_weights_of_the_configured_precision():
    source = find_in_catalog(load_catalog(), "qwen3-8b", None, "int4")
    assert source.repo == "mlx-community/Qwen3-8B-4bit"
    assert (source.quant, source.is_converted, source.model) == ("int4", False, "qwen3-8b")
    asked = find_in_catalog(load_catalog(), "qwen3-8b", "int8", "int4")
    assert asked.repo == "mlx-community/Qwen3-8B-8bit"


def test_an_alias_says_which_model_answers_to_it():
    source = find_in_catalog(load_catalog(), "qwen3.5-8b", None, "int4")
    assert source.model == "qwen3.5-9b"
    assert "nearest" in source.note


def test_weights_that_nobody_published_are_converted():
    source = find_in_catalog(load_catalog(), "deepseek-r1-distill-qwen-7b", "int8", "int4")
    assert source.repo == "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
    assert source.is_converted
    whole = find_in_catalog(load_catalog(), "deepseek-r1-distill-qwen-7b", "bf16", "int4")
    assert not whole.is_converted


def test_a_precision_that_is_not_known_names_those_that_are():
    catalog = load_catalog()
    lacking = next(
        (entry, quant)
        for entry in catalog
        for quant in ("bf16", "int8", "int4")
        if entry.sources.get(quant) is None and entry.sources.items()
    )
    entry, quant = lacking
    with pytest.raises(UsageError, match=f"No {quant} weights") as refused:
        find_in_catalog(catalog, entry.id, quant, "int4")
    assert "--quant" in str(refused.value.hint)


def test_a_mistyped_name_gets_the_nearest_ones():
    with pytest.raises(UnknownModelError, match="qwen3-8b"):
        find_in_catalog(load_catalog(), "qwen3-8bb", None, "int4")
