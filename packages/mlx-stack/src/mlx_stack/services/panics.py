"""What follows for a tier over which the Mac has panicked: `panics.json` (decision 0019).

    as defined ── two within a day ──▶ smaller ── one more ──▶ not at all
        ▲                                 │                        │
        └──────── the user names it: `up --tier`, `restart --tier` ┘

After a panic, launchd starts the watchdog, and this the stack: a tier that panics the Mac while it
loads would do so for ever.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Literal

import msgspec

from mlx_procsup import is_alive, readable_run
from mlx_stack import json_file
from mlx_stack.engines.vllm_mlx import DEFAULT_CACHE_BYTES, Serving
from mlx_stack.errors import StackError
from mlx_stack.gateway.events import PANIC, note_event
from mlx_stack.home import Home
from mlx_stack.services.panic_reports import PanicReport, read_reports
from mlx_stack.services.service import kind_of
from mlx_stack.stack import Tier

_DAY_S = 86_400.0
_LOADS_FOR_S = 180.0
"""So long after its start, a tier is said to have been loading."""
_CLOCKS_DIFFER_S = 2.0
_MOST_KEPT = 100
_FEW_TOKENS, _UNKNOWN_TOKENS = 2_048, 32_768
_SMALL_STEP = 256
"""Tokens of a prompt that are computed at once: half as many as usual, and what they need in memory
falls with it."""
_HINT = "Delete it: what macOS's reports say is read again."


class Standing(StrEnum):
    """How a tier is started after what has happened with it."""

    AS_DEFINED = "as-defined"
    SMALLER = "smaller"
    NOT_AT_ALL = "not-at-all"


class Suspect(msgspec.Struct, frozen=True):
    """A process of a tier that was found dead: it may have been there when the Mac panicked.

    Attributes:
        started_at: When it was started, in seconds since the epoch.
        seen_at: When it was found to be gone.
    """

    tier: str
    pid: int
    started_at: float
    seen_at: float


class Panic(msgspec.Struct, frozen=True):
    """A panic of this Mac.

    Attributes:
        report: The file that tells of it.
        at: When it was, in seconds since the epoch.
        reason: The kernel's own words.
        tier: The tier that it is held against; None where none of ours was there.
        was: What that tier did then.
    """

    report: str
    at: float
    reason: str
    tier: str | None = None
    was: Literal["loading", "running"] = "running"

    def describe(self) -> str:
        """One sentence about it, for the tier that it is held against."""
        while_it = f" while it was {self.was}" if self.tier is not None else ""
        return f"the Mac panicked{while_it}: {self.reason} ({self.report})"


class Record(msgspec.Struct, frozen=True):
    """What `panics.json` holds.

    Attributes:
        forgiven: By the tier, up to when its panics don't count, since the user acted then.
    """

    schema_version: int = 1
    panics: tuple[Panic, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    forgiven: dict[str, float] = {}

    def held_against(self, tier: str) -> tuple[Panic, ...]:
        """The panics that count for a tier, the oldest first."""
        since = self.forgiven.get(tier, float("-inf"))
        counted = (each for each in self.panics if each.tier == tier and each.at > since)
        return tuple(sorted(counted, key=lambda each: each.at))

    def standing(self, tier: str) -> Standing:
        """How a tier is started now."""
        return decide_standing([each.at for each in self.held_against(tier)])


def decide_standing(times: Iterable[float]) -> Standing:
    """How a tier is started after panics at these times, since the user last acted on it."""
    standing, recent = Standing.AS_DEFINED, list[float]()
    for at in sorted(times):
        recent = [*(each for each in recent if at - each <= _DAY_S), at]
        if standing is Standing.SMALLER:
            return Standing.NOT_AT_ALL
        if len(recent) > 1:
            standing = Standing.SMALLER
    return standing


def tie(report: PanicReport, suspects: Sequence[Suspect]) -> Panic:
    """The panic that a report tells of, held against the tier that was there.

    That is the one whose process the kernel names. Where it names another, it is the one that was
    started last: what a Mac carried for hours is not what it panics over when something is loaded.
    """
    panic = Panic(report.name, report.at, report.reason)
    there = [
        each
        for each in suspects
        if each.started_at <= report.at + _CLOCKS_DIFFER_S and report.at <= each.seen_at
    ]
    if not there:
        return panic
    named = [each for each in there if each.pid == report.pid]
    suspect = max(named or there, key=lambda each: (each.started_at, each.tier))
    is_loading = report.at - suspect.started_at <= _LOADS_FOR_S
    was: Literal["loading", "running"] = "loading" if is_loading else "running"
    return msgspec.structs.replace(panic, tier=suspect.tier, was=was)


def read(home: Home) -> Record:
    """What is known of this Mac's panics.

    Raises:
        InvalidFileError: When the file is damaged.
    """
    return json_file.read(home.panics, Record, hint=_HINT) or Record()


def take(home: Home, folder: Path, now: float) -> tuple[Panic, ...]:
    """Note the panics that new reports tell of, and return them; for who holds the stack's lock.

    It must come before anything is started again, since a start replaces what is known of the
    process that died in the panic.

    Raises:
        InvalidFileError: When `panics.json` is damaged.
        OSError: When it can't be written.
    """
    if not folder.is_dir():
        return ()
    record = read(home)
    suspects = _suspects(home, record.suspects, now)
    known = {each.report for each in record.panics}
    new = tuple(tie(report, suspects) for report in read_reports(folder, known))
    if new or suspects != record.suspects:
        newest = sorted((*record.panics, *new), key=lambda each: each.at)[-_MOST_KEPT:]
        changed = msgspec.structs.replace(record, panics=tuple(newest), suspects=suspects)
        json_file.write(home.panics, changed)
    ours = tuple(each for each in new if each.tier is not None)
    for each in ours:
        note_event(home, PANIC, each.tier or "", at=each.at)
    return ours


def forgive(home: Home, tiers: Iterable[str], now: float) -> None:
    """Hold nothing against these tiers that happened until now.

    Raises:
        InvalidFileError: When `panics.json` is damaged.
    """
    record = read(home)
    until = {
        tier: max(now, *(each.at for each in held))
        for tier in tiers
        if (held := record.held_against(tier))
    }
    if until:
        forgiven = {**record.forgiven, **until}
        json_file.write(home.panics, msgspec.structs.replace(record, forgiven=forgiven))


def refusal(tier: str, record: Record) -> StackError:
    """What to say of a tier that isn't started at all."""
    panics = record.held_against(tier)
    return StackError(
        f"{tier!r} isn't started: the Mac panicked {len(panics)} times while it was running, last "
        f"with {panics[-1].reason}.",
        hint=f"Give it a smaller model or context; `mlx-stack up --tier {tier}` starts it again.",
    )


def smaller(tier: Tier) -> Tier:
    """The tier with half its context, and one request at a time."""
    context = max((tier.context_tokens or _UNKNOWN_TOKENS) // 2, _FEW_TOKENS)
    context = min(context, tier.context_tokens or context)
    return msgspec.structs.replace(tier, context_tokens=context, concurrency=1)


def smaller_serving(serving: Serving) -> Serving:
    """The same with half the memory for prefixes, and with shorter pieces of prompts."""
    return replace(
        serving,
        cache_bytes=(serving.cache_bytes or DEFAULT_CACHE_BYTES) // 2,
        prefill_step=min(serving.prefill_step or _SMALL_STEP, _SMALL_STEP),
    )


def words_of(tier: str, record: Record) -> str:
    """What to say of a tier that has panics against it; "" of another."""
    panics = record.held_against(tier)
    if not panics:
        return ""
    times = "once" if len(panics) == 1 else f"{len(panics)} times"
    words = f"the Mac panicked {times} while it was running, last with {panics[-1].reason}"
    then = {
        Standing.AS_DEFINED: "",
        Standing.SMALLER: "; it is started with half its context, for one request at a time",
        Standing.NOT_AT_ALL: f"; it isn't started until you do: `mlx-stack up --tier {tier}`",
    }
    return words + then[record.standing(tier)]


def _suspects(home: Home, known: Sequence[Suspect], now: float) -> tuple[Suspect, ...]:
    """Those of before that still matter, and every engine that is found dead."""
    dirs = home.state_dirs
    kept = {
        (each.tier, each.started_at): each for each in known if now - each.seen_at <= 7 * _DAY_S
    }
    for name in dirs.names():
        record = readable_run(dirs, name) if kind_of(name) == "engine" else None
        if record is None or record.identity is None or record.started_at is None:
            continue
        if not is_alive(record.identity):
            pid, began = record.identity.pid, record.started_at
            kept.setdefault((name, began), Suspect(name, pid, began, now))
    return tuple(sorted(kept.values(), key=lambda each: each.seen_at)[-_MOST_KEPT:])
