"""How fast a model decodes and prefills, from bytes, arithmetic and launches (decision 0040).

Decoding reads the active weights and the KV cache once for each token:

    t = (weights + KV) / (achievable bandwidth) + layers x fixed cost

Prefill is arithmetic, and reads the weights about once for a prompt:

    t = 2 x parameters x tokens / (rate x cores) + attention + weights / bandwidth + layers x cost

The constants are in `calibration`.
"""

from dataclasses import dataclass

from mlx_recommend.calibration import (
    ACHIEVABLE_BANDWIDTH,
    DECODE_SPREAD,
    FITTED,
    KV_BYTES_PER_ELEMENT,
    LAUNCH_FACTOR,
    NEWEST_PREFILL_SPREAD,
    PREFILL_GFLOPS_PER_CORE,
    PREFILL_SPREAD,
    REFERENCE_BANDWIDTH_GB_S,
    UNMEASURED_SPREAD,
    Calibration,
    LaunchPattern,
)
from mlx_recommend.inputs import Basis, ModelShape
from mlx_recommend.machine import Machine


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second, with the range that the true figure is in nine times out of ten.

    Attributes:
        value: The best guess, or the measurement.
        low: The lower end.
        high: The upper end.
        basis: Whether it was measured here, published for such a machine, or computed.
    """

    value: float
    low: float
    high: float
    basis: Basis

    @classmethod
    def around(cls, value: float, spread: float, basis: Basis) -> "Speed":
        """`value` with a range of a factor of `spread` to both sides."""
        return cls(value, value / spread, value * spread, basis)

    def to_document(self) -> dict[str, object]:
        """The speed as JSON, rounded to what its accuracy bears."""
        return {
            "value": round(self.value, 2),
            "low": round(self.low, 2),
            "high": round(self.high, 2),
            "basis": self.basis.value,
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
    kv_bytes = _kv_bytes_moved(shape, context_tokens, constants)
    weight_bytes = _weights_for_batch(shape, concurrency)
    if kv_bytes is None or weight_bytes is None or shape.layers is None:
        return None
    read_bytes = weight_bytes + concurrency * kv_bytes
    seconds = read_bytes / _bandwidth(machine) + shape.layers * _layer_cost(
        shape, machine, constants
    )
    if concurrency > 1 and shape.prefill_params is not None:
        arithmetic = concurrency * 2 * shape.prefill_params
        seconds = max(seconds, arithmetic / _prefill_rate(shape, machine, constants))
    return Speed.around(1 / seconds, DECODE_SPREAD * _unmeasured(shape, machine), Basis.ESTIMATE)


def prefill_speed(
    shape: ModelShape,
    machine: Machine,
    *,
    prompt_tokens: int,
    constants: Calibration = FITTED,
) -> Speed | None:
    """Tokens a second at which a prompt of `prompt_tokens` is read, by itself.

    None where the parameters, the KV cache's geometry or the number of GPU cores are unknown.
    """
    attention, params = _attention_operations(shape, prompt_tokens), shape.prefill_params
    weight_bytes, layers = _weights_for_batch(shape, prompt_tokens), shape.prefill_layers
    if attention is None or params is None or weight_bytes is None or layers is None:
        return None
    if machine.gpu_cores is None:
        return None
    operations = prompt_tokens * (2 * params + attention)
    passes = (
        constants.newest_weight_passes if machine.is_newest else constants.prefill_weight_passes
    )
    seconds = (
        operations / _prefill_rate(shape, machine, constants)
        + passes * weight_bytes / _bandwidth(machine)
        + layers * constants.prefill_layer_s
    )
    spread = NEWEST_PREFILL_SPREAD if machine.is_newest else PREFILL_SPREAD
    return Speed.around(
        prompt_tokens / seconds, spread * _unmeasured(shape, machine), Basis.ESTIMATE
    )


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


def _kv_bytes_moved(shape: ModelShape, tokens: int, constants: Calibration) -> float | None:
    """Bytes that attention moves for one token of one sequence."""
    elements = shape.kv_elements(tokens)
    if elements is None:
        return None
    rereading = max(constants.kv_overhead, constants.kv_reread * shape.query_group)
    return elements * KV_BYTES_PER_ELEMENT * rereading + 2 * (shape.state_bytes or 0)


def _layer_cost(shape: ModelShape, machine: Machine, constants: Calibration) -> float:
    cost = constants.layer_cost_s[shape.layer_kind]
    if shape.is_moe:
        cost += constants.moe_cost_s
    generation = LAUNCH_FACTOR.get(machine.generation, constants.newest_launch_factor)
    width = 1 + constants.width_slope * (machine.bandwidth_gb_s / REFERENCE_BANDWIDTH_GB_S - 1)
    return cost * generation * width


def _prefill_rate(shape: ModelShape, machine: Machine, constants: Calibration) -> float:
    """Operations a second on matrices as wide as the model's; one core where none is known."""
    newest = max(PREFILL_GFLOPS_PER_CORE)
    per_core = PREFILL_GFLOPS_PER_CORE[min(machine.generation, newest)] * 1e9
    rate = constants.prefill_factor * per_core * (machine.gpu_cores or 1)
    if not machine.has_bf16:
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


def _unmeasured(shape: ModelShape, machine: Machine) -> float:
    """How much wider the range gets for what nobody has measured."""
    unknown = (shape.layer_kind is LaunchPattern.LATENT) + (not machine.is_measured_generation)
    return UNMEASURED_SPREAD**unknown
