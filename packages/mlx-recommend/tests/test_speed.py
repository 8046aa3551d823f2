"""Speeds, against published measurements and against what physics allows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_catalog import load_catalog
from mlx_catalog.model_files import describe
from mlx_hwprobe import HardwareProfile, parse_hardware_spec
from mlx_recommend import (
    Basis,
    Drafts,
    Estimate,
    RecommendError,
    Speed,
    Workload,
    estimate,
    shape_of_entry,
    shape_of_model,
)
from mlx_recommend.speed import speed_with_drafts

CATALOG = load_catalog()

PUBLISHED = [
    # mlx-lm 0.28.2's BENCHMARKS.md
    ("m4-max:40:64", "qwen3-4b-instruct-2507", "int4", 2048, 134.5, 1622),
    ("m4-max:40:64", "qwen3-4b-instruct-2507", "bf16", 2048, 52.5, 1781),
    ("m4-max:40:64", "qwen3-30b-a3b-instruct-2507", "int4", 2048, 113.3, 1754),
    # mlx_transformers_benchmark
    ("m4-pro:20:24", "qwen3-8b", "int4", 1024, 51.8, 414),
    ("m4-pro:20:24", "gemma3-1b", "int4", 4096, 216.1, 3183),
    ("m4-pro:20:24", "qwen3-0.6b", "int4", 4096, 209.1, 3951),
    # Rapid-MLX's community benchmarks
    ("m3-ultra:60:256", "llama3.1-8b", "int4", 2048, 110.5, 1194),
    ("m2-max:38:32", "qwen3.5-9b", "int4", 2048, 62.0, 397),
    # ax-engine's reference runs of mlx-lm
    ("m5-max:40:128", "qwen3.6-35b-a3b", "int4", 2048, 145.8, 3699),
    ("m5-max:40:128", "gemma4-31b", "int4", 2048, 27.1, 757),
]


def bare(spec: str, model: str, quant: str, tokens: int, concurrency: int = 1) -> Estimate:
    shape = shape_of_entry(CATALOG.get(model), quant)
    work = Workload(context_tokens=tokens, concurrency=concurrency, speed_context_tokens=None)
    return estimate(shape, parse_hardware_spec(spec), work)


@pytest.mark.parametrize(("spec", "model", "quant", "tokens", "decode", "prefill"), PUBLISHED)
def test_the_stated_range_holds_what_others_measured(spec, model, quant, tokens, decode, prefill):
    expected = bare(spec, model, quant, tokens)
    for speed, measured in ((expected.generation_tps, decode), (expected.prompt_tps, prefill)):
        assert speed is not None
        assert speed.basis is Basis.ESTIMATE
        assert speed.low <= measured <= speed.high
    assert expected.generation_tps.value == pytest.approx(decode, rel=0.15)


def test_an_unread_embedding_and_idle_experts_cost_memory_but_no_time():
    dense = bare("m4-max:40:128", "qwen3-32b", "int4", 1024)
    sparse = bare("m4-max:40:128", "qwen3-30b-a3b", "int4", 1024)
    assert sparse.generation_tps.value > 3 * dense.generation_tps.value
    assert sparse.memory.weights_bytes == pytest.approx(dense.memory.weights_bytes, rel=0.1)


@pytest.mark.parametrize("model", ["qwen3-8b", "gpt-oss-20b", "nemotron-3-nano-30b-a3b"])
def test_requests_side_by_side_each_get_less_and_together_more(model):
    alone = bare("m4-max:40:128", model, "int4", 4096).generation_tps.value
    shared = bare("m4-max:40:128", model, "int4", 4096, concurrency=4).generation_tps.value
    assert alone / 4 < shared < alone


@given(
    tokens=st.integers(1, 200_000),
    more=st.integers(1, 50_000),
    model=st.sampled_from(["qwen3-8b", "qwen3.5-9b", "gemma3-4b", "glm-4.7-flash"]),
)
def test_more_context_is_never_faster(tokens: int, more: int, model: str):
    short = bare("m3-max:40:128", model, "int4", tokens).generation_tps
    long = bare("m3-max:40:128", model, "int4", tokens + more).generation_tps
    assert long.value <= short.value


@pytest.mark.parametrize(
    ("slower", "faster"),
    [
        ("m1:8:16", "m1-pro:16:32"),
        ("m4:10:32", "m4-pro:20:24"),
        ("m3-max:30:36", "m3-max:40:48"),
        ("m4-max:32:36", "m4-max:40:64"),
        ("m5:10:32", "m6:12:32"),
        ("m1-max:32:64", "m2-max:38:64"),
    ],
)
def test_a_wider_or_newer_chip_is_faster(slower: str, faster: str):
    for model in ("qwen3-8b", "qwen3.5-27b"):
        less = bare(slower, model, "int4", 1024)
        more = bare(faster, model, "int4", 1024)
        assert less.generation_tps.value < more.generation_tps.value
        assert less.prompt_tps.value < more.prompt_tps.value


def test_matrix_units_make_prefill_several_times_faster():
    m4 = bare("m4-max:40:128", "qwen3-14b", "int4", 2048).prompt_tps
    m5 = bare("m5-max:40:128", "qwen3-14b", "int4", 2048).prompt_tps
    assert m5.value > 2.5 * m4.value


def test_a_chip_nobody_measured_gets_a_wider_range():
    known = bare("m4:10:16", "qwen3-8b", "int4", 1024).generation_tps
    unknown = bare("m6:12:16", "qwen3-8b", "int4", 1024).generation_tps
    assert unknown.high / unknown.low > known.high / known.low


@pytest.mark.parametrize(
    "hardware",
    [
        HardwareProfile(),
        HardwareProfile(chip="AMD EPYC 7763", memory_bytes=2**35, memory_bandwidth_gb_s=200),
        HardwareProfile(chip="M4", memory_bytes=2**34),
        HardwareProfile(
            chip="M1", memory_bytes=7 * 2**30, memory_bandwidth_gb_s=68, is_virtual_machine=True
        ),
    ],
    ids=["nothing-known", "no-apple-chip", "no-bandwidth", "virtual-machine"],
)
def test_where_the_machine_is_unknown_no_speed_is_invented(hardware: HardwareProfile):
    expected = estimate(shape_of_entry(CATALOG.get("qwen3-8b"), "int4"), hardware)
    assert expected.generation_tps is None
    assert expected.prompt_tps is None
    assert expected.ttft_s is None


def test_without_the_number_of_gpu_cores_there_is_decode_speed_but_no_prefill():
    machine = HardwareProfile(chip="M4 Pro", memory_bytes=2**35, memory_bandwidth_gb_s=273)
    expected = estimate(shape_of_entry(CATALOG.get("qwen3-8b"), "int4"), machine)
    assert expected.generation_tps is not None
    assert expected.prompt_tps is None


def test_a_small_chip_with_an_a_in_its_name_is_taken_for_what_it_is():
    neo = bare("a18-pro:5:8", "qwen3-0.6b", "int4", 512)
    m1 = bare("m1:8:8", "qwen3-0.6b", "int4", 512)
    assert 0.5 < neo.generation_tps.value / m1.generation_tps.value < 2


def test_a_models_own_config_json_gives_the_same_as_the_catalog():
    config = {
        "model_type": "qwen3",
        "num_hidden_layers": 36,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": False,
        "max_position_embeddings": 40960,
        "quantization": {"group_size": 64, "bits": 4},
    }
    shape = shape_of_model(describe("mine", config))
    assert shape is not None
    machine = parse_hardware_spec("m4-pro:20:24")
    mine = estimate(shape, machine)
    listed = estimate(shape_of_entry(CATALOG.get("qwen3-8b"), "int4"), machine)
    assert mine.generation_tps.value == pytest.approx(listed.generation_tps.value, rel=0.03)
    assert mine.memory.total_bytes == pytest.approx(listed.memory.total_bytes, rel=0.03)
    assert mine.max_context_tokens == 40960


def test_a_config_json_of_an_unknown_architecture_is_not_guessed_at():
    assert shape_of_model(describe("odd", {"model_type": "brand_new", "hidden_size": 64})) is None


def test_an_unknown_architecture_that_is_too_big_by_its_weights_does_not_fit():
    config = {"model_type": "brand_new", "num_hidden_layers": 40, "torch_dtype": "bfloat16"}
    shape = shape_of_model(describe("odd", config, file_bytes=20_000_000_000))
    assert shape is not None
    assert estimate(shape, parse_hardware_spec("m2:8:8")).fits is False
    roomy = estimate(shape, parse_hardware_spec("m4-max:40:128"))
    assert roomy.fits is None
    assert roomy.memory.weights_bytes == 20_000_000_000
    assert (roomy.memory.kv_cache_bytes, roomy.memory.state_bytes) == (None, None)
    assert (roomy.generation_tps, roomy.prompt_tps, roomy.max_context_tokens) == (None, None, None)


def test_weights_alone_are_told_where_nothing_else_is():
    shape = shape_of_model(describe("odd", {"model_type": "brand_new"}, file_bytes=5_000_000_000))
    assert shape is not None
    assert shape.weights_bytes == 5_000_000_000


def test_the_cache_is_told_where_the_parameters_are_not():
    config = {
        "model_type": "llama",
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
    }
    shape = shape_of_model(describe("narrow", config))
    assert shape is not None
    found = estimate(shape, parse_hardware_spec("m4-max:40:128"), Workload(context_tokens=8192))
    assert found.memory.kv_cache_bytes == 2 * 32 * 8 * 128 * 8192 * 2
    assert found.memory.weights_bytes is None
    assert found.fits is None


def test_weights_too_few_for_the_widths_tell_no_speed():
    config = {
        "model_type": "llama",
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    shape = shape_of_model(describe("cut", config, file_bytes=1000))
    assert shape is not None
    assert shape.weights_bytes == 1000
    assert estimate(shape, parse_hardware_spec("m4-max:40:128")).generation_tps is None


def test_weights_published_in_fp8_are_read_in_16_bits():
    config = {
        "model_type": "deepseek_v3",
        "num_hidden_layers": 61,
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "num_attention_heads": 128,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 2048,
        "first_k_dense_replace": 3,
        "vocab_size": 129280,
        "torch_dtype": "bfloat16",
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    }
    shape = shape_of_model(describe("deepseek", config, file_bytes=688_000_000_000))
    assert shape is not None
    assert shape.weights_bytes == pytest.approx(2 * 671e9, rel=0.01)
    assert shape.decode_weight_bytes == pytest.approx(2 * 37e9, rel=0.02)
    assert estimate(shape, parse_hardware_spec("m3-ultra:80:512")).fits is False


@given(
    bits=st.sampled_from([2, 3, 4, 5, 6, 8]),
    lowest=st.sampled_from([2, 4, 8]),
    experts=st.integers(2, 16),
    active=st.integers(1, 20),
    size_mb=st.none() | st.integers(1, 10_000),
)
def test_a_token_never_reads_more_than_the_weights_are(bits, lowest, experts, active, size_mb):
    scheme = {"group_size": 64, "bits": bits}
    own = {"model.layers.0.mlp.switch_mlp.up_proj": {"group_size": 64, "bits": lowest}}
    config = {
        "model_type": "qwen3_moe",
        "num_hidden_layers": 2,
        "hidden_size": 512,
        "moe_intermediate_size": 256,
        "num_experts": experts,
        "num_experts_per_tok": active,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "vocab_size": 3000,
        "tie_word_embeddings": False,
        "quantization": scheme | own,
    }
    size = None if size_mb is None else size_mb * 10**6
    shape = shape_of_model(describe("mixed", config, file_bytes=size))
    assert shape is not None
    assert 0 < shape.decode_weight_bytes <= shape.weights_bytes
    assert shape.routed_weight_bytes <= shape.decode_weight_bytes


WITH_AND_WITHOUT = [
    # https://github.com/waybarrios/vllm-mlx/pull/245, M3 Ultra
    ("qwen3.5-35b-a3b", 73.7, 85.9),
    ("qwen3.5-122b-a10b", 46.4, 52.0),
    # https://github.com/ml-explore/mlx-lm/pull/990, M5 Pro
    ("qwen3.5-27b", 17.70, 23.25),
    # https://github.com/panbanda/higgs/pull/161, short and long answers
    ("qwen3.5-27b", 21.47, 27.25),
    ("qwen3.5-27b", 26.09, 29.21),
    # https://github.com/Blaizzy/mlx-vlm/pull/2040, M5 Max
    ("qwen3.8-flash-next", 22.63, 24.47),
    # https://github.com/youssofal/MTPLX/issues/68, M1 Max
    ("qwen3.6-27b", 14.8, 21.3),
    # https://github.com/raullenchai/Rapid-MLX/issues/3140, M2 Max
    ("qwen3.8-27b", 21.7, 25.8),
]


@pytest.mark.parametrize(("model", "without", "with_drafts"), WITH_AND_WITHOUT)
def test_published_speeds_with_one_draft_lie_in_the_range(model, without, with_drafts):
    drafts = shape_of_entry(CATALOG.get(model), "int4").drafts
    expected = speed_with_drafts(Speed.around(without, 1.0, Basis.MEASURED), drafts)
    assert expected.low <= with_drafts <= expected.high


shares = st.floats(0, 1)


@given(tps=st.floats(0.1, 1e4), spread=st.floats(1, 4), shares=st.tuples(shares, shares))
def test_drafts_give_at_most_two_tokens_a_step_and_cost_at_most_two_steps(tps, spread, shares):
    low, high = sorted(shares)
    plain = Speed.around(tps, spread, Basis.ESTIMATE)
    drafted = speed_with_drafts(plain, Drafts(low=low, high=high))
    assert drafted.low <= drafted.value * (1 + 1e-9)
    assert drafted.value <= drafted.high * (1 + 1e-9)
    assert drafted.low >= plain.low / 2
    assert drafted.high <= plain.high * 2
    assert drafted.basis is Basis.ESTIMATE


@given(tps=st.floats(0.1, 1e4), share=shares, more=shares)
def test_more_right_drafts_are_never_slower(tps, share, more):
    plain = Speed.around(tps, 1.2, Basis.ESTIMATE)
    better = max(share, more)
    less = speed_with_drafts(plain, Drafts(low=share, high=share))
    assert speed_with_drafts(plain, Drafts(low=better, high=better)).value >= less.value


@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.5), (0.5, 1.1), (0.6, 0.5)])
def test_drafts_are_shares_the_lower_first(low, high):
    with pytest.raises(RecommendError):
        Drafts(low=low, high=high)


def test_several_requests_at_once_and_unmeasured_heads_have_no_speed_with_drafts():
    mac, shape = (
        parse_hardware_spec("m5-max:40:128"),
        shape_of_entry(CATALOG.get("qwen3.5-27b"), "int4"),
    )
    assert estimate(shape, mac).mtp_tps is not None
    assert estimate(shape, mac, Workload(concurrency=2)).mtp_tps is None
    unmeasured = shape_of_entry(CATALOG.get("glm-4.7"), "int4")
    assert estimate(unmeasured, mac).mtp_tps is None
