"""Tiers of models that only read: they get their share of the budget before those that chat.

(decision 0113)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlx_catalog import ModelRole
from mlx_hwprobe import HardwareProfile
from mlx_recommend.calibration import READING_LONGEST_TOKENS
from mlx_recommend.candidates import Candidate
from mlx_recommend.fit import Estimate, estimate
from mlx_recommend.inputs import Workload

READING_TIERS = {ModelRole.EMBEDDING: "embedder", ModelRole.RERANK: "reranker"}
"""The roles that a plan can have a tier for beside those that chat, with its name."""
READING_SHARE = 0.08
"""The share of the budget within which each of them takes the largest model: they are always
loaded, and what they take is lost for answers."""
MOST_SHARE = 0.2
"""The share that the smallest model may take where none is within the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingTier:
    """A tier that turns text into vectors, or sorts documents.

    Attributes:
        total_bytes: What it takes of the Mac's memory, its process included.
        is_smallest: Whether it is the smallest, which takes more than the usual share.
    """

    candidate: Candidate
    estimate: Estimate
    total_bytes: int
    is_smallest: bool = False

    @property
    def role(self) -> ModelRole:
        """What it is for."""
        return self.candidate.entry.role

    @property
    def name(self) -> str:
        """The tier's name."""
        return READING_TIERS[self.role]


def choose_reading(options: Sequence[ReadingTier], budget_bytes: int) -> ReadingTier | None:
    """The largest within its share of the budget, else the smallest if that is bearable."""
    for each in options:
        if each.total_bytes <= budget_bytes * READING_SHARE:
            return each
    smallest = min(options, key=lambda each: each.total_bytes, default=None)
    if smallest is None or smallest.total_bytes > budget_bytes * MOST_SHARE:
        return None
    return replace(smallest, is_smallest=True)


def reading_options(
    candidates: Sequence[Candidate], role: ModelRole, hardware: HardwareProfile
) -> list[ReadingTier]:
    """What may serve `role`, the model of most parameters first.

    Their published scores come from different versions of different tests, and only a few have any.
    """
    found: list[ReadingTier] = []
    for candidate in candidates:
        if candidate.entry.role is not role or candidate.exclusion is not None:
            continue
        longest = min(candidate.longest_tokens, READING_LONGEST_TOKENS)
        expected = estimate(candidate.shape, hardware, Workload(context_tokens=max(longest, 1)))
        total = expected.memory.with_process_bytes
        if total is not None:
            found.append(ReadingTier(candidate=candidate, estimate=expected, total_bytes=total))
    return sorted(found, key=lambda each: (-each.candidate.entry.params_b, each.total_bytes))
