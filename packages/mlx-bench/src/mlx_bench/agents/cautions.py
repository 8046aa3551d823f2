"""What a reader should know before trusting the figures of agents; pure."""

from collections.abc import Iterator, Sequence

from mlx_bench.agents.metrics import AgentTurn
from mlx_bench.agents.report import TokenTotals
from mlx_bench.agents.workload import AgentParameters
from mlx_bench.cautions import CLIENT_CPU_SHARE, Caution, CautionCode, events_counted
from mlx_bench.completion import CountedBy
from mlx_bench.workload import Exactness

_OFF_SHARE = 0.05


def find_agent_cautions(
    runs: Sequence[AgentTurn],
    parameters: AgentParameters,
    exactness: Exactness,
    *,
    totals: TokenTotals,
    concurrency: int | None,
    has_tools: bool,
    cpu_share: float,
) -> tuple[Caution, ...]:
    """Every caution that the measured turns call for.

    Args:
        concurrency: How many requests the server takes at once, or None where it is unknown.
        has_tools: Whether the server took requests that offer tools.
        cpu_share: CPU time of this process over the time that passed.
    """
    good = [run for run in runs if run.error is None]
    return (
        *_failures(runs),
        *_load(parameters, concurrency, cpu_share),
        *_tools(good, has_tools=has_tools),
        *_counts(good, parameters, exactness, totals),
    )


def _failures(runs: Sequence[AgentTurn]) -> Iterator[Caution]:
    failed = [run for run in runs if run.error is not None]
    if failed:
        agents = "1 agent" if len(failed) == 1 else f"{len(failed)} agents"
        yield Caution(
            CautionCode.FAILED_RUNS,
            f"{agents} ended early; the first at turn {failed[0].turn}: {failed[0].error}.",
        )


def _load(
    parameters: AgentParameters, concurrency: int | None, cpu_share: float
) -> Iterator[Caution]:
    if concurrency is not None and parameters.agents > concurrency:
        yield Caution(
            CautionCode.AGENTS_QUEUE,
            f"{parameters.agents} agents on a model that is planned for {concurrency} at once: "
            "they wait for one another, and their caches may push each other out.",
        )
    if cpu_share > CLIENT_CPU_SHARE:
        text = f"The client itself used {cpu_share:.0%} of a core: its timestamps may be late."
        yield Caution(CautionCode.CLIENT_BUSY, text)


def _tools(runs: Sequence[AgentTurn], *, has_tools: bool) -> Iterator[Caution]:
    if not has_tools:
        text = "The server refuses requests that offer tools: the agents talked without any."
        yield Caution(CautionCode.NO_TOOL_CALLS, text)
    elif runs and not any(run.tool_calls for run in runs):
        cut = sum(run.finish_reason == "length" for run in runs)
        why = f" {cut} were cut off: more --generation-tokens may help." if cut else ""
        yield Caution(
            CautionCode.NO_TOOL_CALLS,
            f"None of {len(runs)} answers called a tool; the results went back as the user's "
            f"words.{why}",
        )


def _counts(
    runs: Sequence[AgentTurn],
    parameters: AgentParameters,
    exactness: Exactness,
    totals: TokenTotals,
) -> Iterator[Caution]:
    if runs and totals.read_tokens is None:
        text = "The number of tokens read is unknown: only the times show what was reused."
        yield Caution(CautionCode.READS_UNKNOWN, text)
    counted = sum(run.counted_by is CountedBy.EVENTS for run in runs)
    if counted:
        yield Caution(
            CautionCode.EVENTS_COUNTED,
            events_counted(f"{counted} of {len(runs)} turns"),
        )
    asked = parameters.prefix_tokens + parameters.task_tokens
    found = [run.prompt_tokens for run in runs if run.turn == 1 and run.prompt_tokens is not None]
    wrong = [count for count in found if abs(count - asked) > _OFF_SHARE * asked]
    if wrong:
        text = f"Asked for first prompts of {asked:,} tokens; they had {wrong[0]:,}."
        yield Caution(CautionCode.PROMPT_LENGTH, text)
    elif not found and exactness is Exactness.ASSUMED:
        text = "The server doesn't count prompts: their length assumes one token per word."
        yield Caution(CautionCode.PROMPT_LENGTH, text)
