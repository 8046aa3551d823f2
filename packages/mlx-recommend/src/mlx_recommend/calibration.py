"""The constants of the speed and memory models, with where each comes from (decision 0040).

Three kinds of evidence went in:

* *ladder*: one model (LLaMA 7B: F16, Q8_0, Q4_0) run by llama.cpp on every chip from M1 to M4 Max
  (https://github.com/ggml-org/llama.cpp/discussions/4167). Another engine, so it gives only what
  chips are worth relative to each other.
* *fit*: least squares on published MLX measurements, by `benchmarks/recommend_calibrate.py`; the
  measurements with their sources are in `benchmarks/data/mlx_measurements.csv`.
* *peak memory*: what mlx-lm and Rapid-MLX report beside some of those measurements.

How well the result predicts chips and models that were left out of the fit is measured by
`benchmarks/recommend_accuracy.py`, and told in docs/explanation/estimates.md.
"""

from dataclasses import dataclass
from enum import StrEnum


class ChipWidth(StrEnum):
    """How wide a chip is, in Apple's words."""

    BASE = "base"
    PRO = "pro"
    MAX = "max"
    ULTRA = "ultra"


class LaunchPattern(StrEnum):
    """What a decoder layer launches, as far as it changes the fixed cost of a token."""

    PLAIN = "plain"
    """Attention and a feed-forward network, two norms."""
    SANDWICH = "sandwich"
    """The same with norms before and after both, as Gemma has them."""
    RECURRENT = "recurrent"
    """A stack in which most layers keep a recurrent state (Gated DeltaNet, Mamba, KDA)."""
    LATENT = "latent"
    """Multi-head latent attention."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The constants that are fitted together.

    Attributes:
        layer_cost_s: What a layer costs beyond its bytes, on an M4 Pro.
        moe_cost_s: What routing adds to that in a mixture-of-experts layer.
        width_slope: How the fixed cost grows with bandwidth: wide chips wait longer for a launch
            to fill them. 0.2 means 20 % more at twice an M4 Pro's bandwidth.
        newest_launch_factor: Fixed cost of M5 and later, relative to M4.
        kv_overhead: Bytes that attention really moves for each byte of KV cache, at least.
        kv_reread: The same for each query head that shares a KV head: the kernel reads keys and
            values again for each.
        prefill_factor: MLX's prefill rate over llama.cpp's on the same chip.
        prefill_narrowness: Hidden size at which matrices are too narrow to reach half the rate.
        prefill_layer_s: What a layer costs once per prompt.
        prefill_weight_passes: How often the weights seem to be read for a prompt.
        newest_weight_passes: The same on M5 and later.
        no_bf16_factor: Prefill rate of M1 and M2, whose GPUs have no bfloat16 arithmetic.
    """

    layer_cost_s: dict[LaunchPattern, float]
    moe_cost_s: float
    width_slope: float
    newest_launch_factor: float
    kv_overhead: float
    kv_reread: float
    prefill_factor: float
    prefill_narrowness: float
    prefill_layer_s: float
    prefill_weight_passes: float
    newest_weight_passes: float
    no_bf16_factor: float


FITTED = Calibration(
    layer_cost_s={
        LaunchPattern.PLAIN: 44e-6,
        LaunchPattern.SANDWICH: 82e-6,
        LaunchPattern.RECURRENT: 73e-6,
        LaunchPattern.LATENT: 73e-6,
    },
    moe_cost_s=39e-6,
    width_slope=0.18,
    newest_launch_factor=0.67,
    kv_overhead=1.11,
    kv_reread=0.35,
    prefill_factor=1.2,
    prefill_narrowness=320,
    prefill_layer_s=960e-6,
    prefill_weight_passes=1.0,
    newest_weight_passes=5.2,
    no_bf16_factor=0.56,
)
"""From `benchmarks/recommend_calibrate.py`; LATENT was measured nowhere: taken as RECURRENT."""

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

NEWEST_GENERATION = 5
"""The last generation with measurements; what comes later is taken to be like it."""
FIRST_BF16_GENERATION = 3
"""M3's GPU is the first with native bfloat16 arithmetic."""
A_SERIES_AS_M = {18: 4}
"""The A18 Pro has the GPU cores of an M4."""

DECODE_SPREAD = 1.20
"""90 % of measurements on chips left out of the fit lie within a factor of this."""
PREFILL_SPREAD = 1.22
"""The same for prefill, before M5."""
NEWEST_PREFILL_SPREAD = 1.40
"""The same for M5: short prompts and small models scatter."""
UNMEASURED_SPREAD = 1.20
"""A further factor for each thing nobody has measured: the layer kind, or the chip's generation."""
REFERENCE_SPREAD = 1.10
"""How far another machine of the same kind, or another day, is from a published figure."""

PROCESS_OVERHEAD_BYTES = 650_000_000
"""What an engine takes beside weights and caches: activations of a prefill step, MLX's buffers.

Peak memory: 0.65-0.77 GB over weights and KV cache in mlx-lm's own benchmarks (Qwen3 4B and
30B-A3B), 0.4-0.7 GB in Rapid-MLX's (0.6B to 27B).
"""
KV_BYTES_PER_ELEMENT = 2
"""Keys and values are kept in 16 bits."""
