"""When a calibration server emits which tokens; pure.

A schedule travels as the request's model name, `ttft_ms=200,tps=100,burst=4`, so that one server
serves every schedule at once.
"""

import random
from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from typing import Annotated, NamedTuple

import msgspec

from mlx_bench.errors import ParametersError


class Failure(StrEnum):
    """How a stream breaks after `fail_after` tokens."""

    ERROR = "error"
    """An `error` frame, then the end."""
    DISCONNECT = "disconnect"
    """The connection is closed in mid-stream."""


type _NotNegative = Annotated[float, msgspec.Meta(ge=0)]
type _AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the server does with one request.

    Attributes:
        ttft_ms: From the request's last byte to the first token.
        tps: Tokens a second after the first.
        jitter: Each token after the first is shifted by up to ± this share of the interval.
        burst: So many tokens leave at once, each as its own event, when the first is due.
        grouped: So many tokens share one event, sent when the first is due.
        prefill_tps: Adds the uncached prompt tokens divided by this to the TTFT; 0 adds nothing.
        cache: 1: a prefix of any prompt that was seen before costs no prefill; 2: of any prompt
            and its answer, as an engine has it that keeps what it wrote; 0 keeps nothing.
        cache_entries: So many prompts are kept, the least recently used goes first; 0 keeps all.
        tell_cache: Say in `usage` how many tokens came from the cache.
        lanes: So many requests are served at once, the others wait for their turn; 0 serves all.
        tokens: How many to send, whatever the request asks; 0 obeys the request.
        stop_after: End early after so many tokens, with `finish_reason` `stop`; 0 never.
        reasoning: So many first tokens are reasoning.
        tool_calls: So many calls of the first tool offered end each answer.
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

    ttft_ms: _NotNegative = 100.0
    tps: Annotated[float, msgspec.Meta(gt=0)] = 100.0
    jitter: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    burst: _AtLeastOne = 1
    grouped: _AtLeastOne = 1
    prefill_tps: _NotNegative = 0.0
    cache: Annotated[int, msgspec.Meta(ge=0, le=2)] = 0
    cache_entries: Annotated[int, msgspec.Meta(ge=0)] = 0
    tell_cache: int = 1
    lanes: Annotated[int, msgspec.Meta(ge=0)] = 0
    tokens: int = 0
    stop_after: int = 0
    reasoning: int = 0
    tool_calls: Annotated[int, msgspec.Meta(ge=0)] = 0
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
    chars_per_token: _NotNegative = 0.0
    seed: int = 0


def parse_schedule(text: str) -> Schedule:
    """The schedule that a model name spells; what it leaves out keeps its default.

    Raises:
        ParametersError: A part is not `name=value` with a known name and a readable value.
    """
    values: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        values[name] = value
    try:
        return msgspec.convert(values, Schedule, strict=False)
    except msgspec.ValidationError as error:
        raise ParametersError(f"{text!r} is not a schedule: {error}.") from error


def spell_schedule(schedule: Schedule) -> str:
    """The model name that `parse_schedule` reads back as this schedule."""
    default = msgspec.structs.asdict(Schedule())
    values = msgspec.structs.asdict(schedule)
    return ",".join(f"{name}={value}" for name, value in values.items() if value != default[name])


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
