"""One model on several Macs: does each part fit, and how fast is the whole (decision 0116).

A token of tensor parallelism takes as long as the slowest Mac needs for its part, and exchanges:

    t = max over Macs(bytes of its part / bandwidth + ...) + layers x exchanges x (fence + hops)

With pipeline parallelism the Macs take turns, so that their times add up, and they exchange once
each. A prompt's activations, which are large, take time over the link as well.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlx_hwprobe import HardwareProfile
from mlx_recommend.calibration import PREFILL_STEP_TOKENS
from mlx_recommend.inputs import Basis, ModelShape, Workload
from mlx_recommend.links import FENCE_S, LINKS, PIPELINE_SPREAD, Link, LinkKind, Range
from mlx_recommend.machine import Machine, machine_of
from mlx_recommend.memory import MemoryUse, max_context_tokens
from mlx_recommend.sharding import Share, Split, SplitKind, split
from mlx_recommend.speed import Speed, decode_speed, output_s, prefill_speed

_ACTIVATION_BYTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class MacPart:
    """One Mac's part of a model.

    Attributes:
        memory: What it takes there.
        limit_bytes: What the Mac's GPU may use; None where that is unknown.
    """

    hardware: HardwareProfile
    share: Share
    memory: MemoryUse
    limit_bytes: int | None

    @property
    def fits(self) -> bool | None:
        """Whether the Mac's GPU may use as much; None where that can't be known."""
        return self.memory.fits(self.limit_bytes)

    @property
    def spare_bytes(self) -> int:
        """What is left of the limit; less than 0 where it doesn't fit."""
        return (self.limit_bytes or 0) - self.memory.least_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSpeeds:
    """How fast the group is over one kind of link; None where it can't be known."""

    kind: LinkKind
    generation_tps: Speed | None
    prompt_tps: Speed | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupEstimate:
    """One model on several Macs.

    Attributes:
        split: How it is divided, or why it can't be.
        parts: What each Mac gets, the first Mac first; none where it can't be divided.
        speeds: By the kind of link, the usual one first; none where it can't be divided.
        other: The same with the model divided in the other way, where both are possible.
    """

    shape: ModelShape
    workload: Workload
    split: Split
    parts: tuple[MacPart, ...]
    speeds: tuple[LinkSpeeds, ...]
    other: "GroupEstimate | None" = None

    @property
    def fits(self) -> bool | None:
        """Whether each part fits its Mac; None where that can't be known."""
        if self.split.refusals:
            return False
        found = [part.fits for part in self.parts]
        if False in found:
            return False
        return None if None in found or not found else True

    @property
    def fullest(self) -> MacPart | None:
        """The Mac that decides: with the least memory to spare; None where nothing is divided."""
        return min(self.parts, key=lambda part: part.spare_bytes, default=None)

    @property
    def max_context_tokens(self) -> int | None:
        """The longest context that fits all Macs; 0 where not even the weights fit."""
        found = [
            None
            if part.limit_bytes is None
            else max_context_tokens(part.share.shape, self.workload, part.limit_bytes)
            for part in self.parts
        ]
        return (
            None if None in found or not found else min(each for each in found if each is not None)
        )

    @property
    def generation_tps(self) -> Speed | None:
        """Tokens a second over the usual link."""
        return self.speeds[0].generation_tps if self.speeds else None

    @property
    def prompt_tps(self) -> Speed | None:
        """Tokens a second of a prompt, over the usual link."""
        return self.speeds[0].prompt_tps if self.speeds else None

    @property
    def ttft_s(self) -> float | None:
        """Seconds until the first token, for a prompt as long as the context of the speeds."""
        if self.prompt_tps is None:
            return None
        return self.workload.tokens_in_speed / self.prompt_tps.value


def estimate_group(
    shape: ModelShape,
    macs: Sequence[HardwareProfile],
    workload: Workload | None = None,
    kind: SplitKind | None = None,
) -> GroupEstimate:
    """What is to be expected of a model on several Macs together.

    Args:
        macs: The first one is where requests arrive.
        workload: Context and concurrency; the defaults where None.
        kind: How it is divided; None takes what is quicker over the usual link, of what fits.
    """
    work = workload or Workload()
    if kind is not None:
        return _estimate(shape, macs, work, kind)
    found = [_estimate(shape, macs, work, each) for each in SplitKind]
    possible = [each for each in found if not each.split.refusals]
    if not possible:
        by_tensor, by_pipeline = found
        can_tensor = shape.division is not None and shape.division.tensor
        return by_tensor if can_tensor else by_pipeline
    best, *others = sorted(possible, key=_preference, reverse=True)
    return replace(best, other=next(iter(others), None))


def _preference(found: GroupEstimate) -> tuple[bool, float]:
    speed = found.generation_tps
    return found.fits is not False, speed.value if speed is not None else 0.0


def _estimate(
    shape: ModelShape, macs: Sequence[HardwareProfile], work: Workload, kind: SplitKind
) -> GroupEstimate:
    divided = split(shape, len(macs), kind)
    parts = tuple(
        MacPart(
            hardware=hardware,
            share=share,
            memory=share.memory(work),
            limit_bytes=hardware.gpu_memory_limit_bytes or hardware.memory_bytes,
        )
        for hardware, share in zip(macs, divided.shares, strict=False)
    )
    known = [machine_of(each) for each in macs]
    machines = [each for each in known if each is not None]
    speeds = ()
    if parts:
        speeds = tuple(
            _speeds(shape, divided, machines if len(machines) == len(macs) else [], link, work)
            for link in LINKS
            if len(macs) <= link.most_macs
            and (link.kind is not LinkKind.JACCL or all(each and each.has_rdma for each in known))
        )
    return GroupEstimate(shape=shape, workload=work, split=divided, parts=parts, speeds=speeds)


def _speeds(
    shape: ModelShape, divided: Split, machines: Sequence[Machine], link: Link, work: Workload
) -> LinkSpeeds:
    generation = prompt = None
    if machines and shape.role.chats:
        generation = _decode_speed(shape, divided, machines, link, work)
        prompt = _prefill_speed(shape, divided, machines, link, work.tokens_in_speed)
    return LinkSpeeds(kind=link.kind, generation_tps=generation, prompt_tps=prompt)


def _decode_speed(
    shape: ModelShape, divided: Split, machines: Sequence[Machine], link: Link, work: Workload
) -> Speed | None:
    """Tokens a second that each request gets."""
    takes_turns = divided.kind is SplitKind.PIPELINE
    found = list[Range]()
    for share, machine in zip(divided.shares, machines, strict=True):
        part = _without_output(share.shape) if takes_turns else share.shape
        speed = decode_speed(
            part, machine, context_tokens=work.tokens_in_speed, concurrency=work.concurrency
        )
        if speed is None:
            return None
        found.append(_seconds(speed))
    if takes_turns:
        # all of them compute the output layer at the same time
        outputs = [output_s(shape, machine) for machine in machines]
        turns = _plus(_sum(found), Range(*[max(outputs)] * 3))
        computed = Range(turns.low, turns.value, turns.high * PIPELINE_SPREAD)
    else:
        computed = _slowest(found)
    exchanged = _exchange_s(shape, divided, link, work.concurrency)
    return _speed(1, _plus(computed, exchanged))


def _prefill_speed(
    shape: ModelShape, divided: Split, machines: Sequence[Machine], link: Link, tokens: int
) -> Speed | None:
    """Tokens a second at which a prompt of so many is read, by itself."""
    found = list[Range]()
    for share, machine in zip(divided.shares, machines, strict=True):
        speed = prefill_speed(share.shape, machine, prompt_tokens=tokens)
        if speed is None:
            return None
        found.append(_seconds(speed, tokens))
    steps = math.ceil(tokens / PREFILL_STEP_TOKENS)
    computed = _slowest(found)
    if divided.kind is SplitKind.PIPELINE:
        # while one Mac computes a step, those before it compute the next ones
        turns, longest = _sum(found), computed
        computed = _plus(_times(turns, 1 / steps), _times(longest, (steps - 1) / steps))
    exchanged = _exchange_s(shape, divided, link, min(tokens, PREFILL_STEP_TOKENS))
    return _speed(
        tokens, _plus(computed, _times(exchanged, tokens / min(tokens, PREFILL_STEP_TOKENS)))
    )


def _exchange_s(shape: ModelShape, divided: Split, link: Link, tokens: int) -> Range:
    """Seconds that the Macs spend on exchanging what they computed of so many tokens at once."""
    macs, division = divided.macs, shape.division
    assert division is not None
    size_bytes = tokens * (shape.hidden_size or 0) * _ACTIVATION_BYTES
    if divided.kind is SplitKind.TENSOR:
        exchanges, hops = division.layers * division.meetings, link.hops(macs)
        moved_bytes = exchanges * size_bytes * 2 * (macs - 1) / macs
    else:
        # handed on from Mac to Mac, and at the end to all of them
        exchanges, hops = macs, 1
        moved_bytes = (macs - 1) * 2 * size_bytes
    return Range(
        exchanges * (FENCE_S.low + hops * link.hop_s.low) + moved_bytes / link.bytes_per_s.high,
        exchanges * (FENCE_S.value + hops * link.hop_s.value)
        + moved_bytes / link.bytes_per_s.value,
        exchanges * (FENCE_S.high + hops * link.hop_s.high) + moved_bytes / link.bytes_per_s.low,
    )


def _without_output(shape: ModelShape) -> ModelShape:
    """The layers without the output layer."""
    whole = shape.undivided
    if whole is None or shape.decode_weight_bytes is None or shape.decode_params is None:
        return shape
    return replace(
        shape,
        decode_weight_bytes=shape.decode_weight_bytes - whole.output_bytes,
        decode_params=shape.decode_params - whole.output_params,
    )


def _seconds(speed: Speed, tokens: int = 1) -> Range:
    return Range(tokens / speed.high, tokens / speed.value, tokens / speed.low)


def _speed(tokens: int, seconds: Range) -> Speed:
    low, value, high = (tokens / each for each in (seconds.high, seconds.value, seconds.low))
    return Speed(value, low, high, Basis.ESTIMATE)


def _plus(one: Range, other: Range) -> Range:
    return Range(one.low + other.low, one.value + other.value, one.high + other.high)


def _times(one: Range, factor: float) -> Range:
    return Range(one.low * factor, one.value * factor, one.high * factor)


def _sum(all_of: Sequence[Range]) -> Range:
    return Range(
        sum(each.low for each in all_of),
        sum(each.value for each in all_of),
        sum(each.high for each in all_of),
    )


def _slowest(all_of: Sequence[Range]) -> Range:
    return Range(
        max(each.low for each in all_of),
        max(each.value for each in all_of),
        max(each.high for each in all_of),
    )
