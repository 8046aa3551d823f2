"""What one turn of one agent measured; pure."""

from typing import TYPE_CHECKING

import msgspec

from mlx_bench.agents.conversation import is_usable
from mlx_bench.completion import Completion, CountedBy
from mlx_bench.metrics import Count, Point, measure_run

if TYPE_CHECKING:
    from mlx_bench.client import Exchange


class AgentTurn(msgspec.Struct, frozen=True, kw_only=True):
    """One request of one agent; None is what it could not tell.

    Attributes:
        agent: From 0.
        turn: From 1.
        sent_s: When its last byte went out, counted from when the agents were let go.
        prompt_tokens: As the server counted them.
        new_tokens: Those of them that this conversation had not had before: neither in its prompt
            of the turn before nor in the answer to it. An answer with reasoning goes back without
            it and counts as new.
        read_tokens: Those of them that no cache answered.
        completion_tokens: As the server counted them, else the number of events.
        tool_calls: How many the answer had that a client can run.
        has_reasoning: Whether the answer had some.
        error: Why the agent ended here, or None.
    """

    agent: Count
    turn: Count
    sent_s: float
    ttft_s: float | None
    end_to_end_s: float | None
    prompt_tokens: Count | None
    new_tokens: Count | None
    read_tokens: Count | None
    completion_tokens: Count
    counted_by: CountedBy
    tool_calls: Count
    has_reasoning: bool
    finish_reason: str | None
    error: str | None


def measure_turn(
    exchange: "Exchange",
    completion: Completion,
    *,
    agent: int,
    turn: int,
    requested_tokens: int,
    begun_ns: int,
    before: AgentTurn | None,
    saved_tokens: int | None = None,
) -> AgentTurn:
    """The figures of one exchange.

    Args:
        begun_ns: When the agents were let go.
        before: The agent's turn before this one, or None for its first.
        saved_tokens: What the engine's own counter says that its cache answered, for a server
            whose `usage` doesn't tell.
    """
    run = measure_run(
        exchange, completion, point=Point(1, 1), requested_tokens=requested_tokens, stream=agent
    )
    sent_ns = exchange.sent_ns if exchange.sent_ns is not None else exchange.started_ns
    cached = run.cached_tokens if run.cached_tokens is not None else saved_tokens
    prompt = run.prompt_tokens
    answer = completion.answer
    return AgentTurn(
        agent=agent,
        turn=turn,
        sent_s=(sent_ns - begun_ns) / 1e9,
        ttft_s=run.ttft_s,
        end_to_end_s=run.end_to_end_s,
        prompt_tokens=prompt,
        new_tokens=_new_tokens(prompt, before),
        read_tokens=max(prompt - cached, 0) if prompt is not None and cached is not None else None,
        completion_tokens=run.completion_tokens,
        counted_by=run.counted_by,
        tool_calls=sum(is_usable(call) for call in answer.tool_calls),
        has_reasoning=answer.has_reasoning,
        finish_reason=run.finish_reason,
        error=run.error,
    )


def _new_tokens(prompt_tokens: int | None, before: AgentTurn | None) -> int | None:
    if before is None or prompt_tokens is None:
        return prompt_tokens
    if before.prompt_tokens is None or before.counted_by is not CountedBy.USAGE:
        return None
    answered = 0 if before.has_reasoning else before.completion_tokens
    return max(prompt_tokens - before.prompt_tokens - answered, 0)
