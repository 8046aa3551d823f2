"""How much memory a model takes while it is served."""

from dataclasses import dataclass, fields, replace

from mlx_recommend.calibration import KV_BYTES_PER_ELEMENT, PROCESS_OVERHEAD_BYTES
from mlx_recommend.inputs import ModelShape, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """Bytes of memory, part by part; None where a model's geometry leaves a part unknown.

    Attributes:
        weights_bytes: All parameters: what isn't used for a token still has to be there.
        kv_cache_bytes: Keys and values of every request at its full context.
        prefix_cache_bytes: Keys, values and state kept of finished requests, for reuse.
        state_bytes: Recurrent state of every request.
        overhead_bytes: What an engine process takes beside these.
    """

    weights_bytes: int | None
    kv_cache_bytes: int | None
    prefix_cache_bytes: int | None
    state_bytes: int | None
    overhead_bytes: int

    @property
    def total_bytes(self) -> int | None:
        """The sum; None where a part is unknown."""
        return None if None in self._parts else self.least_bytes

    @property
    def least_bytes(self) -> int:
        """The sum of the parts that are known: it takes at least as much."""
        return sum(part for part in self._parts if part is not None)

    def to_document(self, limit_bytes: int | None) -> dict[str, int | None]:
        """The parts as JSON, beside what they may take; the first four add up to the total.

        The prefix cache, which is a part of the overhead there, is named by itself as well.
        """
        reused = self.prefix_cache_bytes
        return {
            "weights_bytes": self.weights_bytes,
            "kv_cache_bytes": self.kv_cache_bytes,
            "state_bytes": self.state_bytes,
            "overhead_bytes": None if reused is None else self.overhead_bytes + reused,
            "total_bytes": self.total_bytes,
            "limit_bytes": limit_bytes,
            "prefix_cache_bytes": reused,
        }

    @property
    def _parts(self) -> tuple[int | None, ...]:
        return tuple(getattr(self, part.name) for part in fields(self))


def memory_use(shape: ModelShape, workload: Workload) -> MemoryUse:
    """The memory that a model needs at its peak, with every request at its full context."""
    elements = shape.kv_elements(workload.context_tokens)
    kv_bytes = None if elements is None else elements * KV_BYTES_PER_ELEMENT
    state_bytes, concurrency = shape.state_bytes, workload.concurrency
    kept_bytes = None if workload.kept_contexts else 0
    if kv_bytes is not None and state_bytes is not None:
        kept_bytes = (kv_bytes + state_bytes) * workload.kept_contexts
    return MemoryUse(
        weights_bytes=shape.weights_bytes,
        kv_cache_bytes=None if kv_bytes is None else kv_bytes * concurrency,
        prefix_cache_bytes=kept_bytes,
        state_bytes=None if state_bytes is None else state_bytes * concurrency,
        overhead_bytes=PROCESS_OVERHEAD_BYTES,
    )


def max_context_tokens(shape: ModelShape, workload: Workload, limit_bytes: int) -> int | None:
    """The longest context that fits in `limit_bytes`, at most what the model was trained for.

    `workload` says for how many requests; its own context doesn't matter.

    0 where not even the weights fit; None where the geometry is unknown.
    """

    def fits(tokens: int) -> bool:
        total = memory_use(shape, replace(workload, context_tokens=tokens)).total_bytes
        return total is not None and total <= limit_bytes

    longest = shape.max_context_tokens
    if longest is None or memory_use(shape, workload).total_bytes is None:
        return None
    if fits(longest):
        return longest
    low, high = 0, longest
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low if low and fits(low) else 0
