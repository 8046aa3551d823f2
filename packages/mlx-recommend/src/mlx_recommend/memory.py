"""How much memory a model takes while it is served (decision 0045)."""

from dataclasses import dataclass, replace

from mlx_catalog import ModelRole
from mlx_recommend.calibration import (
    CHECKPOINTS,
    HEARD_BYTES_PER_S,
    KV_BYTES_PER_ELEMENT,
    KV_GROUP_BYTES,
    KV_GROUP_ELEMENTS,
    LONGEST_SOUND_S,
    PREFILL_STEP_TOKENS,
    PROCESS_BYTES,
    READING_LONGEST_TOKENS,
    READING_PROCESS_BYTES,
    READING_TOKENS,
    READING_WORD_BYTES,
    SCORE_BYTES,
    SCORE_COPIES,
    SMALL_ARRAYS_BYTES,
    SOUND_WINDOW_TOKENS,
    STATE_STEP_BYTES_PER_TOKEN,
    STEP_BYTES_PER_TOKEN,
    WORD_BYTES,
)
from mlx_recommend.inputs import KvBits, ModelShape, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """Bytes of memory, part by part; None where a model's geometry leaves a part unknown.

    Attributes:
        weights_bytes: All parameters: what isn't used for a token still has to be there.
        kv_cache_bytes: Keys and values of every request at its full context.
        prefix_cache_bytes: Keys, values and state kept of finished requests, for reuse.
        state_bytes: Recurrent state of every request.
        overhead_bytes: What the GPU needs beside these, prefill included.
        process_bytes: What the engine's process takes beyond all of that: Python, the tokenizer. No
            part of the total, which the GPU's limit is for.
    """

    weights_bytes: int | None
    kv_cache_bytes: int | None
    prefix_cache_bytes: int | None
    state_bytes: int | None
    overhead_bytes: int
    process_bytes: int

    @property
    def total_bytes(self) -> int | None:
        """What the GPU needs at the peak: the sum; None where a part is unknown."""
        return None if None in self._parts else self.least_bytes

    @property
    def with_process_bytes(self) -> int | None:
        """What the Mac's memory needs to hold: the total, and the process; None where unknown."""
        total = self.total_bytes
        return None if total is None else total + self.process_bytes

    @property
    def least_bytes(self) -> int:
        """The sum of the parts that are known: it takes at least as much."""
        return sum(part for part in self._parts if part is not None)

    def fits(self, limit_bytes: int | None) -> bool | None:
        """Whether it is within the limit of a GPU; None where that can't be known.

        A part that is unknown leaves it open, unless the others are too much by themselves.
        """
        if limit_bytes is None:
            return None
        if self.least_bytes > limit_bytes:
            return False
        return None if self.total_bytes is None else True

    def to_document(self, limit_bytes: int | None) -> dict[str, int | None]:
        """The parts as JSON, with what they may take; the first four add up to the total.

        The prefix cache, which is a part of the overhead there, is named by itself as well; what
        the process takes comes on top of the total.
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
            "process_bytes": self.process_bytes,
        }

    @property
    def _parts(self) -> tuple[int | None, ...]:
        return (
            self.weights_bytes,
            self.kv_cache_bytes,
            self.prefix_cache_bytes,
            self.state_bytes,
            self.overhead_bytes,
        )


def memory_use(shape: ModelShape, workload: Workload) -> MemoryUse:
    """The memory that a model needs at its peak, with every request at its full context."""
    if shape.role.reads_only:
        return _reading_memory_use(shape, workload.context_tokens)
    if shape.role.is_of_sound:
        return _sound_memory_use(shape)
    elements = shape.kv_elements(workload.context_tokens)
    kv_bytes = None if elements is None else elements * KV_BYTES_PER_ELEMENT
    state_bytes, concurrency = shape.state_bytes, workload.concurrency
    kept_bytes: int | None = 0
    if workload.kept_contexts:
        one_bytes = kept_context_bytes(shape, workload)
        kept_bytes = None if one_bytes is None else one_bytes * workload.kept_contexts
    return MemoryUse(
        weights_bytes=shape.weights_bytes,
        kv_cache_bytes=None if kv_bytes is None else kv_bytes * concurrency,
        prefix_cache_bytes=kept_bytes,
        state_bytes=None if state_bytes is None else state_bytes * concurrency,
        overhead_bytes=SMALL_ARRAYS_BYTES + _step_bytes(shape, workload),
        process_bytes=PROCESS_BYTES + WORD_BYTES * shape.vocabulary,
    )


def kept_context_bytes(shape: ModelShape, workload: Workload) -> int | None:
    """What the engine keeps of one finished request at its full context, for the next turn.

    None where the geometry is unknown. Only caches that grow with the context are ever quantized:
    windows and recurrent states stay as they are.
    """
    tokens, state_bytes = workload.context_tokens, shape.state_bytes
    if shape.growing_kv_elements is None or shape.sliding_kv_elements is None:
        return None
    if state_bytes is None:
        return None
    in_window = shape.in_window(tokens) * shape.sliding_kv_elements * KV_BYTES_PER_ELEMENT
    # what can't be cut back to an earlier token is kept at several
    uncut = state_bytes + (in_window if shape.sliding_window else 0)
    growing = kv_bytes_at(shape.growing_kv_elements * tokens, workload.kept_kv_bits)
    return growing + in_window + state_bytes + CHECKPOINTS * uncut


def kv_bytes_at(elements: int, bits: KvBits) -> int:
    """What keys and values take at so many bits each, with the scales and biases of groups."""
    if bits == 8 * KV_BYTES_PER_ELEMENT:
        return elements * KV_BYTES_PER_ELEMENT
    groups = -(-elements // KV_GROUP_ELEMENTS)
    return groups * (KV_GROUP_ELEMENTS * bits // 8 + KV_GROUP_BYTES)


def _sound_memory_use(shape: ModelShape) -> MemoryUse:
    """The memory of a model that hears or speaks; one that hears is given sounds of any length."""
    read = _reading_memory_use(shape, SOUND_WINDOW_TOKENS)
    hears = shape.role is ModelRole.SPEECH_TO_TEXT
    heard_bytes = HEARD_BYTES_PER_S * LONGEST_SOUND_S if hears else 0
    return replace(read, overhead_bytes=read.overhead_bytes + heard_bytes)


def _reading_memory_use(shape: ModelShape, context_tokens: int) -> MemoryUse:
    """The memory of a model that only reads, and keeps nothing of what it has read.

    Args:
        context_tokens: The longest text.
    """
    longest = min(context_tokens, shape.max_context_tokens or context_tokens)
    longest = min(longest, READING_LONGEST_TOKENS)
    tokens, values = max(READING_TOKENS, longest), shape.layer_values
    weights_bytes, params = shape.weights_bytes, shape.decode_params
    is_wide = weights_bytes is not None and params is not None and weights_bytes > 3 * params
    kept = tokens * ((values or 0) + SCORE_COPIES * shape.layer_score_heads * longest)
    if shape.growing_kv_elements:  # what writes as well is told by a mask what it may see
        kept += (longest + tokens) * longest
    return MemoryUse(
        weights_bytes=weights_bytes,
        kv_cache_bytes=0 if values is not None else None,
        prefix_cache_bytes=0,
        state_bytes=0,
        overhead_bytes=kept * (4 if is_wide else 2),
        process_bytes=READING_PROCESS_BYTES + READING_WORD_BYTES * shape.vocabulary,
    )


def prefill_step(shape: ModelShape, context_tokens: int, concurrency: int = 1) -> int:
    """The tokens that an engine should compute at once of a prompt of up to `context_tokens`.

    The engines' own 2,048 where a step's scores are never kept, or stay small beside the weights;
    else fewer, down to 256, below which GPUs starve.
    """
    work = Workload(context_tokens=context_tokens, concurrency=concurrency)
    steps = (replace(work, prefill_step_tokens=tokens) for tokens in _STEPS)
    bearable = max(_SMALL_BYTES, (shape.weights_bytes or 0) // _SMALL_SHARE)
    fitting = (each for each in steps if scores_bytes(shape, each) <= bearable)
    chosen = next(fitting, None)
    return chosen.prefill_step_tokens if chosen is not None else _STEPS[-1]


_STEPS = (PREFILL_STEP_TOKENS, 1024, 512, 256)
_SMALL_BYTES = 250_000_000
_SMALL_SHARE = 16
_PREFILL_BATCH = 8
"""As many prompts as engines begin together at most."""


def _step_bytes(shape: ModelShape, work: Workload) -> int:
    """What prefill steps take for a time, at the end of prompts as long as the context."""
    step, requests = _step_and_requests(work)
    each = STATE_STEP_BYTES_PER_TOKEN if shape.state_bytes else STEP_BYTES_PER_TOKEN
    # a sliding cache is cut to its window only after the step
    kept = shape.in_window(work.context_tokens, step) - shape.in_window(work.context_tokens)
    cached = kept * (shape.sliding_kv_elements or 0) * KV_BYTES_PER_ELEMENT
    return requests * (step * each + cached) + scores_bytes(shape, work)


def scores_bytes(shape: ModelShape, work: Workload) -> int:
    """What a layer's scores take in a prefill step, a part of the overhead.

    0 where MLX has a kernel that does without keeping them.
    """
    step, requests = _step_and_requests(work)
    seen = shape.in_window(work.context_tokens, step)
    growing, sliding = shape.growing_score_heads * work.context_tokens, shape.sliding_score_heads
    return requests * step * max(growing, sliding * seen) * SCORE_BYTES


def _step_and_requests(work: Workload) -> tuple[int, int]:
    step = min(work.prefill_step_tokens, work.context_tokens)
    return step, min(work.concurrency, _PREFILL_BATCH)


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
