"""What a catalog entry says: frozen, typed, units in the names, a source with the figures.

Unknown is `None` everywhere and never the same as `False`, `0` or `""`: a model whose tool calling
nobody has tried has `tool_calling: None`; one that was tried and cannot has `False`. GB are 10^9
bytes, as the Hub counts them.
"""

from enum import StrEnum
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct, field

from mlx_catalog.parsers import ReasoningParserName, ToolCallParserName
from mlx_catalog.roles import ModelRole

type Confidence = Literal["high", "medium", "low"]


class Quant(StrEnum):
    """The formats that weights are published in: three precisions first, then all others.

    The three are what models are offered in unless another one is asked for by name. Those names
    are as repositories on the Hub end.
    """

    INT4 = "int4"
    INT8 = "int8"
    BF16 = "bf16"
    INT2 = "2bit"
    INT3 = "3bit"
    INT5 = "5bit"
    INT6 = "6bit"
    MXFP4 = "mxfp4"
    MXFP8 = "mxfp8"
    NVFP4 = "nvfp4"
    INT4_DWQ = "int4-dwq"
    """4 bits whose scales were distilled afterwards."""
    INT4_QAT = "int4-qat"
    """4 bits that the model was trained for."""

    @property
    def bits(self) -> int:
        """Bits of a weight by itself."""
        return _FORMATS[self].bits

    @property
    def bits_per_weight(self) -> float:
        """Bits of a weight with its share of a group's scale, and of its bias where it has one.

        These are the groups that mlx-lm makes unless configured otherwise.
        """
        made = _FORMATS[self]
        return made.bits + (made.shared_bits / made.group_size if made.group_size else 0)

    @property
    def mode(self) -> str:
        """MLX's name for how weights are packed: affine, mxfp4, mxfp8 or nvfp4."""
        return _FORMATS[self].mode

    @property
    def group_size(self) -> int:
        """Weights that share a scale; 0 where there is none."""
        return _FORMATS[self].group_size

    @property
    def is_made_here(self) -> bool:
        """Whether a conversion by mlx-lm makes it; others are published, or not to be had."""
        return self not in (Quant.BF16, Quant.INT4_DWQ, Quant.INT4_QAT)

    @property
    def read_as(self) -> "Quant":
        """What a model's files tell of it: how many bits, not how they came about."""
        return Quant.of_bits(self.bits) or self

    @classmethod
    def of_bits(cls, bits: int | None, mode: str | None = None) -> "Quant | None":
        """The format of so many bits in one of MLX's modes; None where it is none of these."""
        wanted = mode or "affine"
        return next((each for each in cls if (each.bits, each.mode) == (bits, wanted)), None)


class _Format(NamedTuple):
    """How a format packs weights.

    Attributes:
        shared_bits: Bits of a group's scale and bias together.
    """

    bits: int
    group_size: int = 64
    shared_bits: int = 32
    mode: str = "affine"


_FORMATS = {
    Quant.INT4: _Format(4),
    Quant.INT8: _Format(8),
    Quant.BF16: _Format(16, 0, 0),
    Quant.INT2: _Format(2),
    Quant.INT3: _Format(3),
    Quant.INT5: _Format(5),
    Quant.INT6: _Format(6),
    Quant.MXFP4: _Format(4, 32, 8, "mxfp4"),
    Quant.MXFP8: _Format(8, 32, 8, "mxfp8"),
    Quant.NVFP4: _Format(4, 16, 8, "nvfp4"),
    Quant.INT4_DWQ: _Format(4),
    Quant.INT4_QAT: _Format(4),
}
PRECISIONS = (Quant.INT4, Quant.INT8, Quant.BF16)
"""What is offered, and may be the default."""


Architecture = Literal[
    "transformer",
    "transformer-swa",
    "moe",
    "moe-swa",
    "moe-chunked",
    "mla-transformer",
    "mla-moe",
    "compressed-sparse-moe",
    "nas-transformer",
    "mamba1-hybrid",
    "mamba2-hybrid",
    "mamba2-hybrid-moe",
    "mamba2-parallel-hybrid",
    "gated-deltanet-hybrid",
    "gated-deltanet-hybrid-moe",
    "kda-mla-hybrid-moe",
    "shortconv-hybrid",
    "shortconv-hybrid-moe",
    "encoder",
    "encoder-swa",
    "encoder-decoder",
    "transducer",
    "styletts2",
]
"""How a model remembers; `swa` is sliding-window attention in most layers.

An encoder sees a text from both sides and remembers nothing of it; the last three read or make
speech.
"""

RecurrentKind = Literal["mamba1", "mamba2", "gated-deltanet", "kda", "shortconv"]
Pooling = Literal["mean", "cls", "lasttoken"]
"""How an embedder makes one vector of a text from the vectors of its tokens."""
ThinkingControl = Literal["never", "always", "toggle", "effort", "budget", "system-prompt"]

# JSON Schema has no `\Z`, and in Python `$` matches before a line break at the end as well
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]*$(?!\n)", max_length=64)]
Repo = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+$(?!\n)")]
Text = Annotated[str, Meta(min_length=1)]
NonNegative = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(gt=0)]
Amount = Annotated[float, Meta(gt=0)]
Percentage = Annotated[float, Meta(ge=0, le=100)]
Share = Annotated[float, Meta(ge=0, le=1)]
Version = Annotated[str, Meta(pattern=r"^\d+\.\d+\.\d+$(?!\n)")]
ProfileId = Annotated[str, Meta(pattern=r"^m\d+(-(pro|max|ultra))?-\d+$(?!\n)")]


class RecurrentState(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state that recurrent layers keep, the same size at any context length.

    One sequence keeps, in each of `layers` layers, `(conv_kernel - 1) * conv_channels` values of
    the short convolution and `heads * head_dim * state_dim` values of the recurrence (0 of the
    latter for a pure convolution).
    """

    kind: RecurrentKind
    layers: Positive | None = None
    conv_channels: Positive | None = None
    conv_kernel: Positive | None = None
    heads: NonNegative | None = None
    head_dim: NonNegative | None = None
    state_dim: NonNegative | None = None

    @property
    def bytes_per_sequence(self) -> int | None:
        """Bytes that one sequence keeps in mlx-lm; None where a dimension is unknown.

        The convolution's history is in the activations' 16 bits. The recurrence is in 32 bits,
        except Mamba-1's, which follows the activations (found by running mlx-lm 0.31.3 on small
        models of each kind).
        """
        if self.layers is None or self.conv_channels is None or self.conv_kernel is None:
            return None
        if self.heads is None or self.head_dim is None or self.state_dim is None:
            return None
        history = (self.conv_kernel - 1) * self.conv_channels
        state = self.heads * self.head_dim * self.state_dim
        return self.layers * (history * 2 + state * (2 if self.kind == "mamba1" else 4))


class Experts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The routed experts of a mixture-of-experts model, per MoE layer."""

    total: Positive
    active: Positive | None = None
    shared: NonNegative | None = None


class Geometry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What decides the memory of a model besides its weights, at any context length.

    `full_attention_layers` own a cache that grows with the context; `sliding_layers` own one that
    stops growing at `sliding_window` tokens; layers that share another layer's cache
    (`shared_kv_layers`) are in neither. Full-attention layers use `global_kv_heads` and
    `global_head_dim` where those differ from the sliding layers' `kv_heads` and `head_dim`.
    Multi-head latent attention stores `mla_latent_dim + mla_rope_dim` values a token and layer
    instead of keys and values. The embedding has `vocab_size` rows of `hidden_size` values; the
    output layer repeats it where `tied_embeddings` is False. Where `per_layer_embedding_dim` is
    set, each layer looks up as many values of a token in its own embedding. The feed-forward
    network of a layer is `feed_forward_size` values wide.
    """

    layers: Positive
    source: Text
    hidden_size: Positive | None = None
    feed_forward_size: Positive | None = None
    vocab_size: Positive | None = None
    tied_embeddings: bool | None = None
    per_layer_embedding_dim: Positive | None = None
    full_attention_layers: NonNegative | None = None
    query_heads: Positive | None = None
    kv_heads: Positive | None = None
    head_dim: Positive | None = None
    global_kv_heads: Positive | None = None
    global_head_dim: Positive | None = None
    sliding_layers: NonNegative | None = None
    sliding_window: Positive | None = None
    shared_kv_layers: NonNegative | None = None
    mla_latent_dim: Positive | None = None
    mla_rope_dim: NonNegative | None = None
    recurrent: RecurrentState | None = None
    experts: Experts | None = None

    @property
    def embedding_params(self) -> int | None:
        """Parameters of one copy of the embedding; None if unknown."""
        if self.vocab_size is None or self.hidden_size is None:
            return None
        return self.vocab_size * self.hidden_size

    @property
    def per_layer_embedding_params(self) -> int:
        """Parameters of the embeddings that layers have of their own; 0 where none is known."""
        return self.layers * (self.vocab_size or 0) * (self.per_layer_embedding_dim or 0)

    @property
    def query_group(self) -> float | None:
        """Query heads that share a KV head, outside layers with `global_kv_heads`; or None."""
        if self.query_heads is None or self.kv_heads is None:
            return None
        return self.query_heads / self.kv_heads

    @property
    def growing_kv_elements_per_token(self) -> int | None:
        """Cached values that a token of context adds in full-attention layers; None if unknown."""
        if self.full_attention_layers is None:
            return None
        if self.full_attention_layers == 0:
            return 0
        if self.mla_latent_dim is not None:
            return self.full_attention_layers * (self.mla_latent_dim + (self.mla_rope_dim or 0))
        heads = self.global_kv_heads or self.kv_heads
        width = self.global_head_dim or self.head_dim
        if heads is None or width is None:
            return None
        return self.full_attention_layers * 2 * heads * width

    @property
    def state_bytes_per_sequence(self) -> int | None:
        """Bytes of recurrent state of one sequence: 0 without recurrent layers, None if unknown."""
        return 0 if self.recurrent is None else self.recurrent.bytes_per_sequence

    @property
    def sliding_kv_elements_per_token(self) -> int | None:
        """Cached values that a token in the window adds in all sliding layers; None if unknown."""
        if self.sliding_layers is None:
            return None
        if self.sliding_layers == 0:
            return 0
        if self.kv_heads is None or self.head_dim is None:
            return None
        return self.sliding_layers * 2 * self.kv_heads * self.head_dim


class Source(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where one quantization's weights come from: a ready MLX repository, or one to convert."""

    source: Text
    """Where the repository was seen."""
    hf_repo: Repo | None = None
    """Ready MLX weights; None where they must be converted from `convert_from`."""
    convert_from: Repo | None = None
    disk_size_gb: Amount | None = None
    disk_size_source: Text | None = None
    """What says so: a published byte count, or the estimate's formula."""
    disk_size_estimated: bool = False
    bits_per_weight: Amount | None = None
    """Bits of a weight with its scales, where they aren't the format's own."""
    fp4_experts: bool = False
    """Whether the routed experts are MXFP4, whatever the rest is."""
    note: str = ""


class Sources(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One source a format; None where none is known."""

    int4: Source | None = None
    int8: Source | None = None
    bf16: Source | None = None
    int2: Source | None = field(default=None, name="2bit")
    int3: Source | None = field(default=None, name="3bit")
    int5: Source | None = field(default=None, name="5bit")
    int6: Source | None = field(default=None, name="6bit")
    mxfp4: Source | None = None
    mxfp8: Source | None = None
    nvfp4: Source | None = None
    int4_dwq: Source | None = field(default=None, name="int4-dwq")
    int4_qat: Source | None = field(default=None, name="int4-qat")

    def get(self, quant: Quant) -> Source | None:
        """The source of `quant`, or None."""
        found: Source | None = getattr(self, Quant(quant).name.lower())
        return found

    def items(self) -> tuple[tuple[Quant, Source], ...]:
        """The known sources: the three precisions first, smallest first."""
        return tuple((quant, source) for quant in Quant if (source := self.get(quant)) is not None)


class Capabilities(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the model can do when the pinned engine serves it; `""` where there is no parser."""

    tool_calling: bool | None = None
    tool_call_parser: ToolCallParserName = ""
    thinking: bool | None = None
    thinking_control: ThinkingControl | None = None
    reasoning_parser: ReasoningParserName = ""
    vision: bool | None = None
    note: str = ""


class Quality(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Published scores from 0 to 100, each with its source in `source` under the same name."""

    source: dict[str, str]
    overall: Percentage | None = None
    coding: Percentage | None = None
    reasoning: Percentage | None = None
    instruction_following: Percentage | None = None


class BenchmarkFigure(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One published measurement on one kind of machine: tokens a second at batch size one."""

    source: Text
    quant: Quant
    prompt_tps: Amount | None = None
    gen_tps: Amount | None = None
    memory_gb: Amount | None = None
    gpu_cores: Positive | None = None
    engine: str = ""
    prompt_tokens: Positive | None = None
    generation_tokens: Positive | None = None
    date: str = ""
    note: str = ""


class DraftAcceptance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often a model's own drafts are right: what was measured of its heads, by text and depth.

    The heads for multi-token prediction draft the next tokens; the model checks them in its next
    step.
    """

    low: Share
    high: Share
    source: Text


class EightBitCache(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether answers stay what they are if keys and values are kept in 8 bits, as measured."""

    safe: bool
    source: Text


class CatalogEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model of the catalog.

    `source` says where the figures of the entry's own level (parameters, context length, licence,
    date) come from; `geometry`, `sources`, `quality` and `benchmarks` carry their own.
    """

    id: Name
    name: Text
    family: Name
    params_b: Amount
    architecture: Architecture
    model_type: Text
    source: Text
    geometry: Geometry
    sources: Sources
    capabilities: Capabilities
    max_context_tokens: Positive | None = None
    """The longest text that it was made for; None where its input isn't counted in tokens."""
    role: ModelRole = ModelRole.CHAT
    """What it is for; only a model that chats is proposed for the usual tiers."""
    dimensions: Positive | None = None
    """The length of an embedder's vectors."""
    matryoshka: bool | None = None
    """Whether the first part of such a vector can be used by itself."""
    pooling: Pooling | None = None
    """Used where the model's folder doesn't say it."""
    processor_repo: Repo | None = None
    """Where a speech model's tokenizer and processor are, if its repositories lack them."""
    active_params_b: Amount | None = None
    """Parameters used for a token: a mixture-of-experts model's; None for a dense one."""
    tower_params_b: Amount | None = None
    """Of `params_b`, those of towers for images and sound, which text generation never reads."""
    mtp_params_b: Amount | None = None
    """Of `params_b`, those of heads for multi-token prediction, which MLX doesn't load."""
    mtp_acceptance: DraftAcceptance | None = None
    """How often the drafts of those heads are right; None where no one measured it."""
    kv_8bit: EightBitCache | None = None
    """What an 8-bit KV cache does to answers; None where no one measured it."""
    hf_base_repo: Repo | None = None
    min_mlx_lm_version: Version | None = None
    aliases: tuple[Name, ...] = ()
    alias_notes: dict[str, str] = field(default_factory=dict[str, str])
    """For an alias that is another model's name: why this is the model that answers to it."""
    license: Text | None = None
    commercial_use: bool | None = None
    """False where the licence forbids it; None where the catalog doesn't say."""
    gated: bool | None = None
    """Whether the vendor's repository asks for a licence's acceptance; conversions seldom do."""
    release_date: str | None = None
    quality: Quality | None = None
    benchmarks: dict[ProfileId, BenchmarkFigure] = field(default_factory=dict[str, BenchmarkFigure])
    tags: tuple[Name, ...] = ()
    confidence: Confidence = "high"
    notes: tuple[str, ...] = ()

    @property
    def is_moe(self) -> bool:
        """Whether only a part of the parameters is used for a token."""
        return self.active_params_b is not None and self.active_params_b < self.params_b

    @property
    def has_mtp_heads(self) -> bool:
        """Whether it was published with heads for multi-token prediction."""
        return self.mtp_params_b is not None or self.mtp_acceptance is not None

    @property
    def loaded_params_b(self) -> float:
        """Parameters in memory while it is served, in 10^9: with its towers only if it sees."""
        towers = 0.0 if self.capabilities.vision else self.tower_params_b or 0.0
        return self.params_b - towers - (self.mtp_params_b or 0.0)

    def measured_sources(self) -> tuple[tuple[Quant, Source], ...]:
        """The sources whose published size tells how many parameters there are."""
        return tuple(
            (quant, source)
            for quant, source in self.sources.items()
            if source.disk_size_gb and not source.disk_size_estimated
            if source.bits_per_weight is None and not source.fp4_experts
        )

    def text_params_b(self, quant: Quant) -> float:
        """Parameters of the language model by the size at `quant`, in 10^9; what isn't a tower."""
        return (self.weights_bytes(quant) / 1e9 - 2 * self._towers_b) * 8 / quant.bits_per_weight

    def expected_size_gb(self, quant: Quant, *, measured_at: Quant | None = None) -> float:
        """The size at `quant` that follows from the one at `measured_at`, or from `params_b`."""
        text = self.loaded_params_b - self._towers_b
        if measured_at is not None:
            text = self.text_params_b(measured_at)
        return text * quant.bits_per_weight / 8 + 2 * self._towers_b

    @property
    def _towers_b(self) -> float:
        return (self.tower_params_b or 0.0) if self.capabilities.vision else 0.0

    def quant_of(self, hf_repo: str) -> Quant | None:
        """The quantization that the repository `hf_repo` holds of this model, or None."""
        wanted = hf_repo.lower()
        for quant, source in self.sources.items():
            if source.hf_repo is not None and source.hf_repo.lower() == wanted:
                return quant
        is_base = self.hf_base_repo is not None and self.hf_base_repo.lower() == wanted
        return Quant.BF16 if is_base else None

    def weights_bytes(self, quant: Quant) -> int:
        """Bytes of the weights at `quant`: the published size, else parameters times bits."""
        source = self.sources.get(quant)
        if source is not None and source.disk_size_gb is not None:
            return round(source.disk_size_gb * 1e9)
        own_bits = source.bits_per_weight if source is not None else None
        return round(self.params_b * 1e9 * (own_bits or Quant(quant).bits_per_weight) / 8)
