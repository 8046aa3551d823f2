"""At what precision MLX keeps weights, from what configurations say of it."""

from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_catalog import Quant
from mlx_catalog.config_json import read_config
from mlx_catalog.model_files import ModelReading, describe
from mlx_catalog.safetensors import Tensor
from mlx_catalog.weights import TensorRole

HIDDEN, LAYERS, VOCAB, WIDE = 1024, 6, 4096, 2816
EMBEDDING = VOCAB * HIDDEN
ATTENTION = {"q_proj": HIDDEN, "k_proj": 256, "v_proj": 256, "o_proj": HIDDEN}
MATRICES = LAYERS * (HIDDEN * sum(ATTENTION.values()) + 3 * HIDDEN * WIDE)
LLAMA: dict[str, object] = {
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": WIDE,
    "vocab_size": VOCAB,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
}
GROUPS = {"all": {"weights": {"num_bits": 4, "group_size": 128, "type": "int"}}}
INT4 = {"quant_method": "compressed-tensors", "config_groups": GROUPS}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic"}


def of(config: dict[str, object], **more: object) -> ModelReading:
    return describe("example", {**config, **more})


def packed(**said: object) -> ModelReading:
    return of(LLAMA, quantization_config=said)


@pytest.mark.parametrize(
    "packing",
    [
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        {"quant_method": "gptq", "bits": 4, "group_size": -1},
        {"quant_method": "awq", "bits": 4},
        {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 3}}},
        {"quant_method": "torchao", "quant_type": "int4_weight_only"},
        {"quant_method": "modelopt", "quant_algo": "NVFP4"},
        {"quant_method": "fbgemm_fp8"},
        {"quant_method": "bitnet", "linear_class": "autobitlinear"},
        {"quant_method": "vptq", "config_for_layers": {}},
        {"quant_method": "exl3", "bits": 2.75},
        {"quant_method": "higgs", "bits": 4, "group_size": 256},
        {"quant_method": "compressed-tensors", "config_groups": {}},
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"a": {"weights": {"num_bits": 8, "type": "float"}}},
        },
        {"bits": 4},
        "4bit",
    ],
    ids=str,
)
def test_an_unknown_packing_has_no_size_and_says_so(packing: object):
    reading = of(LLAMA, quantization_config=packing)
    assert reading.params == MATRICES + 2 * EMBEDDING
    assert (reading.weights_bytes, reading.bits_per_weight, reading.quant) == (None, None, None)
    assert reading.quantization == ""
    assert not reading.is_plain
    assert reading.notes


@pytest.mark.parametrize(
    ("packing", "bits"),
    [
        (INT4, 5.0),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, 4.5),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 4.25),
    ],
    ids=["compressed-tensors", "awq", "gptq"],
)
def test_vendors_pack_the_matrices_of_layers_and_nothing_else(packing: object, bits: float):
    reading = of(LLAMA, quantization_config=packing)
    assert reading.weights_bytes == round(MATRICES * bits / 8 + 2 * EMBEDDING * 2)
    assert reading.notes == ()


def test_a_packing_counts_where_a_multimodal_configuration_has_it():
    nested = {"model_type": "mistral3", "vision_config": {}, "dtype": "bfloat16"}
    text = {**LLAMA, "model_type": "mistral"}
    inside = of(nested, text_config={**text, "quantization_config": INT4})
    assert inside.weights_bytes == of(LLAMA, quantization_config=INT4).weights_bytes
    unknown = of(nested, text_config={**text, "quantization_config": {"quant_method": "quark"}})
    assert unknown.weights_bytes is None


def test_mlx_s_own_words_beat_a_vendor_s():
    own = {"group_size": 32, "bits": 8}
    reading = of(LLAMA, quantization=own, quantization_config={"quant_method": "quark"})
    assert (reading.bits_per_weight, reading.quant) == (9.0, Quant.INT8)


@pytest.mark.parametrize(
    "model_type", ["deepseek_v3", "kimi_k2", "minimax", "minimax_m2", "ministral3", "mimo_v2_flash"]
)
def test_fp8_takes_16_bits_where_mlx_turns_it_into_them(model_type: str):
    reading = of(LLAMA, model_type=model_type, quantization_config=FP8)
    assert (reading.bits_per_weight, reading.quant) == (16.0, Quant.BF16)
    assert reading.is_plain
    assert any("twice" in note for note in reading.notes)


def test_fp8_that_mlx_does_not_load_has_no_size():
    reading = packed(**FP8)
    assert (reading.weights_bytes, reading.quant, reading.is_plain) == (None, None, False)
    assert "does not load" in reading.notes[0]


def test_fp8_in_blocks_is_packed_again_where_there_is_a_tower_for_images():
    blocks = {**FP8, "weight_block_size": [128, 128]}
    assert of(LLAMA, vision_config={}, quantization_config=blocks).quantization == "8-bit"


def test_the_size_of_a_vendor_s_fp8_files_is_half_of_what_they_take():
    config = {"model_type": "minimax_m2", "quantization_config": FP8}
    reading = describe("example", config, file_bytes=10_000_000)
    assert reading.weights_bytes == 20_000_000


@pytest.mark.parametrize(
    ("dtype", "bits", "quant"),
    [("bfloat16", 16, "bf16"), ("float16", 16, "bf16"), ("float32", 32, None)],
)
def test_plain_weights_are_as_large_as_their_type(dtype: str, bits: float, quant: str | None):
    reading = of(LLAMA, torch_dtype=dtype)
    assert (reading.bits_per_weight, reading.quant, reading.is_plain) == (bits, quant, True)


def test_16_bits_that_nobody_named_are_assumed_and_it_is_said():
    reading = of({key: value for key, value in LLAMA.items() if key != "torch_dtype"})
    assert reading.bits_per_weight == 16
    assert "are assumed" in reading.notes[0]
    assert of(LLAMA, torch_dtype="float4_e2m1").bits_per_weight is None


@pytest.mark.parametrize(
    ("quant", "bits_per_weight"),
    [
        *((Quant.INT2, 2.5), (Quant.INT3, 3.5), (Quant.INT5, 5.5), (Quant.INT6, 6.5)),
        *((Quant.MXFP4, 4.25), (Quant.MXFP8, 8.25), (Quant.NVFP4, 4.5)),
    ],
)
def test_a_format_is_known_by_its_bits_and_mlx_s_mode(quant: Quant, bits_per_weight: float):
    assert quant.bits_per_weight == bits_per_weight
    packing = {"bits": quant.bits, "group_size": quant.group_size, "mode": quant.mode}
    reading = of(LLAMA, quantization=packing)
    assert reading.quant is quant
    assert reading.bits_per_weight == pytest.approx(bits_per_weight, rel=0.01)


@pytest.mark.parametrize("quant", [Quant.INT4_DWQ, Quant.INT4_QAT])
def test_how_4_bits_came_about_is_not_read_from_files(quant: Quant):
    assert not quant.is_made_here
    assert quant.read_as is Quant.INT4


def test_experts_alone_are_packed_in_a_vendor_s_mxfp4():
    experts = {"num_local_experts": 4, "num_experts_per_tok": 1, "sliding_window": 128}
    config = {**LLAMA, **experts, "model_type": "gpt_oss"}
    weights = of(config, quantization_config={"quant_method": "mxfp4"}).weights
    assert weights is not None
    assert weights.size_bytes is not None
    each = {
        role: weights.size_bytes[role] * 8 / weights.params[role] for role in weights.size_bytes
    }
    assert each[TensorRole.ROUTED] == 4.25
    assert each[TensorRole.DENSE] == each[TensorRole.OUTPUT] == each[TensorRole.LOOKED_UP] == 16


@pytest.mark.parametrize(
    ("share", "quant"), [(0, "int4"), (1 / 6, "int4"), (0.5, None), (1, "int8")]
)
def test_a_mix_is_named_by_the_precision_of_two_thirds(share: float, quant: str | None):
    eight = {
        f"model.layers.{layer}.{module}": {"group_size": 64, "bits": 8}
        for layer in range(round(LAYERS * share))
        for module in ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "self_attn.q_proj")
    }
    rest = {name: {"group_size": 64, "bits": 8} for name in ("lm_head", "model.embed_tokens")}
    scheme = {"group_size": 64, "bits": 4, **eight, **(rest if share == 1 else {})}
    assert of(LLAMA, quantization=scheme).quant == quant


MODULES = {
    "model.embed_tokens": (VOCAB, HIDDEN),
    "lm_head": (VOCAB, HIDDEN),
    **{
        f"model.layers.{layer}.self_attn.{name}": (rows, HIDDEN)
        for layer in range(LAYERS)
        for name, rows in ATTENTION.items()
    },
    **{
        f"model.layers.{layer}.mlp.{name}": shape
        for layer in range(LAYERS)
        for name, shape in (
            ("gate_proj", (WIDE, HIDDEN)),
            ("up_proj", (WIDE, HIDDEN)),
            ("down_proj", (HIDDEN, WIDE)),
        )
    },
}


def tensors(bits_of: dict[str, int]) -> dict[str, Tensor]:
    """What MLX writes for the modules at these bits, in groups of 64; 16 is unquantized."""
    found: dict[str, Tensor] = {}
    for name, (rows, columns) in MODULES.items():
        bits = bits_of[name]
        if bits == 16:
            found[f"{name}.weight"] = Tensor("BF16", (rows, columns))
            continue
        found[f"{name}.weight"] = Tensor("U32", (rows, columns * bits // 32))
        for part in ("scales", "biases"):
            found[f"{name}.{part}"] = Tensor("BF16", (rows, columns // 64))
    return found


widths = st.sampled_from([2, 3, 4, 5, 6, 8, 16])


@settings(max_examples=60, deadline=None)
@given(
    default=widths.filter(lambda bits: bits != 16),
    bits=st.lists(widths, min_size=len(MODULES), max_size=len(MODULES)),
    is_tied=st.booleans(),
)
def test_a_token_reads_what_the_files_hold_but_the_embedding_and_never_more(
    default: int, bits: list[int], is_tied: bool
):
    bits_of = dict(zip(MODULES, bits, strict=True))
    scheme: dict[str, object] = {"group_size": 64, "bits": default}
    for name, each in bits_of.items():
        if each != default:
            scheme[name] = False if each == 16 else {"group_size": 64, "bits": each}
    config = {**LLAMA, "tie_word_embeddings": is_tied, "quantization": scheme}
    files = tensors(bits_of)
    if is_tied:
        files = {name: each for name, each in files.items() if not name.startswith("lm_head")}
    sizes = {name: each.size_bytes for name, each in files.items()}
    embedding = sum(size for name, size in sizes.items() if "embed_tokens" in name)

    weights = describe("example", config, files).weights
    assert weights is not None
    assert weights.total_bytes == sum(sizes.values())
    assert weights.read_bytes == sum(sizes.values()) - (0 if is_tied else embedding)

    counted = describe("example", config).weights  # from the exceptions in config.json alone
    assert counted is not None
    assert counted.total_bytes == pytest.approx(weights.total_bytes, rel=1e-6)
    assert counted.read_bytes == pytest.approx(weights.read_bytes, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1000, 10**12),
    packing=st.sampled_from([{}, INT4, FP8, {"quant_method": "quark"}]),
    active=st.integers(1, 16),
)
def test_a_token_never_reads_more_than_files_of_any_size_hold(
    size: int, packing: dict[str, object], active: int
):
    experts = {"num_local_experts": 8, "num_experts_per_tok": active}
    config = {**LLAMA, **experts, "model_type": "mixtral"}
    if packing:
        config["quantization_config"] = packing
    weights = describe("example", config, file_bytes=size).weights
    assert weights is not None
    assert weights.total_bytes == size
    assert weights.read_bytes is not None
    assert 0 < weights.read_bytes <= size


def test_the_headers_of_another_s_packing_tell_the_size_and_what_a_token_reads():
    rows = {"qweight": "I32", "scales": "F16"}
    files = {
        f"{name}.{part}": Tensor(dtype, (shape[0], shape[1] // 8))
        for name, shape in MODULES.items()
        for part, dtype in rows.items()
    }
    total = sum(prod(shape) // 8 * 6 for shape in MODULES.values())
    reading = describe("example", {**LLAMA, "quantization_config": {"quant_method": "x"}}, files)
    assert reading.weights_bytes == total
    assert reading.params == MATRICES + 2 * EMBEDDING
    assert reading.weights is not None
    assert reading.weights.read_bytes == total - EMBEDDING // 8 * 6
    assert reading.notes


def test_fp8_files_are_weighed_as_the_16_bits_that_they_become():
    files = {
        "model.layers.0.mlp.up_proj.weight": Tensor("F8_E4M3", (256, 512)),
        "model.layers.0.mlp.up_proj.weight_scale_inv": Tensor("F32", (2, 4)),
        "model.embed_tokens.weight": Tensor("BF16", (100, 512)),
    }
    config = {**LLAMA, "model_type": "ministral3", "quantization_config": FP8}
    reading = describe("example", config, files)
    assert reading.weights_bytes == 2 * (256 * 512 + 100 * 512)
    assert reading.params == 256 * 512 + 100 * 512
    assert reading.quant == "bf16"


def test_a_configuration_without_a_packing_notes_nothing():
    assert read_config(LLAMA).precision.notes == ()
