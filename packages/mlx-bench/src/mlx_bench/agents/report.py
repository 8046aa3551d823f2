"""What a benchmark of agents found.

The fields of these types are the fields of the JSON document of `schema_version` 1.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mlx_bench.agents.metrics import AgentTurn
from mlx_bench.agents.workload import AgentParameters
from mlx_bench.cautions import Caution
from mlx_bench.metrics import Count
from mlx_bench.report import SCHEMA_VERSION, EngineVersion
from mlx_bench.stats import UNKNOWN, MedianEstimate, estimate
from mlx_bench.workload import Exactness


class TurnSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What all agents' requests of one turn come to; failed ones don't count.

    Attributes:
        turn: From 1.
        ttft_s: Over the agents.
        prompt_tokens: Mean of the agents.
        new_tokens: Mean of the agents.
        read_tokens: Mean of the agents, or None where one of them couldn't tell.
    """

    turn: Count
    ttft_s: MedianEstimate = UNKNOWN
    end_to_end_s: MedianEstimate = UNKNOWN
    prompt_tokens: Count | None = None
    new_tokens: Count | None = None
    read_tokens: Count | None = None
    completion_tokens: Count | None = None


class TokenTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of all agents and turns.

    Attributes:
        read_tokens: From the server's `usage`, else from its counter over the whole time.
    """

    prompt_tokens: Count | None = None
    new_tokens: Count | None = None
    read_tokens: Count | None = None
    completion_tokens: Count = 0


class AgentsReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a benchmark of agents found.

    Attributes:
        prompt_exactness: How well the lengths of texts are known.
        finished: False in what was written before the last turn.
        turns: What the agents' requests come to, turn by turn.
        throughput_tps: Generated tokens of all agents over the time that all took together.
        fairness: The time of the slowest agent over that of the quickest, of those that made every
            turn: 1 is fair. None for fewer than two.
        runs: Every request.
        extra: Further keys of the document, which mean something to whoever added them.
    """

    bench_version: str = ""
    target: str
    model: str
    agents: Count
    engine: EngineVersion = EngineVersion()
    parameters: AgentParameters
    prompt_exactness: Exactness = Exactness.ASSUMED
    machine: dict[str, object]
    started_at: str = ""
    finished: bool = False
    turns: tuple[TurnSummary, ...]
    throughput_tps: float | None = None
    fairness: float | None = None
    totals: TokenTotals = TokenTotals()
    cautions: tuple[Caution, ...] = ()
    runs: tuple[AgentTurn, ...] = ()
    extra: dict[str, object] = msgspec.field(default_factory=dict[str, object])

    def to_document(self) -> dict[str, object]:
        """The report as a JSON object."""
        shape: dict[str, Any] = msgspec.to_builtins(self)
        extra = shape.pop("extra")
        return {"schema_version": SCHEMA_VERSION, **shape, **extra}


def summarize_turns(runs: Sequence[AgentTurn], *, seed: int) -> tuple[TurnSummary, ...]:
    """What the requests come to, turn by turn."""
    return tuple(
        _summarize_turn(turn, [run for run in runs if run.turn == turn], seed)
        for turn in sorted({run.turn for run in runs})
    )


def _summarize_turn(turn: int, runs: Sequence[AgentTurn], seed: int) -> TurnSummary:
    good = [run for run in runs if run.error is None]

    def times(read: Callable[[AgentTurn], float | None]) -> MedianEstimate:
        return estimate([value for run in good if (value := read(run)) is not None], seed=seed)

    def mean(read: Callable[[AgentTurn], int | None]) -> int | None:
        known = [value for run in good if (value := read(run)) is not None]
        return round(statistics.fmean(known)) if known and len(known) == len(good) else None

    return TurnSummary(
        turn=turn,
        ttft_s=times(lambda run: run.ttft_s),
        end_to_end_s=times(lambda run: run.end_to_end_s),
        prompt_tokens=mean(lambda run: run.prompt_tokens),
        new_tokens=mean(lambda run: run.new_tokens),
        read_tokens=mean(lambda run: run.read_tokens),
        completion_tokens=mean(lambda run: run.completion_tokens),
    )


def total_tokens(runs: Sequence[AgentTurn], saved_tokens: int | None) -> TokenTotals:
    """The tokens of all requests that succeeded.

    Args:
        saved_tokens: What the engine's counter says that its cache answered meanwhile.
    """
    good = [run for run in runs if run.error is None]

    def total(read: Callable[[AgentTurn], int | None]) -> int | None:
        known = [value for run in good if (value := read(run)) is not None]
        return sum(known) if known and len(known) == len(good) else None

    prompt, read = total(lambda run: run.prompt_tokens), total(lambda run: run.read_tokens)
    if read is None and prompt is not None and saved_tokens is not None:
        read = max(prompt - saved_tokens, 0)
    return TokenTotals(
        prompt_tokens=prompt,
        new_tokens=total(lambda run: run.new_tokens),
        read_tokens=read,
        completion_tokens=sum(run.completion_tokens for run in good),
    )


def throughput_tps(runs: Sequence[AgentTurn]) -> float | None:
    """Generated tokens over the time from the first request to the last end, or None."""
    ends = [run.sent_s + run.end_to_end_s for run in runs if run.end_to_end_s is not None]
    if not ends:
        return None
    passed_s = max(ends) - min(run.sent_s for run in runs)
    tokens = sum(run.completion_tokens for run in runs if run.error is None)
    return tokens / passed_s if passed_s > 0 else None


def fairness(runs: Sequence[AgentTurn], turns: int) -> float | None:
    """The slowest agent's time over the quickest's, or None for fewer than two whole ones."""
    times: list[float] = []
    for agent in {run.agent for run in runs}:
        mine = [run for run in runs if run.agent == agent and run.end_to_end_s is not None]
        if len(mine) == turns:
            end_s = max(run.sent_s + (run.end_to_end_s or 0) for run in mine)
            times.append(end_s - min(run.sent_s for run in mine))
    if len(times) < 2 or min(times) <= 0:
        return None
    return max(times) / min(times)
