"""How fast a model decodes and prefills, from bytes, arithmetic and launches (decision 0040).

Decoding reads the active weights and the KV cache once for each token:

    t = (weights + KV) / (achievable bandwidth) + keys x query heads / cores + layers x fixed cost

Prefill is arithmetic, and reads the weights about once in each of its steps:

    t = 2 x parameters x tokens / (rate x cores) + attention + weights / bandwidth + layers x cost

The constants are in `calibration`.
"""

import math
from dataclasses import dataclass

from mlx_recommend.calibration import (
    ACHIEVABLE_BANDWIDTH,
    FITTED,
    FLOAT32_UNPACKING,
    KV_BYTES_PER_ELEMENT,
    LAUNCH_FACTOR,
    LONG_CONTEXT_TOKENS,
    MOST_DRAFT_COST,
    PREFILL_GFLOPS_PER_CORE,
    PREFILL_STEP_TOKENS,
    RANGE_ERRORS,
    REFERENCE_BANDWIDTH_GB_S,
    STREAM_SHARE,
    UNMEASURED_SPREAD,
    Calibration,
    ErrorClass,
    LayerPart,
)
from mlx_recommend.inputs import Basis, Drafts, ModelShape
from mlx_recommend.machine import Machine


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second, with the range that the true figure is in nine times out of ten.

    Attributes:
        value: The best guess, or the measurement.
        basis: Whether it was measured here, published for such a machine, or computed.
        error_class: What its range is of, where it was computed.
    """

    value: float
    low: float
    high: float
    basis: Basis
    error_class: ErrorClass | None = None

    @classmethod
    def around(cls, value: float, spread: float, basis: Basis) -> "Speed":
        """`value` with a range of a factor of `spread` to both sides."""
        return cls(value, value / spread, value * spread, basis)

    @classmethod
    def estimated(cls, value: float, error_class: ErrorClass, machine: Machine) -> "Speed":
        """A computed `value` with the range of its class, wider on a chip without measurements."""
        spread = RANGE_ERRORS[error_class].spread * _unmeasured(machine)
        return cls(value, value / spread, value * spread, Basis.ESTIMATE, error_class)

    def to_document(self) -> dict[str, object]:
        """The speed as JSON, rounded to what its accuracy bears; `error` tells of its range."""
        return {
            "value": round(self.value, 2),
            "low": round(self.low, 2),
            "high": round(self.high, 2),
            "basis": self.basis.value,
            "error": self._error(),
        }

    def _error(self) -> dict[str, object] | None:
        """How wrong such estimates were on measurements that no fit has seen."""
        if self.error_class is None:
            return None
        error = RANGE_ERRORS[self.error_class]
        return {
            "class": self.error_class.value,
            "rows": error.rows,
            "median": error.median,
            "in_range": error.covered,
        }


def decode_speed(
    shape: ModelShape,
    machine: Machine,
    *,
    context_tokens: int,
    concurrency: int = 1,
    constants: Calibration = FITTED,
) -> Speed | None:
    """Tokens a second that each of `concurrency` requests gets with `context_tokens` behind it.

    None where the weights or the KV cache's geometry are unknown.
    """
    weight_bytes = _weights_for_batch(shape, concurrency)
    params, layers = shape.decode_params, shape.layers
    attention_s = _attention_s(shape, machine, context_tokens, constants)
    if weight_bytes is None or params is None or layers is None or attention_s is None:
        return None
    seconds = weight_bytes / _bandwidth(machine) + concurrency * attention_s
    # each further request is unpacked for, launched for and waited for a little as well
    shared_s = _fixed_s(shape, machine, constants) + _unpacking_s(shape, machine, params, constants)
    alone_s = (shape.decode_weight_bytes or 0) / _bandwidth(machine) + shared_s
    seconds += shared_s + (concurrency - 1) * STREAM_SHARE * alone_s
    if concurrency > 1 and shape.prefill_params is not None:
        arithmetic = concurrency * 2 * shape.prefill_params
        seconds = max(seconds, arithmetic / _prefill_rate(shape, machine, constants))
    error_class = _decode_class(shape, context_tokens, concurrency)
    return Speed.estimated(1 / seconds, error_class, machine)


def speed_with_drafts(plain: Speed, drafts: Drafts) -> Speed:
    """The decode speed with one draft a step, from the speed without.

    A step then gives a second token whenever the draft is right. How much longer it takes isn't
    predicted: the range is from a step that costs as much as two to one that costs no more than
    before, and the value its middle.
    """
    low = plain.low * (1 + drafts.low) / MOST_DRAFT_COST
    high = plain.high * (1 + drafts.high)
    return Speed(math.sqrt(low * high), low, high, Basis.ESTIMATE)


def _decode_class(shape: ModelShape, context_tokens: int, concurrency: int) -> ErrorClass:
    if concurrency > 1:
        return ErrorClass.STREAMS
    if context_tokens > LONG_CONTEXT_TOKENS:
        return ErrorClass.LONG_CONTEXT
    if shape.is_moe:
        return ErrorClass.MIXTURE
    return ErrorClass.HYBRID if shape.is_recurrent else ErrorClass.DENSE


def prefill_speed(
    shape: ModelShape,
    machine: Machine,
    *,
    prompt_tokens: int,
    constants: Calibration = FITTED,
    unpacking_factor: float = FLOAT32_UNPACKING,
) -> Speed | None:
    """Tokens a second at which a prompt of `prompt_tokens` is read, by itself.

    None where the parameters, the KV cache's geometry or the number of GPU cores are unknown.

    Args:
        unpacking_factor: How much faster M1 and M2 are than with MLX before 0.32.1.
    """
    attention, params = _attention_operations(shape, prompt_tokens), shape.prefill_params
    step = min(prompt_tokens, PREFILL_STEP_TOKENS)
    weight_bytes, layers = _weights_for_batch(shape, step), shape.prefill_layers
    if attention is None or params is None or weight_bytes is None or layers is None:
        return None
    if machine.gpu_cores is None:
        return None
    params += (constants.gather_factor - 1) * shape.routed_params
    operations = prompt_tokens * (2 * params + attention)
    passes = (
        constants.newest_weight_passes if machine.is_newest else constants.prefill_weight_passes
    )
    steps, rate = math.ceil(prompt_tokens / step), _prefill_rate(shape, machine, constants)
    error_class = ErrorClass.NEWEST_PREFILL if machine.is_newest else ErrorClass.PREFILL
    if _is_emulating(shape, machine):
        rate, error_class = rate * unpacking_factor, ErrorClass.EMULATED_PREFILL
    seconds = (
        operations / rate
        + steps * passes * weight_bytes / _bandwidth(machine)
        + layers * constants.prefill_layer_s
    )
    return Speed.estimated(prompt_tokens / seconds, error_class, machine)


def output_s(shape: ModelShape, machine: Machine) -> float:
    """Seconds that the output layer takes of each token; 0 where its size is unknown."""
    return shape.undivided.output_bytes / _bandwidth(machine) if shape.undivided is not None else 0


def _bandwidth(machine: Machine) -> float:
    """Bytes a second that decoding reaches."""
    return ACHIEVABLE_BANDWIDTH[machine.width] * machine.bandwidth_gb_s * 1e9


def _weights_for_batch(shape: ModelShape, tokens: int) -> float | None:
    """Bytes of weights that `tokens` tokens need when they are computed together, or None.

    Experts are counted as if each token chose its own, up to all of them.
    """
    if shape.decode_weight_bytes is None:
        return None
    routed = shape.routed_weight_bytes * min(tokens, 1 / shape.expert_share)
    return shape.decode_weight_bytes - shape.routed_weight_bytes + routed


def _attention_s(
    shape: ModelShape, machine: Machine, tokens: int, constants: Calibration
) -> float | None:
    """Seconds that attention takes for one token of one sequence; None if the cache is unknown."""
    elements = shape.kv_elements(tokens)
    if elements is None:
        return None
    moved_bytes = elements * KV_BYTES_PER_ELEMENT + 2 * (shape.state_bytes or 0)
    keys = shape.growing_query_heads * tokens + shape.sliding_query_heads * shape.in_window(tokens)
    key_s = constants.key_s if machine.has_bf16 else constants.emulated_key_s
    return moved_bytes / _bandwidth(machine) + keys * key_s / machine.likely_gpu_cores


def _fixed_s(shape: ModelShape, machine: Machine, constants: Calibration) -> float:
    """Seconds that a token takes whatever is read for it."""
    cost_s = sum(constants.part_cost_s[part] * layers for part, layers in shape.parts.items())
    routers = shape.parts.get(LayerPart.EXPERTS, 0)
    cost_s += constants.expert_choice_s * routers * shape.experts
    generation = LAUNCH_FACTOR.get(machine.generation, constants.newest_launch_factor)
    width = 1 + constants.width_slope * (machine.bandwidth_gb_s / REFERENCE_BANDWIDTH_GB_S - 1)
    return cost_s * generation * width


def _unpacking_s(
    shape: ModelShape, machine: Machine, params: float, constants: Calibration
) -> float:
    """Seconds that unpacking weights takes where the GPU has no arithmetic for them."""
    operations = 0.0
    if _is_emulating(shape, machine):
        operations += constants.emulated_operations[machine.generation] * params
    if not machine.is_newest:
        operations += constants.fp4_operations * shape.fp4_params
    rate = PREFILL_GFLOPS_PER_CORE[min(machine.generation, max(PREFILL_GFLOPS_PER_CORE))] * 1e9
    return operations / (rate * machine.likely_gpu_cores)


def _is_emulating(shape: ModelShape, machine: Machine) -> bool:
    """Whether the model computes in bfloat16, and the GPU can't."""
    return not machine.has_bf16 and not shape.float16


def _prefill_rate(shape: ModelShape, machine: Machine, constants: Calibration) -> float:
    """Operations a second on matrices as wide as the model's; one core where none is known."""
    newest = max(PREFILL_GFLOPS_PER_CORE)
    per_core = PREFILL_GFLOPS_PER_CORE[min(machine.generation, newest)] * 1e9
    rate = constants.prefill_factor * per_core * (machine.gpu_cores or 1)
    if _is_emulating(shape, machine):
        rate *= constants.no_bf16_factor
    narrowness = constants.prefill_narrowness / shape.hidden_size if shape.hidden_size else 0
    return rate / (1 + narrowness)


def _attention_operations(shape: ModelShape, prompt_tokens: int) -> float | None:
    """Operations of attention for each token of a prompt, which on average sees half of it."""
    if shape.growing_kv_elements is None or shape.sliding_kv_elements is None:
        return None
    seen = prompt_tokens / 2
    within = min(seen, shape.sliding_window or seen)
    elements = shape.growing_kv_elements * seen + shape.sliding_kv_elements * within
    return 2 * shape.query_group * elements


def _unmeasured(machine: Machine) -> float:
    """How much wider the range gets for a chip that nobody has measured."""
    if not machine.is_measured_generation:
        return UNMEASURED_SPREAD**2
    return 1.0 if machine.is_measured else UNMEASURED_SPREAD
