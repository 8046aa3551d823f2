"""Whether a model runs on several Macs together, in how much memory of each, how fast."""

from collections.abc import Sequence
from dataclasses import dataclass

from mlx_catalog import Quant
from mlx_hwprobe import HardwareProfile
from mlx_recommend import GroupEstimate, LinkSpeeds, MacPart, Workload, estimate_group
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.estimate import (
    DescribedModel,
    HubReader,
    describe_model,
    read_from_hub,
    unknown_figures,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupModelEstimate:
    """A model on several Macs.

    Attributes:
        macs: The first is where requests arrive.
        estimate: What to expect; None where nothing is known of the model's parameters.
    """

    model: DescribedModel
    macs: tuple[HardwareProfile, ...]
    workload: Workload
    estimate: GroupEstimate | None

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer: those of one Mac, and what is each Mac's own."""
        figures = unknown_figures(self.macs[0])
        if self.estimate is not None:
            figures |= group_figures(self.estimate)
        return {
            **self.model.to_document(self.workload),
            "hardware": self.macs[0].to_document(),
            **figures,
            "mtp": None,
            "kv_8bit": None,
            **group_document(self.estimate, self.macs),
        }


def estimate_on_group(
    opened: OpenStack,
    name: str,
    macs: Sequence[HardwareProfile],
    *,
    quant: Quant | None = None,
    workload: Workload | None = None,
    read_hub: HubReader = read_from_hub,
) -> GroupModelEstimate:
    """What to expect of a model on several Macs together; reads only.

    Nothing that was measured counts here: it was measured on one Mac.

    Args:
        name: A catalog id, a Hub repository, a model folder or a `config.json`.
        macs: The first is where requests arrive.
        quant: The precision; None is the model's own, or for a catalog entry the default.
        workload: Context and concurrency; None is the defaults.
        read_hub: Asks the Hub, only where nothing else knows the model.

    Raises:
        UnknownModelError: When there is no such model; with the nearest names of the catalog.
        UnreadableModelError: When the local files are damaged.
        StackError: When the Hub doesn't answer, or has no such repository.
    """
    model, work = describe_model(opened, name, quant, read_hub), workload or Workload()
    found = estimate_group(model.shape, macs, work) if model.shape is not None else None
    return GroupModelEstimate(model=model, macs=tuple(macs), workload=work, estimate=found)


def group_figures(found: GroupEstimate) -> dict[str, object]:
    """The figures that an estimate for one Mac has, too: memory is that of the Mac that decides."""
    fullest, read_bytes, ttft_s = found.fullest, found.shape.decode_weight_bytes, found.ttft_s
    figures: dict[str, object] = {
        "fits": found.fits,
        "max_context_tokens": found.max_context_tokens,
        "read_bytes_per_token": None if read_bytes is None else round(read_bytes),
        "generation_tps": found.generation_tps and found.generation_tps.to_document(),
        "prompt_tps": found.prompt_tps and found.prompt_tps.to_document(),
        "ttft_s": None if ttft_s is None else round(ttft_s, 3),
    }
    if fullest is not None:
        figures["memory"] = fullest.memory.to_document(fullest.limit_bytes)
    return figures


def group_document(
    found: GroupEstimate | None, macs: Sequence[HardwareProfile]
) -> dict[str, object]:
    """What an estimate for several Macs has of its own."""
    parts = found.parts if found is not None else ()
    other = found.other if found is not None else None
    return {
        "split": found.split.kind if found is not None and parts else None,
        "refusals": list(found.split.refusals) if found is not None else [],
        "macs": (
            [_part_document(part) for part in parts]
            or [_mac_document(rank, mac) for rank, mac in enumerate(macs)]
        ),
        "links": [_link_document(each) for each in (found.speeds if found is not None else ())],
        "other_split": None
        if other is None
        else {
            "split": other.split.kind,
            "fits": other.fits,
            "max_context_tokens": other.max_context_tokens,
            "links": [_link_document(each) for each in other.speeds],
        },
    }


def _part_document(part: MacPart) -> dict[str, object]:
    read_bytes = part.share.shape.decode_weight_bytes
    return {
        **_mac_document(part.share.rank, part.hardware),
        "layers": part.share.layers,
        "fits": part.fits,
        "memory": part.memory.to_document(part.limit_bytes),
        "read_bytes_per_token": None if read_bytes is None else round(read_bytes),
    }


def _mac_document(rank: int, mac: HardwareProfile) -> dict[str, object]:
    unknown = unknown_figures(mac)
    return {
        "rank": rank,
        "hardware": mac.to_document(),
        "layers": None,
        **{name: unknown[name] for name in ("fits", "memory", "read_bytes_per_token")},
    }


def _link_document(speeds: LinkSpeeds) -> dict[str, object]:
    return {
        "link": speeds.kind,
        "generation_tps": speeds.generation_tps and speeds.generation_tps.to_document(),
        "prompt_tps": speeds.prompt_tps and speeds.prompt_tps.to_document(),
    }
