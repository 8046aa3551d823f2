"""How much memory all models together may take (the GPU's limit: decision 0031)."""

from mlx_hwprobe import HardwareProfile
from mlx_recommend.errors import RecommendError

DEFAULT_BUDGET_PCT = 40


def budget_bytes(
    hardware: HardwareProfile,
    *,
    pct: int = DEFAULT_BUDGET_PCT,
    wanted_bytes: int | None = None,
) -> int | None:
    """The shared budget of all tiers: `wanted_bytes`, or `pct` percent of the unified memory.

    Never more than the GPU may use. None where nothing was asked for and the memory is unknown.

    Raises:
        RecommendError: `pct` is not within 1 to 100, or `wanted_bytes` not above 0.
    """
    if not 1 <= pct <= 100:
        raise RecommendError("pct", f"a budget is 1 to 100 percent of the memory, not {pct}")
    if wanted_bytes is not None and wanted_bytes <= 0:
        raise RecommendError("wanted_bytes", "a budget has to be above 0")
    budget = wanted_bytes
    if budget is None:
        if hardware.memory_bytes is None:
            return None
        budget = hardware.memory_bytes * pct // 100
    limit = hardware.gpu_memory_limit_bytes or hardware.memory_bytes
    return budget if limit is None else min(budget, limit)
