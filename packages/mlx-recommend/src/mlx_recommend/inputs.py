"""What an estimate is made from: a model's shape, its work, and measurements (decision 0042)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from mlx_catalog import Division, ModelRole
from mlx_recommend.calibration import PREFILL_STEP_TOKENS, LayerPart
from mlx_recommend.errors import RecommendError

DEFAULT_CONTEXT_TOKENS = 8192
"""The context that memory is planned for where nobody says otherwise."""
SPEED_CONTEXT_TOKENS = 1024
"""The prompt at which speed is given where nobody says otherwise; `mlx-bench` uses the same."""


type KvBits = Literal[4, 8, 16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a model is to do.

    Attributes:
        context_tokens: Tokens of prompt and answer together that each request may have.
        concurrency: Requests served side by side.
        speed_context_tokens: The context at which speed is given; None takes `context_tokens`.
        keeps_prefixes: Whether an engine that serves one request at a time keeps what a finished
            one leaves, for the next that begins alike. One that serves several always does.
        prefill_step_tokens: How much of a prompt the engine computes at once.
        kept_kv_bits: Bits of the keys and values that the engine keeps of finished requests; those
            of running ones have 16.
    """

    context_tokens: int = DEFAULT_CONTEXT_TOKENS
    concurrency: int = 1
    speed_context_tokens: int | None = SPEED_CONTEXT_TOKENS
    keeps_prefixes: bool = False
    prefill_step_tokens: int = PREFILL_STEP_TOKENS
    kept_kv_bits: KvBits = 16

    def __post_init__(self) -> None:
        counts = ("context_tokens", "concurrency", "speed_context_tokens", "prefill_step_tokens")
        for name in counts:
            value: int | None = getattr(self, name)
            if value is not None and value < 1:
                raise RecommendError(name, f"{name} must be at least 1, not {value}")

    @property
    def kept_contexts(self) -> int:
        """How many finished requests' caches count in addition to those of running ones.

        As many as run: with fewer, agents that take turns push each other's conversation out, and
        each turn is read from its beginning.
        """
        return self.concurrency if self.keeps_prefixes or self.concurrency > 1 else 0

    @property
    def tokens_in_speed(self) -> int:
        """The context at which speed is given: never more than the model is to hold."""
        if self.speed_context_tokens is None:
            return self.context_tokens
        return min(self.speed_context_tokens, self.context_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafts:
    """How often the drafts of a model's own heads are right (MTP), as others measured it.

    Attributes:
        low: The share in the text that suits them least.
        high: The share in the text that suits them best.
        source: Where the figures can be read.
    """

    low: float
    high: float
    source: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            problem = f"shares from 0 to 1, the lower first, not {self.low} and {self.high}"
            raise RecommendError("drafts", problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class UndividedWeights:
    """What each Mac keeps whole of a model that is divided between several.

    Attributes:
        output_bytes: The output layer, which is the embedding where it has no weights of its own.
        output_params: Its parameters.
        beside_bytes: What no token reads whole: an embedding that isn't the output layer, towers.
        in_layers_bytes: Parts of layers that every Mac needs, where each has a part of every layer.
        in_layers_params: Their parameters.
    """

    output_bytes: float
    output_params: float
    beside_bytes: float = 0.0
    in_layers_bytes: float = 0.0
    in_layers_params: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What memory and speed follow from. Unknown is None.

    Attributes:
        name: The catalog id, repository or folder.
        quant: The precision of the weights, for display; "" where it is unknown.
        weights_bytes: The weights in memory: all of them, towers included.
        decode_weight_bytes: The weights read for one token of one sequence.
        routed_weight_bytes: The part of those that are routed experts'.
        fp4_params: Parameters among those in 4-bit floating point.
        expert_share: Share of the routed experts that one token uses; 1 for a dense model.
        experts: Routed experts of a layer.
        float16: Whether it computes in float16 instead of bfloat16.
        decode_params: Parameters that a token is multiplied with.
        prefill_params: The same for each token of a prompt.
        routed_params: The part of those that are routed experts'.
        layers: Decoder layers.
        prefill_layers: Those that a prompt runs through (layers that share another's KV cache
            are needed for the last token only).
        parts: What the layers are made of.
        hidden_size: Width of the residual stream.
        layer_values: Values that a layer writes of a token of a text that is only read.
        layer_score_heads: Scores that it keeps of each such token and each of its text.
        role: What the model is for; only one that chats has speeds.
        growing_kv_elements: Cached values that each token of context adds.
        sliding_kv_elements: Cached values that each token inside the window adds.
        sliding_window: Tokens that sliding layers keep.
        state_bytes: Recurrent state of one sequence.
        query_group: Query heads that share a KV head.
        growing_query_heads: Query heads that see the whole context, of all layers together.
        sliding_query_heads: Those that see a window.
        growing_score_heads: Scores that a prefill step keeps of each token and each before it.
        sliding_score_heads: The same of those in the window.
        vocabulary: Words that the tokenizer knows; 0 where that is unknown.
        max_context_tokens: The context that the model was trained for.
        drafts: How often its own drafts are right; None where no one measured it.
        division: How several Macs can serve it together; None where its type is unknown.
        undivided: What each of them keeps whole; None where that is unknown.
    """

    name: str
    quant: str
    weights_bytes: int | None
    decode_weight_bytes: float | None = None
    layers: int | None = None
    prefill_params: float | None = None
    prefill_layers: int | None = None
    decode_params: float | None = None
    routed_weight_bytes: float = 0.0
    routed_params: float = 0.0
    fp4_params: float = 0.0
    expert_share: float = 1.0
    experts: int = 0
    float16: bool = False
    parts: Mapping[LayerPart, int] = field(default_factory=dict[LayerPart, int])
    hidden_size: int | None = None
    layer_values: int | None = None
    layer_score_heads: int = 0
    role: ModelRole = ModelRole.CHAT
    growing_kv_elements: int | None = None
    sliding_kv_elements: int | None = None
    sliding_window: int | None = None
    state_bytes: int | None = None
    query_group: float = 1.0
    growing_query_heads: int = 0
    sliding_query_heads: int = 0
    growing_score_heads: int = 0
    sliding_score_heads: int = 0
    vocabulary: int = 0
    max_context_tokens: int | None = None
    drafts: Drafts | None = None
    division: Division | None = None
    undivided: UndividedWeights | None = None

    @property
    def is_moe(self) -> bool:
        """Whether only some of the experts are read for a token."""
        return self.expert_share < 1

    @property
    def is_recurrent(self) -> bool:
        """Whether some layers keep a recurrent state."""
        return LayerPart.RECURRENT in self.parts

    def kv_elements(self, context_tokens: int, *, beyond_window: int = 0) -> int | None:
        """Cached values of one sequence of `context_tokens`; None where the geometry is unknown.

        Args:
            context_tokens: Tokens of the sequence.
            beyond_window: Tokens that sliding layers keep for a time beyond their window.
        """
        if self.growing_kv_elements is None or self.sliding_kv_elements is None:
            return None
        within = self.in_window(context_tokens, beyond_window)
        return self.growing_kv_elements * context_tokens + self.sliding_kv_elements * within

    def in_window(self, tokens: int, beyond: int = 0) -> int:
        """The tokens that sliding layers keep of `tokens`."""
        return tokens if self.sliding_window is None else min(tokens, self.sliding_window + beyond)


class Basis(StrEnum):
    """Where a speed comes from, best first."""

    MEASURED = "measured"
    """Saved on this machine."""
    REFERENCE = "reference"
    """Published for this kind of machine."""
    ESTIMATE = "estimate"
    """Computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What somebody measured of one model on one kind of machine.

    Attributes:
        basis: MEASURED or REFERENCE.
        quant: The precision that was measured.
        prompt_tps: Prefill speed; None or 0 where it wasn't measured.
        generation_tps: Decode speed; None or 0 where it wasn't measured.
        mtp_tps: Decode speed with its own drafts; None or 0 where it wasn't measured.
        prompt_tokens: The length of the prompt.
        source: Where the figures can be read.
    """

    basis: Basis
    quant: str
    prompt_tps: float | None = None
    generation_tps: float | None = None
    mtp_tps: float | None = None
    prompt_tokens: int | None = None
    source: str = ""
