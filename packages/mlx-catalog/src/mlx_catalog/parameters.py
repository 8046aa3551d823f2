"""A model's weights, counted from the widths in its `config.json`.

Matrices only: norms, biases and short convolutions are less than a hundredth of any model.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import mul

from mlx_catalog import recurrence
from mlx_catalog.attention import Matrices
from mlx_catalog.config_fields import (
    HIDDEN,
    LAYERS,
    ModelConfig,
    UnsaidError,
    each_layer,
    integer,
    items,
    needed,
    word,
)
from mlx_catalog.config_json import ACTIVE_EXPERTS, SHARED_EXPERTS, SHARED_WIDTH, ConfigReading
from mlx_catalog.layers import LayerKind
from mlx_catalog.precision import FP4_MODES, Precision, Scheme
from mlx_catalog.weights import TensorRole, Weights, is_output, role_of


def weights_of_config(reading: ConfigReading) -> Weights | None:
    """The weights of the model that a configuration describes.

    None where its layout is unknown here, or a width is missing.
    """
    try:
        model = _Model(reading)
        found = [*model.mixers(), *model.networks(), *model.experts(), *model.others()]
    except UnsaidError:
        return None
    modules = [module for module in found if module.params]
    params: dict[TensorRole, float] = {}
    for module in modules:
        params[module.role] = params.get(module.role, 0) + module.params
    sizes, by_bits = _sizes(modules, reading.precision, is_tied=model.is_tied)
    return Weights(
        params=params,
        size_bytes=sizes,
        active_share=_active_share(modules),
        params_by_bits=by_bits,
        float16=reading.precision.dtype == "float16",
        fp4=reading.precision.scheme is not None and reading.precision.scheme.mode in FP4_MODES,
    )


def network_widths(reading: ConfigReading) -> Mapping[str, frozenset[int]] | None:
    """How wide feed-forward networks are inside, by the kind of network; None where unsaid.

    The kinds are "networks", "experts" and "shared experts"; those that the model lacks aren't
    there.
    """
    try:
        found = _Model(reading).widths()
    except UnsaidError:
        return None
    return {kind: frozenset(widths) for kind, widths in found.items() if any(widths)}


@dataclass(frozen=True, slots=True)
class _Module:
    """The modules of one name, in all layers together.

    Attributes:
        role: What a token does with them.
        name: The name; that of shared experts begins with `shared.`.
        read: Of routed experts, the parameters that a token is sent to; None where unknown.
    """

    role: TensorRole
    name: str
    params: float
    layers: int = 1
    read: float | None = 0.0


def _active_share(modules: Iterable[_Module]) -> float | None:
    """The share of the routed experts that a token is sent to; None where unknown."""
    routed = [module for module in modules if module.role is TensorRole.ROUTED]
    read = [module.read for module in routed if module.read is not None]
    if len(read) < len(routed):
        return None
    return sum(read) / sum(module.params for module in routed) if routed else 1.0


class _Model:
    """A language model of a known layout; every question may find a number missing."""

    def __init__(self, reading: ConfigReading) -> None:
        self._text, self._row = reading.text, needed(reading.row)
        self._geometry = needed(reading.geometry)
        self._layers = self._geometry.layers
        self._hidden = needed(self._geometry.hidden_size)
        self._vocab = needed(self._geometry.vocab_size)
        self._tower = _tower(reading.tower or {})
        self.is_tied = self._geometry.tied_embeddings is not False
        # the matrices of a feed-forward network, or of an expert, are all of one size
        self._network = ("up_proj", "down_proj", *(() if self._row.ungated else ("gate_proj",)))

    def others(self) -> Iterator[_Module]:
        """Embeddings, output layer, towers."""
        embedding = float(self._vocab * self._hidden)
        yield _Module(TensorRole.OUTPUT, TensorRole.OUTPUT.value, embedding)
        if not self.is_tied:
            yield _Module(TensorRole.LOOKED_UP, TensorRole.LOOKED_UP.value, embedding)
        width = self._geometry.per_layer_embedding_dim
        if width is not None:
            rows = integer(self._text, "vocab_size_per_layer_input") or self._vocab
            yield _Module(
                TensorRole.LOOKED_UP, "embed_tokens_per_layer", rows * width * self._layers
            )
            # gate, projection, and the shared one
            yield _Module(TensorRole.DENSE, "per_layer", self._layers * 3 * self._hidden * width)
        positions = integer(self._text, "n_positions") or 0
        yield _Module(TensorRole.LOOKED_UP, "wpe", float(positions * self._hidden))
        yield _Module(TensorRole.ASIDE, "tower", self._tower)

    def mixers(self) -> Iterator[_Module]:
        """What mixes tokens."""
        # layers that share another's cache have weights like any
        text = {**self._text, "num_kv_shared_layers": 0}
        for kind, layers in Counter(needed(self._row.kinds(text, self._layers))).items():
            for name, params in self._mixer(kind).items():
                yield _Module(TensorRole.DENSE, name, layers * params, layers)

    def _mixer(self, kind: LayerKind) -> Matrices:
        """Of one layer."""
        found: Matrices = {}
        if kind in ("recurrent", "parallel"):
            state = needed(self._geometry.recurrent)
            found |= recurrence.matrices(self._text, state, self._hidden)
        if kind not in ("recurrent", "none"):
            found |= self._row.attention_matrices(self._text, is_sliding=kind == "sliding")
        return found

    def networks(self) -> Iterator[_Module]:
        """Dense feed-forward networks."""
        text, widths = self._text, self._network_widths()
        if not widths:
            return
        wide, layers = sum(widths), len(widths)
        if text.get("use_double_wide_mlp") is True:
            wide += (integer(text, "num_kv_shared_layers") or 0) * widths[-1]
        for name in self._network:
            yield _Module(TensorRole.DENSE, name, self._hidden * wide, layers)

    def experts(self) -> Iterator[_Module]:
        """Routed and shared experts, and routers; none in a dense model."""
        text, hidden, experts = self._text, self._hidden, self._geometry.experts
        layers = self._moe_layers()
        if experts is None or not layers:
            return
        widths = self._expert_widths(layers)
        shared, used = self._shared_width(widths), each_layer(text, layers, *ACTIVE_EXPERTS)
        yield _Module(TensorRole.DENSE, "router", layers * hidden * experts.total, layers)
        # Nemotron's experts work at a latent width where the configuration names one
        latent = integer(text, "moe_latent_size")
        if latent is not None:
            yield _Module(TensorRole.DENSE, "latent", layers * 2 * hidden * latent, layers)
        stream = latent or hidden
        every = stream * sum(widths) * experts.total
        read = None if used is None else min(stream * sum(map(mul, widths, used)), every)
        for name in self._network:
            yield _Module(TensorRole.DENSE, f"shared.{name}", hidden * shared, layers)
            yield _Module(TensorRole.ROUTED, name, every, layers, read)

    def widths(self) -> dict[str, list[int]]:
        """The widths of networks, by their kind."""
        found, layers = {"networks": self._network_widths()}, self._moe_layers()
        if layers:
            experts = self._expert_widths(layers)
            shared = self._shared_width(experts) // layers
            found |= {"experts": experts, "shared experts": [shared]}
        return found

    def _network_widths(self) -> list[int]:
        """The width of the dense network of each layer that has one."""
        text, layers = self._text, self._stated("ffn_layers", self._layers)
        if text.get("enable_moe_block") is not True:  # Gemma 4 has both in each layer
            layers -= self._moe_layers()
        if layers <= 0:
            return []
        return needed(each_layer(text, layers, "intermediate_size", "ffn_hidden_size"))

    def _expert_widths(self, layers: int) -> list[int]:
        """The width of an expert in each layer that has some."""
        names = "moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size"
        return needed(each_layer(self._text, layers, *names))

    def _shared_width(self, widths: Sequence[int]) -> int:
        """The width of all shared experts of all layers together."""
        named = each_layer(self._text, len(widths), *SHARED_WIDTH)
        if named is not None:
            return sum(named)
        if not any(self._text.get(name) for name in SHARED_EXPERTS):
            return 0
        return sum(map(mul, needed(each_layer(self._text, len(widths), *SHARED_EXPERTS)), widths))

    def _moe_layers(self) -> int:
        """How many layers have routed experts: all but the first, in steps; or as listed."""
        text, layers = self._text, self._layers
        if self._geometry.experts is None:
            return 0
        for name in ("moe_layer_freq", "is_moe_layer"):
            if isinstance(text.get(name), list):
                return min(sum(bool(each) for each in items(text, name)), layers)
        first = "first_k_dense_replace", "num_dense_layers", "moe_layer_start_index"
        dense = (integer(text, *first) or 0) + len(items(text, "mlp_only_layers"))
        steps = "decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq"
        usual = max(layers - dense, 0) // (integer(text, *steps, "moe_layer_interval") or 1)
        return self._stated("moe_layers", usual)

    def _stated(self, name: str, usual: int) -> int:
        """A number that `mlx_catalog.spellings` worked out, 0 included; else the usual one."""
        stated = self._text.get(name)
        return stated if isinstance(stated, int) else usual


type _Names = tuple[TensorRole, str]

#: Modules that hold what the count has under several names, and the other way round.
_OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("qkv_proj", "query_key_value", "Wqkv", "wqkv", "c_attn"), ("q_proj", "k_proj", "v_proj")
    ),
    "in_proj_qkvz": ("in_proj_qkv", "in_proj_z"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "w1": ("gate_proj",),
    "w2": ("down_proj",),
    "w3": ("up_proj",),
}


def _sizes(
    modules: Iterable[_Module], precision: Precision, *, is_tied: bool
) -> tuple[dict[TensorRole, float] | None, dict[int, float]]:
    """Bytes by role, and parameters by bits; none where the packing is unknown."""
    plain_bits, scheme = precision.plain_bits, precision.scheme
    if plain_bits is None:
        return None, {}
    exceptions = _exceptions(scheme, is_tied=is_tied) if scheme is not None else {}
    sizes: dict[TensorRole, float] = {}
    by_bits: dict[int, float] = {}
    for module in modules:
        usual = scheme if scheme is not None and module.role in scheme.roles else None
        others = exceptions.get((module.role, module.name), [])[: module.layers]
        kept = [*others, *[usual] * (module.layers - len(others))]
        for each, layers in Counter(kept).items():
            params = module.params * layers / module.layers
            taken = each.bits_per_weight if each is not None else plain_bits
            sizes[module.role] = sizes.get(module.role, 0) + params * taken / 8
            bits = each.bits if each is not None else plain_bits
            by_bits[bits] = by_bits.get(bits, 0) + params
    return sizes, by_bits


def _exceptions(scheme: Scheme, *, is_tied: bool) -> dict[_Names, list[Scheme | None]]:
    """What a scheme says of single modules, by the names under which they are counted."""
    found: dict[_Names, list[Scheme | None]] = {}
    for path, each in scheme.overrides.items():
        if is_tied and is_output(path):
            continue
        role, last = role_of(path, is_tied=is_tied), path.rpartition(".")[2]
        for name in _OTHER_NAMES.get(last, (last,)):
            if (
                role in (TensorRole.OUTPUT, TensorRole.LOOKED_UP)
                and last != "embed_tokens_per_layer"
            ):
                name = role.value  # noqa: PLW2901 - there is one of each
            elif "shared" in path:
                name = f"shared.{name}"  # noqa: PLW2901
            found.setdefault((role, name), []).append(each)
    return found


def _tower(tower: ModelConfig) -> float:
    """Parameters of a tower for images that says how wide it is; 0 where none does."""
    layers, width = integer(tower, "depth", *LAYERS), integer(tower, *HIDDEN)
    wide = integer(tower, "intermediate_size")
    if layers is None or width is None or wide is None:
        return 0.0
    matrices = 3 if word(tower, "model_type").startswith("pixtral") else 2
    return float(layers * (4 * width * width + matrices * width * wide))
