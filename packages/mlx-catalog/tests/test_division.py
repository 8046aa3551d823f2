"""How a model can be divided between Macs: what its configuration tells, and what its type can."""

import pytest

from mlx_catalog import Catalog, Quant, division_of_entry, load_catalog
from mlx_catalog.division import DividedCount, DividedWidth, Division
from mlx_catalog.model_files import describe

LLAMA: dict[str, object] = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
    "max_position_embeddings": 131072,
    "quantization": {"group_size": 64, "bits": 4},
}
QWEN35: dict[str, object] = {
    "model_type": "qwen3_5",
    "tie_word_embeddings": False,
    "text_config": {
        "model_type": "qwen3_5_text",
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
        "vocab_size": 248320,
    },
}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


def division(config: dict[str, object]) -> Division:
    found = describe("mine", config).division
    assert found is not None
    return found


def test_heads_are_dealt_out_and_widths_are_cut_in_whole_groups():
    found = division(LLAMA)
    assert (found.tensor, found.pipeline, found.layers, found.kv_heads) == (True, False, 32, 8)
    assert found.counts == (DividedCount("attention heads", 32), DividedCount("KV heads", 8))
    assert found.widths == (
        DividedWidth("the heads", 4096, 64),
        DividedWidth("the networks", 14336, 64),
    )


def test_weights_that_are_not_quantized_have_no_groups():
    found = division({**LLAMA, "quantization": None, "dtype": "bfloat16"})
    assert {each.group_size for each in found.widths} == {1}


def test_modules_with_groups_of_their_own_are_cut_in_those():
    packing = {
        "group_size": 32,
        "bits": 4,
        "mode": "mxfp4",
        "model.layers.0.self_attn.o_proj": {"group_size": 64, "bits": 8, "mode": "affine"},
    }
    groups = {
        each.words: each.group_size for each in division(LLAMA | {"quantization": packing}).widths
    }
    assert groups == {"the heads": 64, "the networks": 32}


def test_a_hybrid_shares_its_kv_heads_and_divides_its_output_layer():
    found = division(QWEN35)
    assert (found.tensor, found.pipeline, found.divides_output) == (True, True, True)
    assert {each.words: (each.count, each.is_shared) for each in found.counts} == {
        "attention heads": (16, False),
        "KV heads": (4, True),
        "value heads of linear attention": (32, False),
        "key heads of linear attention": (16, False),
        "words of the vocabulary": (248320, False),
    }


def test_an_output_layer_that_is_the_embedding_stays_whole():
    found = division(QWEN35 | {"tie_word_embeddings": True})
    assert not found.divides_output
    assert "words of the vocabulary" not in {each.words for each in found.counts}


def test_what_divides_a_model_is_the_class_of_the_whole_of_it():
    inner = {**LLAMA, "model_type": "ministral3"}
    found = division({"model_type": "mistral3", "text_config": inner})
    assert (found.tensor, found.pipeline) == (False, False)
    assert division(inner).pipeline


def test_latents_are_no_heads_that_could_be_dealt_out(catalog: Catalog):
    found = division_of_entry(catalog.get("deepseek-v3.1"), Quant.INT4)
    assert found is not None
    assert found.kv_heads == 0
    assert [each.words for each in found.counts] == ["attention heads"]
    assert found.whole_params > 0


def test_of_a_type_that_is_not_known_nothing_is_said():
    assert describe("mine", {**LLAMA, "model_type": "no_such_type"}).division is None


@pytest.mark.parametrize(
    ("model", "ways"),
    [
        ("llama3.3-70b", (True, False)),
        ("qwen3-30b-a3b", (True, True)),
        ("qwen3-next-80b-a3b-instruct", (False, True)),
        ("gpt-oss-120b", (True, False)),
        ("gemma4-31b", (False, False)),
        ("qwen3.5-397b-a17b", (True, True)),
    ],
)
def test_an_entry_is_divided_as_its_type_is(catalog: Catalog, model: str, ways: tuple[bool, bool]):
    found = division_of_entry(catalog.get(model), Quant.INT4)
    assert found is not None
    assert (found.tensor, found.pipeline) == ways
