"""Memory: what each part is, and what never happens."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_catalog import ModelRole, load_catalog
from mlx_catalog.schema import Sources
from mlx_hwprobe import HardwareProfile, parse_hardware_spec
from mlx_recommend import (
    ModelShape,
    RecommendError,
    Workload,
    budget_bytes,
    estimate,
    shape_of_entry,
)
from mlx_recommend.calibration import CHECKPOINTS, HEARD_BYTES_PER_S, LONGEST_SOUND_S
from mlx_recommend.memory import kept_context_bytes, kv_bytes_at, memory_use, prefill_step

CATALOG = load_catalog()
ENTRIES = tuple(CATALOG)

shapes = st.builds(
    ModelShape,
    name=st.just("any"),
    quant=st.just("int4"),
    weights_bytes=st.integers(10**8, 10**12),
    decode_weight_bytes=st.floats(10**8, 10**11),
    layers=st.integers(1, 128),
    prefill_params=st.floats(10**8, 10**11),
    prefill_layers=st.integers(1, 128),
    growing_kv_elements=st.integers(0, 10**6),
    sliding_kv_elements=st.integers(0, 10**6),
    sliding_window=st.none() | st.integers(1, 10**5),
    growing_score_heads=st.integers(0, 128),
    sliding_score_heads=st.integers(0, 128),
    state_bytes=st.integers(0, 10**9),
    max_context_tokens=st.integers(1, 2**20),
)


@given(shape=shapes, tokens=st.integers(1, 10**6), more=st.integers(0, 10**6))
def test_more_context_never_needs_less_memory(shape: ModelShape, tokens: int, more: int):
    less = memory_use(shape, Workload(context_tokens=tokens)).total_bytes
    assert memory_use(shape, Workload(context_tokens=tokens + more)).total_bytes >= less


@given(shape=shapes, concurrency=st.integers(1, 64))
def test_more_requests_never_need_less_memory(shape: ModelShape, concurrency: int):
    less = memory_use(shape, Workload(context_tokens=4096, concurrency=concurrency)).total_bytes
    more = memory_use(shape, Workload(context_tokens=4096, concurrency=concurrency + 1)).total_bytes
    assert more >= less


@given(elements=st.integers(0, 10**12), bits=st.sampled_from((4, 8)))
def test_quantized_keys_and_values_cost_their_bits_and_a_scale_and_a_bias_for_64(elements, bits):
    exact = elements * (bits + 32 / 64) / 8
    rounding = 64 * (bits + 0.5) / 8
    assert exact <= kv_bytes_at(elements, bits) + 1 <= exact + rounding + 2
    assert kv_bytes_at(elements, 16) == 2 * elements


@given(shape=shapes, tokens=st.integers(64, 10**6), concurrency=st.integers(1, 16))
def test_an_8_bit_cache_shrinks_what_is_kept_and_nothing_else(shape, tokens, concurrency):
    work = Workload(context_tokens=tokens, concurrency=concurrency)
    plain, quantized = memory_use(shape, work), memory_use(shape, replace(work, kept_kv_bits=8))
    assert quantized.prefix_cache_bytes <= plain.prefix_cache_bytes
    assert replace(quantized, prefix_cache_bytes=plain.prefix_cache_bytes) == plain
    growing = tokens * shape.growing_kv_elements
    saved = kept_context_bytes(shape, work) - kept_context_bytes(
        shape, replace(work, kept_kv_bits=8)
    )
    assert saved == 2 * growing - kv_bytes_at(growing, 8)  # windows and states stay


@given(shape=shapes, tokens=st.integers(1, 10**6), concurrency=st.integers(1, 16))
def test_the_chosen_prefill_step_never_needs_more_than_the_engines_own(shape, tokens, concurrency):
    work = Workload(context_tokens=tokens, concurrency=concurrency)
    step = prefill_step(shape, tokens, concurrency)
    chosen = memory_use(shape, replace(work, prefill_step_tokens=step))
    assert chosen.total_bytes <= memory_use(shape, work).total_bytes


@pytest.mark.parametrize(
    ("model", "tokens", "step"),
    [("qwen3-8b", 131_072, 2048), ("qwen3.5-4b", 3000, 2048), ("qwen3.5-4b", 131_072, 256)],
)
def test_prompts_are_read_in_smaller_steps_where_scores_would_fill_the_memory(model, tokens, step):
    assert prefill_step(shape_of_entry(CATALOG.get(model), "int4"), tokens) == step


@given(shape=shapes, limit_gb=st.integers(1, 512))
def test_the_longest_context_fits_and_one_more_token_does_not(shape: ModelShape, limit_gb: int):
    machine = HardwareProfile(memory_bytes=limit_gb * 2**30)
    longest = estimate(shape, machine).max_context_tokens

    def total(tokens: int) -> int:
        return memory_use(shape, Workload(context_tokens=tokens)).total_bytes

    if longest == 0:
        assert total(1) > machine.memory_bytes
    else:
        assert total(longest) <= machine.memory_bytes
        if longest < shape.max_context_tokens:
            assert total(longest + 1) > machine.memory_bytes


@pytest.mark.parametrize(
    ("model", "quant", "tokens", "peak_gb"),
    [
        # mlx-lm 0.28.2's BENCHMARKS.md
        ("qwen3-4b-instruct-2507", "bf16", 2176, 9.02),
        ("qwen3-4b-instruct-2507", "int8", 2176, 5.254),
        ("qwen3-4b-instruct-2507", "int4", 2176, 3.35),
        ("qwen3-30b-a3b-instruct-2507", "int8", 2176, 33.46),
        ("qwen3-30b-a3b-instruct-2507", "int4", 2176, 18.20),
        # Rapid-MLX's community benchmarks, in MiB there
        ("llama3.1-8b", "int4", 2560, 5.515),
        ("gemma3-27b", "int4", 2560, 17.760),
        ("qwen3-0.6b", "int4", 2560, 1.372),
        ("qwen3.5-9b", "int4", 2560, 6.766),
        # heads of 256: a prefill step keeps its scores (banandre.com, ttarif's README)
        ("qwen3.5-122b-a10b", "int4", 4224, 71.9),
        ("qwen3.5-122b-a10b", "int4", 16512, 73.8),
        ("qwen3.5-122b-a10b", "int4", 32896, 76.4),
        ("qwen3.5-35b-a3b", "int4", 63178, 27.7),
        # heads of 128: it doesn't (guruswami-ai's benchmark results)
        ("deepseek-r1-distill-qwen-32b", "int4", 32868, 27.8),
        ("deepseek-r1-distill-qwen-32b", "int4", 131172, 54.3),
    ],
)
def test_the_total_is_near_a_published_peak_and_never_far_below(model, quant, tokens, peak_gb):
    use = memory_use(shape_of_entry(CATALOG.get(model), quant), Workload(context_tokens=tokens))
    # MLX's counter leaves out the process, and mlx-lm the towers of a model that sees
    assert 0.97 * peak_gb <= use.total_bytes / 1e9 <= max(1.05 * peak_gb, peak_gb + 0.9)


def test_every_part_is_visible_and_they_add_up():
    use = memory_use(
        shape_of_entry(CATALOG.get("qwen3.5-9b"), "int4"),
        Workload(context_tokens=8192, concurrency=2),
    )
    parts = (
        use.weights_bytes,
        use.kv_cache_bytes,
        use.prefix_cache_bytes,
        use.state_bytes,
        use.overhead_bytes,
    )
    assert all(part > 0 for part in parts)
    assert sum(parts) == use.total_bytes
    assert use.kv_cache_bytes == 2 * 8192 * 32768
    # both conversations are still there when their next turns come, with copies of their states
    assert use.prefix_cache_bytes == use.kv_cache_bytes + (1 + CHECKPOINTS) * use.state_bytes


def test_the_process_is_told_apart_from_what_the_gpu_needs():
    large, small = (
        shape_of_entry(CATALOG.get(name), "int4") for name in ("qwen3.5-4b", "llama3.2-3b")
    )
    work = Workload(context_tokens=8192)
    use = memory_use(large, work)
    assert use.with_process_bytes == use.total_bytes + use.process_bytes
    assert use.to_document(None)["process_bytes"] == use.process_bytes
    vocabulary = large.vocabulary - small.vocabulary
    assert use.process_bytes - memory_use(small, work).process_bytes == 3000 * vocabulary


def test_layers_with_a_window_stop_growing():
    shape = shape_of_entry(CATALOG.get("gemma3-4b"), "int4")
    near = memory_use(shape, Workload(context_tokens=1024)).kv_cache_bytes
    far = memory_use(shape, Workload(context_tokens=2048)).kv_cache_bytes
    assert near == 1024 * 2 * (5 + 29) * 2 * 4 * 256
    assert far - near == 1024 * 2 * 5 * 2 * 4 * 256


def entry_with(model: str, **changes: object) -> ModelShape:
    """The shape of an entry with changes to it or its geometry, at a size nobody published."""
    entry = CATALOG.get(model)
    own = {key: value for key, value in changes.items() if hasattr(entry, key)}
    within = {key: value for key, value in changes.items() if key not in own}
    geometry = msgspec.structs.replace(entry.geometry, **within)
    sources = Sources(int4=msgspec.structs.replace(entry.sources.int4, disk_size_estimated=True))
    changed = msgspec.structs.replace(entry, **own, geometry=geometry, sources=sources)
    return shape_of_entry(changed, "int4")


def test_towers_are_held_in_16_bits_and_never_read():
    without = entry_with("qwen3-8b")
    seeing = entry_with(
        "qwen3-8b",
        params_b=8.69,
        tower_params_b=0.5,
        capabilities=CATALOG.get("qwen3-vl-8b").capabilities,
    )
    assert seeing.weights_bytes == pytest.approx(without.weights_bytes + 1e9)
    assert seeing.decode_weight_bytes == pytest.approx(without.decode_weight_bytes)
    assert seeing.prefill_params == pytest.approx(without.prefill_params)


def test_what_is_not_loaded_takes_no_memory():
    whole = entry_with("qwen3-8b")
    for unloaded in ("mtp_params_b", "tower_params_b"):  # it is served without vision
        shape = entry_with("qwen3-8b", params_b=8.69, **{unloaded: 0.5})
        assert shape.weights_bytes == pytest.approx(whole.weights_bytes)
        assert shape.decode_weight_bytes == pytest.approx(whole.decode_weight_bytes)


def test_what_an_entry_does_not_tell_apart_counts_as_read():
    told, untold = entry_with("qwen3-8b"), entry_with("qwen3-8b", vocab_size=None)
    assert told.weights_bytes == untold.weights_bytes == round(untold.decode_weight_bytes)
    assert told.decode_weight_bytes < untold.decode_weight_bytes
    assert told.prefill_params < untold.prefill_params


def test_per_layer_embeddings_are_held_and_not_read():
    told = entry_with("gemma3n-e2b")
    untold = entry_with("gemma3n-e2b", per_layer_embedding_dim=None)
    assert told.weights_bytes == untold.weights_bytes
    looked_up = 30 * 256 * 262_400
    assert untold.decode_weight_bytes - told.decode_weight_bytes == looked_up * 4.5 / 8


def test_query_heads_are_those_of_the_entry_else_as_wide_as_the_stream():
    assert entry_with("seed-oss-36b").query_group == 80 / 8
    assert entry_with("seed-oss-36b", query_heads=None).query_group == 5120 / (8 * 128)


def test_latent_attention_keeps_latents_only():
    shape = shape_of_entry(CATALOG.get("glm-4.7-flash"), "int4")
    assert memory_use(shape, Workload(context_tokens=1000)).kv_cache_bytes == 1000 * 54_144


def test_an_unknown_geometry_gives_no_total_and_no_verdict():
    shape = replace(shape_of_entry(CATALOG.get("qwen3-8b"), "int4"), growing_kv_elements=None)
    expected = estimate(shape, parse_hardware_spec("m4-max:40:128"))
    assert expected.memory.kv_cache_bytes is None
    assert expected.memory.total_bytes is None
    assert expected.fits is None
    assert expected.max_context_tokens is None
    assert expected.generation_tps is None


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_every_entry_of_the_catalog_can_be_estimated(entry):
    for quant in ("int4", "int8", "bf16"):
        shape = shape_of_entry(entry, quant)
        expected = estimate(shape, parse_hardware_spec("m3-ultra:80:512"))
        assert shape.decode_weight_bytes <= shape.weights_bytes * 1.02
        assert 0 <= shape.routed_weight_bytes <= shape.decode_weight_bytes
        assert 0 < shape.prefill_params <= entry.params_b * 1e9
        if entry.role.reads_only:
            assert expected.memory.total_bytes > expected.memory.weights_bytes
            assert expected.generation_tps is None
        elif shape.growing_kv_elements is not None:
            assert 1 < expected.generation_tps.value < 1500


def test_a_model_that_reads_takes_as_much_for_one_text_as_for_many():
    shape = shape_of_entry(CATALOG.get("bge-m3"), "int4")
    once = memory_use(shape, Workload(context_tokens=512))
    assert once == memory_use(shape, Workload(context_tokens=512, concurrency=8))
    assert once.kv_cache_bytes == 0
    words, process = 250_002, once.process_bytes
    assert 1_000 * words < process < 2_000 * words  # measured: 1,100 to 1,400 a word


def test_what_a_batch_takes_follows_from_the_widths_of_a_layer():
    """Values of a token by hand: 2 queries, 2 keys, 6 of the stream, 3 of the network."""
    tokens = 4096
    bge = memory_use(shape_of_entry(CATALOG.get("bge-m3"), "int8"), Workload(context_tokens=512))
    assert bge.overhead_bytes == tokens * 2 * (4 * 1024 + 6 * 1024 + 3 * 4096)
    # it reads all that it is given at once where that is one long text
    long = memory_use(shape_of_entry(CATALOG.get("bge-m3"), "int8"), Workload(context_tokens=8192))
    assert long.overhead_bytes == 2 * bge.overhead_bytes

    mini = memory_use(
        shape_of_entry(CATALOG.get("all-minilm-l6-v2"), "bf16"), Workload(context_tokens=512)
    )
    scores = 2 * 12 * 512  # heads of 32 values, for which MLX has no kernel without them
    assert mini.overhead_bytes == tokens * 2 * (10 * 384 + 3 * 1536 + scores)

    qwen = memory_use(
        shape_of_entry(CATALOG.get("qwen3-embedding-0.6b"), "int8"), Workload(context_tokens=512)
    )
    layer = tokens * (2 * 2048 + 2 * 1024 + 6 * 1024 + 3 * 3072)
    assert qwen.overhead_bytes == 2 * (layer + (512 + tokens) * 512)

    vendors = memory_use(
        shape_of_entry(CATALOG.get("bge-reranker-v2-m3"), "bf16"), Workload(context_tokens=512)
    )
    assert vendors.overhead_bytes == 2 * bge.overhead_bytes  # float32


def test_the_budget_is_a_share_of_the_memory_but_never_above_the_gpus_limit():
    mac = parse_hardware_spec("m4-max:40:128")
    assert budget_bytes(mac) == 128 * 2**30 * 40 // 100
    assert budget_bytes(mac, pct=100) == mac.gpu_memory_limit_bytes
    assert budget_bytes(mac, wanted_bytes=30 * 10**9) == 30 * 10**9
    assert budget_bytes(mac, wanted_bytes=10**12) == mac.gpu_memory_limit_bytes
    assert budget_bytes(HardwareProfile()) is None
    assert budget_bytes(HardwareProfile(), wanted_bytes=5) == 5


@pytest.mark.parametrize("arguments", [{"pct": 0}, {"pct": 101}, {"wanted_bytes": 0}])
def test_a_senseless_budget_is_refused(arguments):
    with pytest.raises(RecommendError):
        budget_bytes(parse_hardware_spec("m4:10:16"), **arguments)


@pytest.mark.parametrize("field", ["context_tokens", "concurrency", "speed_context_tokens"])
def test_a_senseless_workload_is_refused(field: str):
    with pytest.raises(RecommendError) as caught:
        Workload(**{field: 0})
    assert caught.value.field == field


def test_what_hears_holds_a_long_sound_beside_its_weights_and_no_cache():
    hears = ModelShape(
        name="w",
        quant="",
        weights_bytes=10**9,
        hidden_size=1280,
        layer_values=22 * 1280,
        role=ModelRole.SPEECH_TO_TEXT,
    )
    speaks = replace(hears, role=ModelRole.TEXT_TO_SPEECH)
    heard, spoken = memory_use(hears, Workload()), memory_use(speaks, Workload())
    assert heard.kv_cache_bytes == spoken.kv_cache_bytes == 0
    assert heard.overhead_bytes - spoken.overhead_bytes == HEARD_BYTES_PER_S * LONGEST_SOUND_S
