"""Whether models that a user names have room on this machine, and what would have instead."""

import math
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from mlx_catalog import CatalogEntry, ModelRole, Quant, engine_fit
from mlx_hwprobe import HwprobeError
from mlx_recommend import PROCESS_BYTES, Workload, budget_bytes, candidate_of, memory_use
from mlx_stack.format import format_bytes
from mlx_stack.hardware import known_hardware
from mlx_stack.models.errors import ModelTooLargeError
from mlx_stack.models.events import Planned
from mlx_stack.models.find import find
from mlx_stack.models.serving import entry_of
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.estimate import describe_model
from mlx_stack.planning.recommend import Constraints
from mlx_stack.planning.tiers import PlannedTier, planned_memory


@dataclass(frozen=True, slots=True)
class MemoryRoom:
    """The memory that models may take; None where it is unknown.

    Attributes:
        limit_bytes: What the GPU may use, or the whole memory where only that is known.
        budget_bytes: The share of it that the user gives to models.
    """

    limit_bytes: int | None = None
    budget_bytes: int | None = None

    def excludes(self, size_bytes: int | None) -> bool:
        """Whether so much is certainly more than the GPU may use."""
        return size_bytes is not None and size_bytes > (self.limit_bytes or size_bytes)

    def warning(self, subject: str, size_bytes: int | None, gpu_bytes: int | None = None) -> str:
        """That `subject` needs more than the GPU may use, or than the budget; "" if it doesn't.

        Args:
            gpu_bytes: The part that the GPU's limit is for; None is all of it.
        """
        if size_bytes is None or self.limit_bytes is None:
            return ""
        needs = f"{subject} {format_bytes(size_bytes)}, more than the"
        if self.excludes(size_bytes if gpu_bytes is None else gpu_bytes):
            return f"{needs} {format_bytes(self.limit_bytes)} that the GPU may use."
        if self.budget_bytes is not None and size_bytes > self.budget_bytes:
            return f"{needs} budget of {format_bytes(self.budget_bytes)}."
        return ""


def room_here(opened: OpenStack, constraints: Constraints | None = None) -> MemoryRoom:
    """The room on this machine, with the budget that was asked for or is configured."""
    asked = constraints or Constraints()
    with suppress(HwprobeError):
        hardware = known_hardware(opened.home)
        budget = budget_bytes(
            hardware,
            pct=asked.budget_pct or opened.config.memory_budget_pct,
            wanted_bytes=asked.budget_bytes,
        )
        return MemoryRoom(hardware.gpu_memory_limit_bytes or hardware.memory_bytes, budget)
    return MemoryRoom()


def refuse_too_large(opened: OpenStack, tiers: Iterable[PlannedTier], room: MemoryRoom) -> None:
    """Nothing, if no tier by itself needs more than the GPU may use.

    Raises:
        ModelTooLargeError: When one does; the hint names the nearest model that fits.
    """
    for each in tiers:
        if room.excludes(each.gpu_bytes):
            tokens = each.tier.context_tokens
            context = f" with {tokens:,} tokens of context" if tokens is not None else ""
            weights = each.memory.weights_bytes if each.memory is not None else None
            helps = tokens is not None and not room.excludes(weights)
            subject = f"{each.tier.model}{context}"
            if each.tier.workers:
                subject = f"This Mac's part of {subject}"
            shorter = "A shorter `--context` needs less. " if helps else ""
            raise ModelTooLargeError(
                room.warning(f"{subject} needs", each.gpu_bytes),
                hint=f"{instead(opened, room, entry_of(opened.catalog, each.tier))}{shorter}"
                "`--force` uses it anyway.",
            )


def check_stack(opened: OpenStack, tier: str | None, *, is_forced: bool) -> str:
    """A warning about the memory of what `up` would start, or "".

    Args:
        tier: Only this one; None for all.
        is_forced: Whether a tier may need more than the GPU may use.

    Raises:
        ModelTooLargeError: When one does; the hint names the nearest model that fits.
    """
    room = room_here(opened)
    tiers = [
        PlannedTier(each, planned_memory(opened, each))
        for each in opened.stack.tiers
        if tier in (None, each.name)
    ]
    if not is_forced:
        refuse_too_large(opened, tiers, room)
    loaded = [each for each in tiers if not each.tier.lazy]
    return room.warning(
        "Together the tiers need",
        sum(each.memory_bytes or 0 for each in loaded),
        sum(each.gpu_bytes or 0 for each in loaded),
    )


def download_warning(
    opened: OpenStack, name: str, quant: Quant | None, planned: Planned
) -> tuple[str, bool]:
    """A warning about a model that is about to be downloaded, or "", and whether it can't run."""
    found, size_bytes = find(opened, name), None
    because = engine_fit(found.entry).unservable_because if found.entry is not None else ""
    if because:
        return f"{name} can't be served: {because}.", True
    if found.entry is not None:
        shape = describe_model(opened, name, quant).shape
        size_bytes = memory_use(shape, Workload()).total_bytes if shape is not None else None
    elif quant is None:
        size_bytes = planned.total_bytes + PROCESS_BYTES
    room = room_here(opened)
    warning = room.warning(f"{name} needs", size_bytes)
    nearest = instead(opened, room, found.entry) if warning else ""
    return f"{warning} {nearest}".strip(), room.excludes(size_bytes)


def instead(opened: OpenStack, room: MemoryRoom, asked: CatalogEntry | None) -> str:
    """A sentence that names the nearest model with room in the budget, else here; or ""."""
    fitting: list[tuple[CatalogEntry, Quant, int]] = []
    role = asked.role if asked is not None else ModelRole.CHAT
    for entry in opened.catalog:
        if entry.role is not role:
            continue
        candidate = candidate_of(entry, opened.config.default_quant, allow_gated=False)
        total = memory_use(candidate.shape, Workload()).total_bytes
        if total is not None and candidate.exclusion is None:
            fitting.append((entry, candidate.quant, total))
    for most_bytes in (room.budget_bytes, room.limit_bytes):
        fitting_here = [each for each in fitting if each[2] <= (most_bytes or 0)]
        if fitting_here:
            entry, quant, total = min(
                fitting_here, key=lambda each: _distance(asked, each[0], each[2])
            )
            precision = f" at {quant}" if entry is asked else ""
            return f"The nearest model that fits is {entry.id}{precision} ({format_bytes(total)}). "
    return ""


def _distance(asked: CatalogEntry | None, other: CatalogEntry, total_bytes: int) -> list[float]:
    """How far `other` is from what was asked for, the first number that differs deciding.

    A model that sees stays one that sees. Then size decides, where another family counts like
    twice the size, and one of another version (qwen3 for qwen3.5) like half of that. Of equals the
    better by published quality is nearer. Without an entry, the largest is the nearest.
    """
    if asked is None:
        return [-total_bytes]
    blind = bool(asked.capabilities.vision) and not other.capabilities.vision
    relation = 0.0 if asked.family == other.family else 1.0
    if relation and _line(asked) == _line(other):
        relation = 0.5
    quality = other.quality.overall if other.quality is not None else None
    return [blind, abs(math.log2(asked.params_b / other.params_b)) + relation, -(quality or 0.0)]


def _line(entry: CatalogEntry) -> str:
    """The family without its version."""
    return re.split(r"[\d-]", entry.family)[0]
