"""The state that recurrent layers keep, from the names each family gives its dimensions."""

from typing import cast

from mlx_catalog.config_fields import Config, integer
from mlx_catalog.layers import LayerKinds
from mlx_catalog.schema import RecurrentState


def recurrent_state(text_type: str, text: Config, kinds: LayerKinds) -> RecurrentState | None:
    """The state of the recurrent layers among `kinds`; None where there are none."""
    layers = kinds.count("recurrent") + kinds.count("parallel")
    if layers == 0:
        return None
    if text_type == "kimi_linear":
        return _kda(text, layers)
    if text_type.startswith("lfm2"):
        return _short_convolution(text, layers)
    if text_type == "jamba":
        return _mamba1(text, layers)
    if "linear_num_value_heads" in text:
        return _gated_deltanet(text, layers)
    return _mamba2(text, layers)


def _gated_deltanet(text: Config, layers: int) -> RecurrentState:
    keys, key_dim = integer(text, "linear_num_key_heads"), integer(text, "linear_key_head_dim")
    values, value_dim = (
        integer(text, "linear_num_value_heads"),
        integer(text, "linear_value_head_dim"),
    )
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


def _mamba2(text: Config, layers: int) -> RecurrentState:
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


def _mamba1(text: Config, layers: int) -> RecurrentState:
    hidden = integer(text, "hidden_size")
    inner = hidden * (integer(text, "mamba_expand") or 2) if hidden else None
    return RecurrentState(
        kind="mamba1",
        layers=layers,
        conv_channels=inner,
        conv_kernel=integer(text, "mamba_d_conv"),
        heads=inner,
        head_dim=1,
        state_dim=integer(text, "mamba_d_state"),
    )


def _short_convolution(text: Config, layers: int) -> RecurrentState:
    return RecurrentState(
        kind="shortconv",
        layers=layers,
        conv_channels=integer(text, "hidden_size"),
        conv_kernel=integer(text, "conv_L_cache"),
        heads=0,
        head_dim=0,
        state_dim=0,
    )


def _kda(text: Config, layers: int) -> RecurrentState:
    nested = text.get("linear_attn_config")
    linear = cast("Config", nested) if isinstance(nested, dict) else text
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
