"""When a calibration server emits which tokens; pure.

A schedule travels as the request's model name, `ttft_ms=200,tps=100,burst=4`, so that one server
serves every schedule at once.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cache
from typing import NamedTuple

from mlx_bench.errors import ParametersError


class Failure(StrEnum):
    """How a stream breaks after `fail_after` tokens."""

    ERROR = "error"
    """An `error` frame, then the end."""
    DISCONNECT = "disconnect"
    """The connection is closed in mid-stream."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What the server does with one request.

    Attributes:
        ttft_ms: From the request's last byte to the first token.
        tps: Tokens a second after the first.
        jitter: Each token after the first is shifted by up to ± this share of the interval.
        burst: So many tokens leave at once, each an event of its own, when the first is due.
        grouped: So many tokens share one event, sent when the first is due.
        prefill_tps: Adds the uncached prompt tokens divided by this to the TTFT; 0 adds nothing.
        cache: Prompt prefixes that were seen before cost no prefill.
        tokens: How many to send, whatever the request asks; 0 obeys the request.
        stop_after: End early after so many tokens, with `finish_reason` `stop`; 0 never.
        reasoning: So many first tokens are reasoning.
        role: A role-only delta is sent at once, and an empty one before the first token.
        usage: Send `usage` when asked for it.
        comments: Send an SSE comment before each token.
        crlf: End lines by CR LF.
        split: Send each event in two pieces.
        fail_after: Break the stream after so many tokens; 0 never.
        failure: How it breaks.
        status: Answer with this HTTP status instead of a stream; 0 streams.
        refuse: Answer 400 to a request that has this field.
        overhead: Prompt tokens that the chat template adds.
        chars_per_token: Count prompt tokens by characters instead of words; 0 counts words.
        seed: Of the jitter.
    """

    ttft_ms: float = 100.0
    tps: float = 100.0
    jitter: float = 0.0
    burst: int = 1
    grouped: int = 1
    prefill_tps: float = 0.0
    cache: int = 0
    tokens: int = 0
    stop_after: int = 0
    reasoning: int = 0
    role: int = 1
    usage: int = 1
    comments: int = 0
    crlf: int = 0
    split: int = 0
    fail_after: int = 0
    failure: Failure = Failure.ERROR
    status: int = 0
    refuse: str = ""
    overhead: int = 7
    chars_per_token: float = 0.0
    seed: int = 0


def parse_schedule(text: str) -> Schedule:
    """The schedule that a model name spells; what it leaves out keeps its default.

    Raises:
        ParametersError: A part is no `name=value` of a known name and a readable value.
    """
    known = {item.name: item.type for item in fields(Schedule)}
    values: dict[str, object] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals or name not in known:
            raise ParametersError(f"{part!r} is no part of a schedule: {', '.join(known)}.")
        try:
            values[name] = _read_value(name, value)
        except ValueError as error:
            raise ParametersError(f"{part!r}: {error}.") from error
    return _checked(values)


def _read_value(name: str, value: str) -> object:
    default = getattr(Schedule(), name)
    if isinstance(default, Failure):
        return Failure(value)
    return type(default)(value)


def _checked(values: Mapping[str, object]) -> Schedule:
    schedule = Schedule(**values)  # pyright: ignore[reportArgumentType] - typed by _read_value
    if schedule.tps <= 0 or schedule.ttft_ms < 0 or not 0 <= schedule.jitter < 1:
        raise ParametersError("tps must be above 0, ttft_ms not below 0, jitter within 0-1.")
    if schedule.burst < 1 or schedule.grouped < 1:
        raise ParametersError("burst and grouped must be at least 1.")
    return schedule


def spell_schedule(schedule: Schedule) -> str:
    """The model name that `parse_schedule` reads back as this schedule."""
    default = Schedule()
    return ",".join(
        f"{item.name}={getattr(schedule, item.name)}"
        for item in fields(schedule)
        if getattr(schedule, item.name) != getattr(default, item.name)
    )


class TokenEvent(NamedTuple):
    """One event of the stream: seconds after the request was read, and how many tokens."""

    at_s: float
    tokens: int


@cache
def plan_events(schedule: Schedule, *, tokens: int, uncached_tokens: int) -> tuple[TokenEvent, ...]:
    """When each event leaves, for a request of so many tokens and so much prompt to prefill.

    Token k (from 0) is due at `ttft + k / tps`; the first token is never shifted, so that the
    TTFT is exact under jitter too.
    """
    first_s = schedule.ttft_ms / 1000
    if schedule.prefill_tps > 0:
        first_s += uncached_tokens / schedule.prefill_tps
    shift = random.Random(schedule.seed)  # noqa: S311 - a schedule, no secret
    due = [
        first_s
        + (k + (shift.uniform(-schedule.jitter, schedule.jitter) if k else 0)) / schedule.tps
        for k in range(tokens)
    ]
    due.sort()
    group = schedule.grouped * schedule.burst
    if group == 1:
        return tuple(TokenEvent(at_s, 1) for at_s in due)
    events: list[TokenEvent] = []
    for start in range(0, tokens, group):
        members = due[start : start + group]
        # Tokens wait for the first of their group, so that TTFT stays exact.
        events += [
            TokenEvent(members[0], len(members[i : i + schedule.grouped]))
            for i in range(0, len(members), schedule.grouped)
        ]
    return tuple(events)


def true_rate_tps(events: Sequence[TokenEvent]) -> float | None:
    """The decode rate of a plan by the same definition as the measurement, or None."""
    tokens = sum(event.tokens for event in events)
    if tokens < 2 or events[-1].at_s <= events[0].at_s:
        return None
    return (tokens - 1) / (events[-1].at_s - events[0].at_s)
