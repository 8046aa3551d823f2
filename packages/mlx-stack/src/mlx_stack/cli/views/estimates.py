"""Estimates as JSON fields and as text, the same wherever they are shown."""

from mlx_recommend import Basis, Estimate, MemoryUse, Speed
from mlx_stack.cli.views.format import format_bytes

_TINY_TPS = 10


def memory_fields(memory: MemoryUse, limit_bytes: int | None) -> dict[str, int | None]:
    """The memory of one model; its first four parts add up to the total.

    The prefix cache, which is part of the overhead, is told by itself as well.
    """
    reused = memory.prefix_cache_bytes
    return {
        "weights_bytes": memory.weights_bytes,
        "kv_cache_bytes": memory.kv_cache_bytes,
        "state_bytes": memory.state_bytes,
        "overhead_bytes": None if reused is None else memory.overhead_bytes + reused,
        "total_bytes": memory.total_bytes,
        "limit_bytes": limit_bytes,
        "prefix_cache_bytes": reused,
    }


def unknown_memory_fields(limit_bytes: int | None) -> dict[str, int | None]:
    """The same where nothing is known of the model."""
    names = ("weights", "kv_cache", "state", "overhead", "total", "prefix_cache")
    return {**{f"{name}_bytes": None for name in names}, "limit_bytes": limit_bytes}


def speed_fields(speed: Speed | None) -> dict[str, object] | None:
    """A speed with its range and basis; None where it can't be known."""
    if speed is None:
        return None
    return {
        "value": round(speed.value, 2),
        "low": round(speed.low, 2),
        "high": round(speed.high, 2),
        "basis": speed.basis.value,
    }


def estimate_fields(estimate: Estimate) -> dict[str, object]:
    """An estimate's fields of `estimate --json`, from `fits` on."""
    ttft_s, read_bytes = estimate.ttft_s, estimate.shape.decode_weight_bytes
    return {
        "fits": estimate.fits,
        "memory": memory_fields(estimate.memory, estimate.limit_bytes),
        "max_context_tokens": estimate.max_context_tokens,
        "read_bytes_per_token": None if read_bytes is None else round(read_bytes),
        "generation_tps": speed_fields(estimate.generation_tps),
        "prompt_tps": speed_fields(estimate.prompt_tps),
        "ttft_s": None if ttft_s is None else round(ttft_s, 3),
    }


def format_tps(tps: float) -> str:
    """`7.4` or `128` tokens a second."""
    return f"{tps:.1f}" if tps < _TINY_TPS else f"{tps:,.0f}"


def short_speed(speed: Speed | None) -> str:
    """A speed for a table: `~94`, or `94` where it was measured or published; `?` if unknown."""
    if speed is None:
        return "?"
    mark = "~" if speed.basis is Basis.ESTIMATE else ""
    return f"{mark}{format_tps(speed.value)}"


def long_speed(speed: Speed | None) -> str:
    """A speed in full: `94 tokens/s (78-113, estimated)`."""
    if speed is None:
        return "unknown"
    if speed.basis is Basis.MEASURED:
        return f"{format_tps(speed.value)} tokens/s (measured on this machine)"
    word = "published for such a machine" if speed.basis is Basis.REFERENCE else "estimated"
    spread = f"{format_tps(speed.low)} to {format_tps(speed.high)}"
    return f"{format_tps(speed.value)} tokens/s ({spread}, {word})"


def short_bytes(size_bytes: int | None) -> str:
    """A size, or `?` where it is unknown."""
    return "?" if size_bytes is None else format_bytes(size_bytes)
