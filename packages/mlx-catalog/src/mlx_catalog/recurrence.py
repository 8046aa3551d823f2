"""Recurrent layers: the state that they keep, and the matrices that they are made of."""

import math

from mlx_catalog.attention import Matrices
from mlx_catalog.config_fields import ModelConfig, integer, needed, section
from mlx_catalog.schema import RecurrentState


def gated_deltanet(text: ModelConfig, layers: int) -> RecurrentState:
    """Qwen's linear attention."""
    keys, key_dim = integer(text, "linear_num_key_heads"), integer(text, "linear_key_head_dim")
    values = integer(text, "linear_num_value_heads")
    value_dim = integer(text, "linear_value_head_dim")
    channels = None
    if keys and key_dim and values and value_dim:
        channels = 2 * keys * key_dim + values * value_dim
    return RecurrentState(
        kind="gated-deltanet",
        layers=layers,
        conv_channels=channels,
        conv_kernel=integer(text, "linear_conv_kernel_dim") or 4,
        heads=values,
        head_dim=value_dim,
        state_dim=key_dim,
    )


def mamba2(text: ModelConfig, layers: int) -> RecurrentState:
    """Mamba-2, with the names of Nemotron-H, of Granite and of Falcon-H1."""
    heads = integer(text, "mamba_num_heads", "mamba_n_heads")
    width = integer(text, "mamba_head_dim", "mamba_d_head")
    state = integer(text, "ssm_state_size", "mamba_d_state", "mamba_state_dim")
    groups = integer(text, "n_groups", "mamba_n_groups")
    channels = heads * width + 2 * groups * state if heads and width and state and groups else None
    return RecurrentState(
        kind="mamba2",
        layers=layers,
        conv_channels=channels,
        conv_kernel=integer(text, "conv_kernel", "mamba_d_conv"),
        heads=heads,
        head_dim=width,
        state_dim=state,
    )


def mamba1(text: ModelConfig, layers: int) -> RecurrentState:
    """Mamba, as Jamba has it."""
    hidden, expand = integer(text, "hidden_size"), integer(text, "mamba_expand")
    inner = hidden * expand if hidden and expand else None
    return RecurrentState(
        kind="mamba1",
        layers=layers,
        conv_channels=inner,
        conv_kernel=integer(text, "mamba_d_conv"),
        heads=inner,
        head_dim=1,
        state_dim=integer(text, "mamba_d_state"),
    )


def short_convolution(text: ModelConfig, layers: int) -> RecurrentState:
    """LFM2's convolutions, which keep nothing but their history."""
    return RecurrentState(
        kind="shortconv",
        layers=layers,
        conv_channels=integer(text, "hidden_size"),
        conv_kernel=integer(text, "conv_L_cache"),
        heads=0,
        head_dim=0,
        state_dim=0,
    )


def kda(text: ModelConfig, layers: int) -> RecurrentState:
    """Kimi Delta Attention."""
    linear = section(text, "linear_attn_config") or text
    heads, width = integer(linear, "num_heads"), integer(linear, "head_dim")
    return RecurrentState(
        kind="kda",
        layers=layers,
        conv_channels=3 * heads * width if heads and width else None,
        conv_kernel=integer(linear, "short_conv_kernel_size"),
        heads=heads,
        head_dim=width,
        state_dim=width,
    )


def matrices(text: ModelConfig, state: RecurrentState, hidden: int) -> Matrices:
    """Parameters of one layer, by mlx-lm's names of its modules.

    Raises:
        UnsaidError: A width is missing.
    """
    channels, wide = needed(state.conv_channels), needed(state.state_dim)
    heads, width = needed(state.heads), needed(state.head_dim)
    inner = heads * width
    output = {"out_proj": inner * hidden}
    match state.kind:
        case "gated-deltanet":  # the output's gate, and two gates a head
            gates = {"in_proj_z": hidden * inner, "in_proj_ba": 2 * hidden * heads}
            return {"in_proj_qkv": hidden * channels, **gates, **output}
        case "mamba2":  # gate, convolved channels, time steps
            return {"in_proj": hidden * (inner + channels + heads), **output}
        case "mamba1":
            rank = integer(text, "mamba_dt_rank") or math.ceil(hidden / 16)
            steps = {"x_proj": inner * (rank + 2 * wide), "dt_proj": rank * inner}
            return {"in_proj": 2 * hidden * inner, **steps, "A_log": inner * wide, **output}
        case "kda":  # two gates of low rank; one number a head
            plain = dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), hidden * inner)
            low = {"a_proj": 2 * hidden * width, "b_proj": 2 * width * inner}
            return {**plain, **low, "beta": hidden * heads}
        case "shortconv":
            return {"in_proj": 3 * hidden * hidden, "out_proj": hidden * hidden}
