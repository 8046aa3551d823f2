"""The table of model types: what mlx-lm makes of each `model_type`, a row for each.

A new family is a row of `data/model_types.toml`; where its arithmetic is new, the row names the
function that does it.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from mlx_catalog import attention, layers, recurrence, spellings
from mlx_catalog.attention import Heads, Matrices
from mlx_catalog.config_fields import HIDDEN, ModelConfig, integer, needed
from mlx_catalog.layers import LayerKind, LayerKinds
from mlx_catalog.schema import RecurrentState

_TABLE = Path(__file__).parent / "data" / "model_types.toml"


class ModelType(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What mlx-lm makes of a `model_type`.

    Attributes:
        like: The row that this one takes over, but for what it says itself.
        layers: The kind of each layer: a function of `mlx_catalog.layers`.
        period: Instead, full attention in every so many layers, the others being `others`.
        others: See there.
        attention: What layers cache of a token: a function of `mlx_catalog.attention`, or latents.
        output_gate: What gates the output of attention: as many numbers as queries, or as heads.
        recurrence: The state of recurrent layers: a function of `mlx_catalog.recurrence`.
        usual: What brings the configuration into the usual names, of `mlx_catalog.spellings`.
        supposes: What the type's own class supposes where the file is silent.
        untied: Whether the output layer has its own weights where the file is silent.
        ungated: Whether a feed-forward network has two matrices: no gate with them.
        sandwich_norms: Whether there are norms after attention and feed-forward as well.
        dequantizes_fp8: Whether a vendor's FP8 weights become 16 bits while they are loaded; those
            of other types are not loaded at all.
        unbatched: Whether the caches of several requests can't be batched: lists of caches can't.
        tensor: What `shard` gives each Mac a part of, where the class has it: of each layer, its
            heads and networks; and of an output layer that isn't the embedding as well.
        meetings: How often Macs that have parts of a layer add up what they computed of it.
        pipeline: Whether each Mac can have some of the layers.
    """

    like: str = ""
    layers: str = "full"
    period: int = 0
    others: LayerKind = "sliding"
    attention: str = "plain"
    output_gate: Literal["", "wide", "heads"] = ""
    recurrence: str = ""
    usual: str = ""
    supposes: dict[str, bool | int] = {}
    untied: bool = False
    ungated: bool = False
    sandwich_norms: bool = False
    dequantizes_fp8: bool = False
    unbatched: bool = False
    tensor: Literal["", "heads", "heads-and-output"] = ""
    meetings: int = 2
    pipeline: bool = False

    def in_usual_names(self, text: ModelConfig) -> ModelConfig:
        """`text` as most types would say it, without what is null."""
        said = {name: value for name, value in text.items() if value is not None}
        usual: ModelConfig = {**self.supposes, **said}
        if self.usual:
            usual = getattr(spellings, self.usual)(usual)
        return {name: value for name, value in usual.items() if value is not None}

    def kinds(self, text: ModelConfig, count: int) -> LayerKinds | None:
        """The kind of each of `count` layers; None where the configuration leaves it open."""
        if self.period:
            return layers.every(text, count, self.period, self.others)
        found: LayerKinds | None = getattr(layers, self.layers)(text, count)
        return found

    def heads(self, text: ModelConfig, *, is_sliding: bool) -> Heads:
        """The heads of a layer with a window, or of one without; none where it caches latents."""
        if self.attention == "latent":
            return Heads()
        found: Heads = getattr(attention, self.attention)(text, is_sliding=is_sliding)
        return found

    def latents(self, text: ModelConfig) -> tuple[int, int] | None:
        """The widths of what is cached instead of keys and values; None where those are."""
        return attention.latents(text) if self.attention == "latent" else None

    def state(self, text: ModelConfig, count: int) -> RecurrentState | None:
        """What `count` recurrent layers keep; None where there are none."""
        if not count or not self.recurrence:
            return None
        found: RecurrentState = getattr(recurrence, self.recurrence)(text, count)
        return found

    def attention_matrices(self, text: ModelConfig, *, is_sliding: bool) -> Matrices:
        """What the attention of one layer is made of.

        Raises:
            UnsaidError: A width is missing.
        """
        hidden = needed(integer(text, *HIDDEN))
        if self.attention in ("latent", "expanded"):
            return attention.latent_matrices(text, hidden)
        heads = self.heads(text, is_sliding=is_sliding)
        found = heads.matrices(hidden)
        if self.output_gate:
            is_wide = self.output_gate == "wide"
            found["g_proj"] = found["q_proj"] if is_wide else hidden * (heads.query or 0)
        if not is_sliding and attention.shares_keys(text):
            del found["v_proj"]
        return found


@cache
def model_types() -> Mapping[str, ModelType]:
    """Every row, by `model_type`."""
    said = msgspec.toml.decode(_TABLE.read_bytes(), type=dict[str, dict[str, object]])
    rows = {
        name: msgspec.convert({**said.get(str(row.get("like")), {}), **row}, ModelType)
        for name, row in said.items()
    }
    # one that says nothing itself is the same row
    return {
        name: rows[row.like] if said[name].keys() == {"like"} else row for name, row in rows.items()
    }
