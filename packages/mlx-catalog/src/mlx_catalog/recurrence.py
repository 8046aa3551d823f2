"""Recurrent layers: the state that they keep and the matrices that they are made of.

`matrices` are the parameters of one layer by the names that mlx-lm gives its modules; None where a
width is missing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from mlx_catalog.config_fields import Config, integer, section
from mlx_catalog.schema import RecurrentState

type Matrices = dict[str, int]


@dataclass(frozen=True, slots=True)
class Recurrence:
    """One kind of recurrent layer.

    Attributes:
        state: What so many of these layers keep.
        matrices: What one of them is made of, by the state and the hidden size.
    """

    state: Callable[[Config, int], RecurrentState]
    matrices: Callable[[Config, RecurrentState, int], Matrices | None]


def _deltanet_state(text: Config, layers: int) -> RecurrentState:
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


def _deltanet_matrices(_: Config, state: RecurrentState, hidden: int) -> Matrices | None:
    channels, heads, width = state.conv_channels, state.heads, state.head_dim
    if channels is None or heads is None or width is None:
        return None
    return {
        "in_proj_qkv": hidden * channels,
        "in_proj_z": hidden * heads * width,
        "in_proj_b": hidden * heads,
        "in_proj_a": hidden * heads,
        "out_proj": hidden * heads * width,
    }


def _mamba2_state(text: Config, layers: int) -> RecurrentState:
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


def _mamba2_matrices(_: Config, state: RecurrentState, hidden: int) -> Matrices | None:
    channels, heads, width = state.conv_channels, state.heads, state.head_dim
    if channels is None or heads is None or width is None:
        return None
    inner = heads * width
    return {"in_proj": hidden * (inner + channels + heads), "out_proj": inner * hidden}


def _mamba1_state(text: Config, layers: int) -> RecurrentState:
    hidden = integer(text, "hidden_size")
    expand = integer(text, "mamba_expand")
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


def _mamba1_matrices(text: Config, state: RecurrentState, hidden: int) -> Matrices | None:
    inner, wide = state.heads, state.state_dim
    if inner is None or wide is None:
        return None
    rank = integer(text, "mamba_dt_rank") or math.ceil(hidden / 16)
    return {
        "in_proj": 2 * hidden * inner,
        "x_proj": inner * (rank + 2 * wide),
        "dt_proj": rank * inner,
        "A_log": inner * wide,
        "out_proj": inner * hidden,
    }


def _convolution_state(text: Config, layers: int) -> RecurrentState:
    return RecurrentState(
        kind="shortconv",
        layers=layers,
        conv_channels=integer(text, "hidden_size"),
        conv_kernel=integer(text, "conv_L_cache"),
        heads=0,
        head_dim=0,
        state_dim=0,
    )


def _convolution_matrices(_: Config, _state: RecurrentState, hidden: int) -> Matrices:
    return {"in_proj": 3 * hidden * hidden, "out_proj": hidden * hidden}


def _kda_state(text: Config, layers: int) -> RecurrentState:
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


def _kda_matrices(_: Config, state: RecurrentState, hidden: int) -> Matrices | None:
    heads, width = state.heads, state.head_dim
    if heads is None or width is None:
        return None
    inner = heads * width
    wide = dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), hidden * inner)
    low = dict.fromkeys(("f_a_proj", "g_a_proj"), hidden * width)
    high = dict.fromkeys(("f_b_proj", "g_b_proj"), width * inner)
    return {**wide, **low, **high, "b_proj": hidden * heads}


GATED_DELTANET = Recurrence(_deltanet_state, _deltanet_matrices)
MAMBA1 = Recurrence(_mamba1_state, _mamba1_matrices)
MAMBA2 = Recurrence(_mamba2_state, _mamba2_matrices)
SHORT_CONVOLUTION = Recurrence(_convolution_state, _convolution_matrices)
KDA = Recurrence(_kda_state, _kda_matrices)
