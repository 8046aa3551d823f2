"""Will it run, in how much memory, how fast: one model on one machine (decision 0040)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlx_hwprobe import HardwareProfile
from mlx_recommend.evidence import at_other_context, best_measurement
from mlx_recommend.inputs import Measurement, ModelShape, Workload
from mlx_recommend.machine import machine_of
from mlx_recommend.memory import MemoryUse, max_context_tokens, memory_use
from mlx_recommend.speed import Speed, decode_speed, prefill_speed, speed_with_drafts


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One model on one machine; what can't be known is None.

    Attributes:
        memory: What it takes, part by part.
        mtp_tps: The decode speed with its own drafts; None where no one measured how often they are
            right, and for several requests at once, for which the engine makes none.
    """

    shape: ModelShape
    workload: Workload
    memory: MemoryUse
    limit_bytes: int | None
    generation_tps: Speed | None
    prompt_tps: Speed | None
    mtp_tps: Speed | None = None

    @property
    def fits(self) -> bool | None:
        """Whether the GPU may use as much memory as it takes; None where that can't be known."""
        return self.memory.fits(self.limit_bytes)

    @property
    def max_context_tokens(self) -> int | None:
        """The longest context that fits; 0 where the weights alone don't."""
        if self.limit_bytes is None:
            return None
        return max_context_tokens(self.shape, self.workload, self.limit_bytes)

    @property
    def context_bytes_per_token(self) -> float | None:
        """Bytes of cache and state for each planned token of context; None if unknown."""
        cache_bytes, state_bytes = self.memory.kv_cache_bytes, self.memory.state_bytes
        if cache_bytes is None or state_bytes is None:
            return None
        return (cache_bytes + state_bytes) / (
            self.workload.context_tokens * self.workload.concurrency
        )

    @property
    def ttft_s(self) -> float | None:
        """Seconds until the first token, for a prompt as long as the context of the speeds."""
        if self.prompt_tps is None:
            return None
        return self.workload.tokens_in_speed / self.prompt_tps.value

    def to_document(self) -> dict[str, object]:
        """The estimate as JSON, rounded to what its accuracy bears."""
        generation_tps, prompt_tps, ttft_s = self.generation_tps, self.prompt_tps, self.ttft_s
        read_bytes = self.shape.decode_weight_bytes
        return {
            "fits": self.fits,
            "memory": self.memory.to_document(self.limit_bytes),
            "max_context_tokens": self.max_context_tokens,
            "read_bytes_per_token": None if read_bytes is None else round(read_bytes),
            "generation_tps": None if generation_tps is None else generation_tps.to_document(),
            "prompt_tps": None if prompt_tps is None else prompt_tps.to_document(),
            "ttft_s": None if ttft_s is None else round(ttft_s, 3),
        }


def estimate(
    shape: ModelShape,
    hardware: HardwareProfile,
    workload: Workload | None = None,
    measurements: Sequence[Measurement] = (),
) -> Estimate:
    """What is to be expected of a model on a machine.

    Args:
        workload: Context and concurrency; the defaults where None.
        measurements: Figures for this model on such a machine, oldest first. They replace speeds,
            never memory: a missing or odd figure can't make a model seem smaller than it is.
    """
    workload = workload or Workload()
    machine = machine_of(hardware) if shape.role.chats else None
    tokens = workload.tokens_in_speed

    def decode(tokens: int, requests: int = 1) -> Speed | None:
        if machine is None:
            return None
        return decode_speed(shape, machine, context_tokens=tokens, concurrency=requests)

    def prefill(tokens: int) -> Speed | None:
        return None if machine is None else prefill_speed(shape, machine, prompt_tokens=tokens)

    def measured(
        figure: str, computed: Speed | None, at: Callable[[int], Speed | None]
    ) -> Speed | None:
        found = best_measurement(measurements, quant=shape.quant, figure=figure)
        if found is None:
            return None
        there = at(found.prompt_tokens or tokens)
        value: float = getattr(found, figure)
        return at_other_context(value, found.basis, at_asked=computed, at_measured=there)

    decoded, prefilled = decode(tokens, workload.concurrency), prefill(tokens)
    plain = measured("generation_tps", decoded, decode) or decoded
    drafted = None
    if workload.concurrency == 1:
        drafted = measured("mtp_tps", decoded, decode)
        if drafted is None and plain is not None and shape.drafts is not None:
            drafted = speed_with_drafts(plain, shape.drafts)
    return Estimate(
        shape=shape,
        workload=workload,
        memory=memory_use(shape, workload),
        limit_bytes=hardware.gpu_memory_limit_bytes or hardware.memory_bytes,
        generation_tps=plain,
        prompt_tps=measured("prompt_tps", prefilled, prefill) or prefilled,
        mtp_tps=drafted,
    )
