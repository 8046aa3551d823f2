"""What is worth trying of the pinned engine's settings for a tier; pure.

What is known to be wrong isn't tried: a paged cache, the prefix trie and a bounded KV cache
(decision 0023), and drafts that nobody checks (`--mtp-optimistic`), which write other words. Nor is
what does nothing: the engine takes every flag, and obeys some of them with batching only.
"""

from collections.abc import Iterator

from mlx_bench.tuning import TrialSettings, TuningCandidate
from mlx_stack.engines.vllm_mlx import DEFAULT_CACHE_BYTES, Serving, flags_of
from mlx_stack.stack import Tier

_STEPS = (512, 1024, 2048, 4096)
_STEP = 2048
"""The engine's own, where nothing else is given."""
_INTERVALS = (4, 8)
_MIB = 2**20
_BATCHING = ("continuous-batching", "max-num-seqs", "cache-memory-mb")


def candidates(tier: Tier, serving: Serving) -> tuple[TuningCandidate, ...]:
    """The settings to try, those first that make the largest difference elsewhere.

    Args:
        tier: As it is served now, its own flags included.
        serving: What is known of its model.
    """
    now = flags_of(tier, serving)
    is_batched = now.get("continuous-batching") is True
    found = [
        *(_mtp(serving) if is_batched else ()),
        *_batching(tier, serving, is_batched=is_batched),
        *(TuningCandidate("prefill step", {"prefill-step-size": each}) for each in _STEPS),
        *(_prefix_cache(now) if is_batched and serving.reuses_prefixes else ()),
        *(_stream_intervals() if is_batched else ()),
    ]
    return tuple(each for each in found if not _is_so_already(each.settings, now))


def _mtp(serving: Serving) -> Iterator[TuningCandidate]:
    """One draft a step: the engine takes a larger number, and makes one all the same."""
    if serving.has_mtp:
        yield TuningCandidate("MTP", {"enable-mtp": True})


def _stream_intervals() -> Iterator[TuningCandidate]:
    for each in _INTERVALS:
        yield TuningCandidate("stream interval", {"stream-interval": each})


def _batching(tier: Tier, serving: Serving, *, is_batched: bool) -> Iterator[TuningCandidate]:
    if is_batched:
        yield TuningCandidate("batching", dict.fromkeys(_BATCHING, False))
    elif serving.batching:
        memory = (serving.cache_bytes or DEFAULT_CACHE_BYTES) // _MIB
        values = (True, tier.concurrency, max(1, memory))
        yield TuningCandidate("batching", dict(zip(_BATCHING, values, strict=True)))


def _prefix_cache(now: TrialSettings) -> Iterator[TuningCandidate]:
    for bits in (8, 4):
        settings: TrialSettings = {
            "kv-cache-quantization": True,
            "kv-cache-quantization-bits": bits,
        }
        yield TuningCandidate("KV bits", settings, changes_answers=True)
    yield TuningCandidate("prefix cache", {"disable-prefix-cache": True})
    yield TuningCandidate("prefix cache", {"no-memory-aware-cache": True})
    memory = now.get("cache-memory-mb")
    if isinstance(memory, int):
        yield TuningCandidate("prefix cache", {"cache-memory-mb": memory * 2})


def _is_so_already(settings: TrialSettings, now: TrialSettings) -> bool:
    engines_own = {"prefill-step-size": _STEP, "stream-interval": 1}
    return all(
        now.get(name, engines_own.get(name, False)) == value for name, value in settings.items()
    )
