"""What fits a Mac's memory and how fast it runs: pure arithmetic, with its error in the open.

`estimate` answers for one model on one machine, `make_plan` chooses the tiers of a stack together
under one budget. Nothing here reads a file, starts a process or opens a connection.
"""

from mlx_recommend.budget import DEFAULT_BUDGET_PCT, budget_bytes
from mlx_recommend.calibration import PREFILL_STEP_TOKENS, PROCESS_BYTES
from mlx_recommend.candidates import Candidate, Exclusion, candidate_of
from mlx_recommend.errors import RecommendError
from mlx_recommend.evidence import reference_measurements
from mlx_recommend.explain import (
    ChoiceReason,
    ReasonKind,
    group_reasons,
    reading_reasons,
    reasons,
)
from mlx_recommend.fit import Estimate, estimate
from mlx_recommend.group import GroupEstimate, LinkSpeeds, MacPart, estimate_group
from mlx_recommend.group_plan import GROUP_TIER, GroupTier, choose_group
from mlx_recommend.inputs import (
    DEFAULT_CONTEXT_TOKENS,
    SPEED_CONTEXT_TOKENS,
    Basis,
    Drafts,
    Measurement,
    ModelShape,
    Workload,
)
from mlx_recommend.links import LinkKind
from mlx_recommend.memory import (
    MemoryUse,
    kept_context_bytes,
    memory_use,
    prefill_step,
)
from mlx_recommend.plan import Absence, MissingTier, TierPlan, make_plan
from mlx_recommend.reading import READING_TIERS, ReadingTier
from mlx_recommend.score import Intent
from mlx_recommend.shapes import shape_of_entry, shape_of_model
from mlx_recommend.sharding import Share, Split, SplitKind, split
from mlx_recommend.speed import Speed
from mlx_recommend.tier_kinds import STANDARD, TIER_KINDS, Option, TierKind

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_BUDGET_PCT",
    "DEFAULT_CONTEXT_TOKENS",
    "GROUP_TIER",
    "PREFILL_STEP_TOKENS",
    "PROCESS_BYTES",
    "READING_TIERS",
    "SPEED_CONTEXT_TOKENS",
    "STANDARD",
    "TIER_KINDS",
    "Absence",
    "Basis",
    "Candidate",
    "ChoiceReason",
    "Drafts",
    "Estimate",
    "Exclusion",
    "GroupEstimate",
    "GroupTier",
    "Intent",
    "LinkKind",
    "LinkSpeeds",
    "MacPart",
    "Measurement",
    "MemoryUse",
    "MissingTier",
    "ModelShape",
    "Option",
    "ReadingTier",
    "ReasonKind",
    "RecommendError",
    "Share",
    "Speed",
    "Split",
    "SplitKind",
    "TierKind",
    "TierPlan",
    "Workload",
    "__version__",
    "budget_bytes",
    "candidate_of",
    "choose_group",
    "estimate",
    "estimate_group",
    "group_reasons",
    "kept_context_bytes",
    "make_plan",
    "memory_use",
    "prefill_step",
    "reading_reasons",
    "reasons",
    "reference_measurements",
    "shape_of_entry",
    "shape_of_model",
    "split",
]
