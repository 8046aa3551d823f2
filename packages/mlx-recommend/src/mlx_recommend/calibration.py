"""The constants of the speed and memory models, with where each comes from (decision 0040).

Four kinds of evidence went in:

* *ladder*: one model (LLaMA 7B: F16, Q8_0, Q4_0) run by llama.cpp on every chip from M1 to M4 Max
  (https://github.com/ggml-org/llama.cpp/discussions/4167). Another engine, so it gives only what
  chips are worth relative to each other.
* *fit*: least squares on published MLX measurements, by `benchmarks/recommend_calibrate.py`; the
  measurements with their sources are in `benchmarks/data/`.
* *kernels*: what MLX's own code does on a GPU.
* *peak memory*: what programs report with some of those measurements.

How well the result predicts sources and chips that were left out of the fit is measured by
`benchmarks/recommend_accuracy.py`, and explained in docs/explanation/estimates.md.
"""

from dataclasses import dataclass
from enum import StrEnum


class ChipWidth(StrEnum):
    """How wide a chip is, in Apple's words."""

    BASE = "base"
    PRO = "pro"
    MAX = "max"
    ULTRA = "ultra"


class LayerPart(StrEnum):
    """What decoder layers are made of, as far as it changes the fixed cost of a token."""

    ATTENTION = "attention"
    """Attention over keys and values, sliding or not; short convolutions cost as much."""
    RECURRENT = "recurrent"
    """A recurrent state instead (Gated DeltaNet, Mamba, KDA)."""
    LATENT = "latent"
    """Multi-head latent attention."""
    NETWORK = "network"
    """A dense feed-forward network."""
    EXPERTS = "experts"
    """A router and routed experts instead."""
    SANDWICH = "sandwich"
    """Norms after attention and network as well as before, as Gemma has them."""


class ErrorClass(StrEnum):
    """Speeds that are about equally well predicted, and share a range."""

    DENSE = "decode-dense"
    MIXTURE = "decode-mixture"
    """Only some of the experts are read for a token."""
    HYBRID = "decode-hybrid"
    """Some layers keep a recurrent state; no mixture."""
    LONG_CONTEXT = "decode-long-context"
    """More than `LONG_CONTEXT_TOKENS` behind it, whatever the model."""
    STREAMS = "decode-streams"
    """Several requests at once, whatever the model."""
    PREFILL = "prefill-m3-m4"
    EMULATED_PREFILL = "prefill-m1-m2"
    """In bfloat16, which these GPUs have no arithmetic for: MLX's version counts most."""
    NEWEST_PREFILL = "prefill-m5"


@dataclass(frozen=True, slots=True)
class RangeError:
    """How wide a class's range is, and what came of it on measurements that no fit has seen.

    Attributes:
        spread: The range is this factor to both sides.
        rows: Published measurements, each predicted by constants fitted to other publishers' only.
        median: Their median relative error.
        covered: The share of them in the range.
    """

    spread: float
    rows: int = 0
    median: float | None = None
    covered: float | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """The constants that are fitted together.

    Attributes:
        part_cost_s: What each part of a layer costs beyond its bytes, on an M4 Pro.
        expert_choice_s: What each expert that a router can choose adds in a layer: the choice
            sorts all of them.
        width_slope: How the fixed cost grows with bandwidth: wide chips wait longer for a launch
            to fill them. 0.2 means 20 % more at twice an M4 Pro's bandwidth.
        newest_launch_factor: Fixed cost of M5 and later, relative to M4.
        key_s: What a query head spends on a key and a value beyond their bytes, on one core.
        emulated_key_s: The same on M1 and M2, whose GPUs have no bfloat16 arithmetic.
        emulated_operations: What unpacking a weight into bfloat16 costs there, in operations of
            prefill arithmetic, by generation.
        fp4_operations: What unpacking a 4-bit floating-point weight costs before M5.
        prefill_factor: MLX's prefill rate over llama.cpp's on the same chip.
        prefill_narrowness: Hidden size at which matrices are too narrow to reach half the rate.
        prefill_layer_s: What a layer costs once per prompt.
        prefill_weight_passes: How often a prefill step seems to read the weights.
        newest_weight_passes: The same on M5 and later.
        gather_factor: Arithmetic of routed experts, relative to as much in a dense network: each
            expert gets only a few of a step's tokens.
        no_bf16_factor: Prefill rate of M1 and M2 in bfloat16, with MLX before 0.32.1.
    """

    part_cost_s: dict[LayerPart, float]
    expert_choice_s: float
    width_slope: float
    newest_launch_factor: float
    key_s: float
    emulated_key_s: float
    emulated_operations: dict[int, float]
    fp4_operations: float
    prefill_factor: float
    prefill_narrowness: float
    prefill_layer_s: float
    prefill_weight_passes: float
    newest_weight_passes: float
    gather_factor: float
    no_bf16_factor: float


FITTED = Calibration(
    part_cost_s={
        LayerPart.ATTENTION: 22e-6,
        LayerPart.RECURRENT: 33e-6,
        LayerPart.LATENT: 133e-6,
        LayerPart.NETWORK: 21e-6,
        LayerPart.EXPERTS: 68e-6,
        LayerPart.SANDWICH: 34e-6,
    },
    expert_choice_s=0.104e-6,
    width_slope=0.163,
    newest_launch_factor=0.644,
    key_s=5.5e-9,
    emulated_key_s=33e-9,
    emulated_operations={1: 5.1, 2: 1.6},
    fp4_operations=9.4,
    prefill_factor=1.145,
    prefill_narrowness=196,
    prefill_layer_s=850e-6,
    prefill_weight_passes=0.97,
    newest_weight_passes=5.85,
    gather_factor=1.225,
    no_bf16_factor=0.58,
)
"""From `benchmarks/recommend_calibrate.py`."""

REFERENCE_BANDWIDTH_GB_S = 273
"""An M4 Pro: most of the published MLX measurements are from one."""

ACHIEVABLE_BANDWIDTH = {
    ChipWidth.BASE: 0.88,
    ChipWidth.PRO: 0.92,
    ChipWidth.MAX: 0.92,
    ChipWidth.ULTRA: 0.84,
}
"""Share of the advertised bandwidth that decoding reaches: ladder, median over generations.

It is the slope of time over bytes between F16 and Q4_0, so that fixed costs don't count.
"""

LAUNCH_FACTOR = {1: 1.56, 2: 1.18, 3: 1.18, 4: 1.0}
"""Fixed cost of a token by generation, relative to M4: ladder, the intercept of that same line.

Later generations: `Calibration.newest_launch_factor`, since the ladder ends with M4.
"""

PREFILL_GFLOPS_PER_CORE = {1: 217, 2: 234, 3: 243, 4: 289, 5: 1043}
"""Prefill arithmetic a GPU core does, in 10^9 operations a second: ladder, Q4_0 and Q8_0.

M5's cores have matrix units. Later generations are taken as M5.
"""

BANDWIDTH_PER_CORE_GB_S = 12
"""Where the number of cores is unknown: every chip has about one for so much bandwidth."""

NEWEST_GENERATION = 5
"""The last generation with measurements; what comes later is taken to be like it."""
FIRST_BF16_GENERATION = 3
"""M3's GPU is the first with native bfloat16 arithmetic."""
FIRST_RDMA_GENERATION = 4
"""M4 Pro, M4 Max and the M3 Ultra are the first with Thunderbolt 5; the M4 and the M5 have
Thunderbolt 4 (Apple's technical specifications)."""
A_SERIES_AS_M = {18: 4}
"""The A18 Pro has the GPU cores of an M4."""
MEASURED_CHIPS = frozenset(
    {
        *((1, ChipWidth.MAX), (1, ChipWidth.ULTRA)),
        *((2, ChipWidth.PRO), (2, ChipWidth.MAX), (2, ChipWidth.ULTRA)),
        *((3, ChipWidth.PRO), (3, ChipWidth.MAX), (3, ChipWidth.ULTRA)),
        *((4, ChipWidth.PRO), (4, ChipWidth.MAX)),
        *((5, ChipWidth.BASE), (5, ChipWidth.MAX)),
    }
)
"""The chips that the measurements are from."""

FLOAT32_UNPACKING = 1.2
"""How much faster MLX 0.32.1 and later, which the engine's lock installs, prefill on M1 and M2.

Kernels: they unpack weights in float32. 8 to 31 % on an M1 Max, with the kind of weights
(https://github.com/ml-explore/mlx/pull/4241), 1 % on an M5 Pro, which has bfloat16.
"""
STREAM_SHARE = 0.2
"""What each further request decoded at once adds, as a share of the time of one.

vllm-mlx's README, M4 Max: five requests together get 2.0, 3.4, 2.4 and 1.6 times the tokens of one.
mlx-lm on an M5 Max: three get 1.7 times, five 2.1 (https://github.com/jundot/omlx/issues/3348).
"""

LONG_CONTEXT_TOKENS = 16_384
RANGE_ERRORS = {
    ErrorClass.DENSE: RangeError(1.15, 210, 0.029, 0.96),
    ErrorClass.MIXTURE: RangeError(1.20, 68, 0.055, 0.96),
    ErrorClass.HYBRID: RangeError(1.15, 42, 0.046, 0.95),
    ErrorClass.LONG_CONTEXT: RangeError(1.35, 11, 0.072, 0.91),
    ErrorClass.STREAMS: RangeError(1.60, 3, 0.074, 1.00),
    ErrorClass.PREFILL: RangeError(1.25, 140, 0.066, 0.93),
    ErrorClass.EMULATED_PREFILL: RangeError(1.35, 11, 0.138, 1.00),
    ErrorClass.NEWEST_PREFILL: RangeError(1.40, 58, 0.102, 0.95),
}
"""Meant to hold nine times out of ten; from `benchmarks/recommend_accuracy.py`, and a test."""
UNMEASURED_SPREAD = 1.10
"""A further factor for a chip that no measurement is from; twice for a new generation."""
REFERENCE_SPREAD = 1.10
"""How far another machine of the same kind, or another day, is from a published figure."""

FUSED_HEAD_DIMS = frozenset({64, 80, 128})
"""The head widths for which MLX computes a prompt's attention without keeping its scores.

Kernels: `steel_attention` on Metal, with any mask, as in every MLX up to 0.32; for other widths the
scores of a whole prefill step are in memory, one layer's at a time. 0.32 adds a kernel for 256 on
M5 (steps of 1,024 or more): it isn't counted on, since it depends on the mask.
"""
SCORE_BYTES = 2
"""A score is kept in 16 bits: peak memory of Qwen3.5 122B-A10B at 4,096 to 32,768 tokens."""
PREFILL_STEP_TOKENS = 2048
"""The tokens of a prompt that mlx-lm and vllm-mlx compute at once unless configured otherwise."""
SMALL_ARRAYS_BYTES = 200_000_000
"""What MLX holds besides: masks, logits, buffers that a running command still needs.

Peak memory, by MLX's own counter: rows of 128 to 192,000 tokens, on seven chips.
"""
PROCESS_BYTES = 100_000_000
"""What an engine process takes besides what MLX allocates: Python, libraries, Metal."""
WORD_BYTES = 3_000
"""What each word of the vocabulary adds to that: texts, merges, tables, in Python as well.

An idle engine's `phys_footprint` is above its weights by 0.13 to 0.34 GB with vocabularies of
65,000 to 128,000 (LFM2.5) and 0.6 to 1.0 GB with 248,000 and 262,000 (Qwen3.5, Gemma 4): ten models
on an M2 Pro, one on an M3 Ultra.
"""
STEP_BYTES_PER_TOKEN = 300_000
"""What a prefill step keeps for each of its tokens: activations, in models of 0.6B to 32B."""
STATE_STEP_BYTES_PER_TOKEN = 550_000
"""The same in models with recurrent layers or convolutions, which keep more at once."""
READING_TOKENS = 4096
"""The tokens of texts that an engine computes at once where nothing is written, or those of one
longer text."""
READING_LONGEST_TOKENS = 8192
"""Where engines cut such a text."""
SCORE_COPIES = 2
"""Where a layer's scores are kept, they stand beside what softmax makes of them.

Kernels: the fallback of `mlx.fast.scaled_dot_product_attention`, softmax not being done in place.
"""
READING_PROCESS_BYTES = 120_000_000
"""What a process of mlx_vlm.server takes besides what MLX allocates and the tokenizer."""
READING_WORD_BYTES = 1_300
"""What each word of the vocabulary adds there.

1,100 to 1,380 bytes, by the resident memory of that process on Linux, with byte-level BPE of 30,000
and 151,000 words and with Unigram of 30,000 and 250,000.
"""
SOUND_WINDOW_TOKENS = 1500
"""What 30 seconds of a sound are to a Whisper, which computes them at once."""
HEARD_BYTES_PER_S = 210_000
"""What a second of a sound takes before it is computed: its samples, and what is heard of them.

Peak of half an hour in MLX with 128 mel bands.
"""
LONGEST_SOUND_S = 7200
"""The longest sound that an engine is given."""
KV_BYTES_PER_ELEMENT = 2
"""Keys and values are kept in 16 bits."""
KV_GROUP_ELEMENTS = 64
"""Quantized keys and values that share a scale and a bias: the engine's own default, as MLX's."""
KV_GROUP_BYTES = 4
"""A group's scale and bias, 16 bits each as the activations are (`mlx.core.quantize`)."""
MOST_DRAFT_COST = 2.0
"""How long a step with one draft takes at most, next to one without: both tokens by themselves.

Apple GPUs up to M2 come near that, since they compute two tokens hardly faster than one after the
other (https://github.com/jundot/omlx/issues/1311). At best, what is read is read once for both.
"""
CHECKPOINTS = 3
"""Copies of recurrent states and windows that an engine keeps of one conversation, beside the last:
what can't be cut back to an earlier token."""
