"""A model's weights, counted from the widths in its `config.json`.

Matrices only: norms, biases and short convolutions are less than a hundredth of any model.
"""

from collections import ChainMap, Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import mul

from mlx_catalog import recurrence
from mlx_catalog.attention import Matrices
from mlx_catalog.config_fields import (
    HIDDEN,
    LAYERS,
    Config,
    each_layer,
    integer,
    items,
    word,
)
from mlx_catalog.config_json import ACTIVE_EXPERTS, SHARED_EXPERTS, SHARED_WIDTH, ConfigReading
from mlx_catalog.layers import LayerKind
from mlx_catalog.model_types import ModelType
from mlx_catalog.precision import Precision, Scheme
from mlx_catalog.schema import Geometry
from mlx_catalog.weights import Role, Weights, role_of


def weights_of_config(reading: ConfigReading) -> Weights | None:
    """The weights of the model that a configuration describes.

    None where its layout is unknown here, or a width is missing.
    """
    model = _model_of(reading)
    modules = _modules(model) if model is not None else None
    if model is None or modules is None:
        return None
    modules.append(_Module(Role.ASIDE, "tower", _tower(reading.tower or {})))
    params: dict[Role, float] = {}
    for module in modules:
        params[module.role] = params.get(module.role, 0) + module.params
    sizes, by_bits = _sizes(modules, reading.precision, is_tied=model.is_tied)
    return Weights(
        params=params,
        size_bytes=sizes,
        active_share=_active_share(modules),
        params_by_bits=by_bits,
    )


@dataclass(frozen=True, slots=True)
class _Module:
    """The modules of one name, in all layers together.

    Attributes:
        role: What a token does with them.
        name: The name; that of shared experts begins with `shared.`.
        params: Their parameters.
        layers: How many there are.
        read: Of routed experts, the parameters that a token is sent to; None where unknown.
    """

    role: Role
    name: str
    params: float
    layers: int = 1
    read: float | None = 0.0


def _active_share(modules: Iterable[_Module]) -> float | None:
    """The share of the routed experts that a token is sent to; None where unknown."""
    routed = [module for module in modules if module.role is Role.ROUTED]
    read = [module.read for module in routed if module.read is not None]
    if len(read) < len(routed):
        return None
    return sum(read) / sum(module.params for module in routed) if routed else 1.0


@dataclass(frozen=True, slots=True)
class _Model:
    """A language model of a known layout, and the widths that everything depends on."""

    text: Config
    row: ModelType
    geometry: Geometry
    layers: int
    hidden: int
    vocab: int

    @property
    def is_tied(self) -> bool:
        return self.geometry.tied_embeddings is not False


def _model_of(reading: ConfigReading) -> _Model | None:
    geometry, row = reading.geometry, reading.row
    if geometry is None or row is None or geometry.hidden_size is None:
        return None
    if geometry.vocab_size is None:
        return None
    widths = geometry.layers, geometry.hidden_size, geometry.vocab_size
    return _Model(reading.text, row, geometry, *widths)


def _modules(model: _Model) -> list[_Module] | None:
    mixers, networks, experts = _mixers(model), _networks(model), _experts(model)
    if mixers is None or networks is None or experts is None:
        return None
    return [*mixers, *networks, *experts, *_embeddings(model)]


def _embeddings(model: _Model) -> Iterator[_Module]:
    embedding = float(model.vocab * model.hidden)
    yield _Module(Role.OUTPUT, Role.OUTPUT.value, embedding)
    if not model.is_tied:
        yield _Module(Role.LOOKED_UP, Role.LOOKED_UP.value, embedding)
    per_layer = integer(model.text, "hidden_size_per_layer_input")
    if per_layer is not None:
        rows = integer(model.text, "vocab_size_per_layer_input") or model.vocab
        yield _Module(Role.LOOKED_UP, "embed_tokens_per_layer", rows * per_layer * model.layers)
        gates = model.layers * 3 * model.hidden * per_layer  # gate, projection, and the shared one
        yield _Module(Role.DENSE, "per_layer", gates)


def _mixers(model: _Model) -> list[_Module] | None:
    """What mixes tokens; None where the layout or a width is unknown."""
    # layers that share another's cache have weights like any
    kinds = model.row.kinds({**model.text, "num_kv_shared_layers": 0}, model.layers)
    if kinds is None:
        return None
    found: list[_Module] = []
    for kind, layers in Counter(kinds).items():
        matrices = _mixer(model, kind)
        if matrices is None:
            return None
        found += [
            _Module(Role.DENSE, name, layers * params, layers) for name, params in matrices.items()
        ]
    return found


def _mixer(model: _Model, kind: LayerKind) -> Matrices | None:
    """Of one layer; None where a width is missing."""
    found: list[Matrices | None] = []
    if kind in ("recurrent", "parallel"):
        state = model.geometry.recurrent
        found.append(state and recurrence.matrices(model.text, state, model.hidden))
    if kind not in ("recurrent", "none"):
        is_sliding = kind == "sliding"
        found.append(model.row.attention_matrices(model.text, is_sliding=is_sliding))
    known = [matrices for matrices in found if matrices is not None]
    return dict(ChainMap(*known)) if len(known) == len(found) else None


def _networks(model: _Model) -> list[_Module] | None:
    """Dense feed-forward networks; None where their width is missing."""
    text = model.text
    layers = _stated(text, "ffn_layers", model.layers)
    if text.get("enable_moe_block") is not True:  # Gemma 4 has both in each layer
        layers -= _moe_layers(model)
    if layers <= 0:
        return []
    widths = each_layer(text, layers, "intermediate_size", "n_inner", "ffn_hidden_size")
    if widths is None:
        return None
    wide = sum(widths)
    if text.get("use_double_wide_mlp") is True:
        wide += (integer(text, "num_kv_shared_layers") or 0) * widths[-1]
    return [_Module(Role.DENSE, name, model.hidden * wide, layers) for name in _network(model)]


def _network(model: _Model) -> tuple[str, ...]:
    """The matrices of a feed-forward network, or of an expert, all of one size."""
    return (
        ("gate_proj", "up_proj", "down_proj") if not model.row.ungated else ("up_proj", "down_proj")
    )


def _moe_layers(model: _Model) -> int:
    """How many layers have routed experts: all but the first, in steps; or as listed."""
    text, layers = model.text, model.layers
    if model.geometry.experts is None:
        return 0
    for name in ("moe_layer_freq", "is_moe_layer"):
        if isinstance(text.get(name), list):
            return min(sum(bool(each) for each in items(text, name)), layers)
    dense = integer(text, "first_k_dense_replace", "num_dense_layers", "moe_layer_start_index") or 0
    dense += len(items(text, "mlp_only_layers"))
    steps = "decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq"
    usual = max(layers - dense, 0) // (integer(text, *steps, "moe_layer_interval") or 1)
    return _stated(text, "moe_layers", usual)


def _stated(text: Config, name: str, usual: int) -> int:
    """A number that `mlx_catalog.spellings` worked out, 0 included; else the usual one."""
    stated = text.get(name)
    return stated if isinstance(stated, int) else usual


def _experts(model: _Model) -> list[_Module] | None:
    """Experts and routers: none in a dense model, None where a width is missing."""
    text, hidden, experts = model.text, model.hidden, model.geometry.experts
    layers = _moe_layers(model)
    if experts is None or not layers:
        return []
    widths = each_layer(
        text, layers, "moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size"
    )
    if widths is None:
        return None
    shared = _shared_widths(model, widths)
    if shared is None:
        return None
    # Nemotron's experts work at a latent width where the configuration names one
    latent = integer(text, "moe_latent_size")
    stream, wide = latent or hidden, sum(widths)
    used = each_layer(text, layers, *ACTIVE_EXPERTS)
    read = None if used is None else stream * sum(map(mul, widths, used))
    found = [_Module(Role.DENSE, "router", layers * hidden * experts.total, layers)]
    if latent is not None:
        found.append(_Module(Role.DENSE, "latent", layers * 2 * hidden * latent, layers))
    for name in _network(model):
        found.append(_Module(Role.DENSE, f"shared.{name}", hidden * sum(shared), layers))
        each = stream * wide * experts.total
        found.append(_Module(Role.ROUTED, name, each, layers, read and min(read, each)))
    return found


def _shared_widths(model: _Model, widths: Sequence[int]) -> list[int] | None:
    """The width of all shared experts together, layer by layer; None where it can't be read."""
    text, layers = model.text, len(widths)
    named = each_layer(text, layers, *SHARED_WIDTH)
    if named is not None:
        return named
    if not any(text.get(name) for name in SHARED_EXPERTS):
        return [0] * layers
    numbers = each_layer(text, layers, *SHARED_EXPERTS)
    return None if numbers is None else list(map(mul, numbers, widths))


type _Names = tuple[Role, str]

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
) -> tuple[dict[Role, float] | None, dict[int, float]]:
    """Bytes by role, and parameters by bits; none where the packing is unknown."""
    plain_bits, scheme = precision.plain_bits, precision.scheme
    if plain_bits is None:
        return None, {}
    exceptions = _exceptions(scheme, is_tied=is_tied) if scheme is not None else {}
    sizes: dict[Role, float] = {}
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
        role, last = role_of(path, is_tied=is_tied), path.rpartition(".")[2]
        for name in _OTHER_NAMES.get(last, (last,)):
            if role in (Role.OUTPUT, Role.LOOKED_UP) and last != "embed_tokens_per_layer":
                name = role.value  # noqa: PLW2901 - there is one of each
            elif "shared" in path:
                name = f"shared.{name}"  # noqa: PLW2901
            found.setdefault((role, name), []).append(each)
    return found


def _tower(tower: Config) -> float:
    """Parameters of a tower for images that says how wide it is; 0 where none does."""
    layers, width = integer(tower, "depth", *LAYERS), integer(tower, *HIDDEN)
    wide = integer(tower, "intermediate_size")
    if layers is None or width is None or wide is None:
        return 0.0
    matrices = 3 if word(tower, "model_type").startswith("pixtral") else 2
    return float(layers * (4 * width * width + matrices * width * wide))
