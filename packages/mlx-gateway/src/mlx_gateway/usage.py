"""What a ledger says: who used what, how it felt, and what was there. Reads only.

Whole days of long ago come from their sums, in which a speed is known to within 1 %; the newest
requests, and those of a first day that is not whole, are looked at one by one (decision 0086).
"""

import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Annotated

import msgspec

from mlx_gateway.availability import Availability, TimeSpan, availability
from mlx_gateway.ledger import LedgerEvent, day_of, decode_sums, open_ledger
from mlx_gateway.prompts.conversations import Prefix, in_words
from mlx_gateway.sums import Sums

_LOOKED_AT = 20_000
_UNITS_S = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_SINCE = re.compile(r"(?P<count>[1-9]\d{0,4})(?P<unit>[mhdw])")
_LONG_PROMPT_TOKENS = 512
_LONG_ANSWER_TOKENS = 64
_MOST_CLEAN = 2_000
_MOST_REASONS = 20
_USUAL, _USUAL_TURNS = 0.8, 4
"""What strikes so large a share of at least so many turns happens each turn."""


class By(StrEnum):
    """What requests can be told apart by."""

    MODEL = "model"
    KEY = "key"
    DAY = "day"


type _Price = Annotated[float, msgspec.Meta(ge=0)]


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a million tokens of a model cost elsewhere.

    Attributes:
        prompt: Tokens of prompts.
        completion: Tokens of answers.
        cached: Tokens of prompts that were read before; None where they cost the same.
    """

    prompt: _Price
    completion: _Price
    cached: _Price | None = None

    def of(self, used: Sums) -> float:
        """What these tokens would have cost."""
        cached = self.prompt if self.cached is None else self.cached
        fresh = max(used.prompt_tokens - used.cached_tokens, 0)
        tokens = fresh * self.prompt + used.cached_tokens * cached
        return (tokens + used.completion_tokens * self.completion) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class RereadSum:
    """What was read again for one reason.

    Attributes:
        program: Whose prompts they were; "" where it didn't say.
        prefix: The reason, as a `Prefix` is called.
        place: Which line of the system prompt or which tool; None where it was none of these.
        requests: How many turns it struck.
        turns: How many turns of a conversation the program had in all, first ones left out.
        tokens: Read again.
        seconds: The time for those of them whose time is known.
        untimed: The others, by model.
    """

    program: str
    prefix: str
    place: int | None
    requests: int
    turns: int
    tokens: int
    seconds: float
    untimed: Mapping[str, int]

    @property
    def words(self) -> str:
        """The reason in words: `line 3 of opencode's system prompt changes each turn`."""
        is_usual = self.turns >= _USUAL_TURNS and self.requests >= _USUAL * self.turns
        return in_words(self.prefix, self.place, self.program, each_turn=is_usual)


@dataclass(frozen=True, slots=True)
class LedgerUsage:
    """What was used in a time.

    Attributes:
        since: Its beginning, in seconds since the epoch.
        until: Its end.
        by: What the rows are told apart by.
        rows: The model, key or day, with what was used; the most requests first, days in order.
        by_model: The same by model, which costs depend on, for each row.
        availability: How the endpoint and each tier did, from when each was first seen.
        events: What happened to the machine.
        rereads: What was read again and why, the most tokens first.
    """

    since: float
    until: float
    by: By
    rows: Mapping[str, Sums]
    by_model: Mapping[str, Mapping[str, Sums]]
    availability: Mapping[str, Availability]
    events: tuple[LedgerEvent, ...]
    rereads: tuple[RereadSum, ...] = ()

    @property
    def totals(self) -> Sums:
        """All rows together."""
        return Sums.of(self.rows.values())

    def cost(self, prices: Mapping[str, Price], row: str | None = None) -> float | None:
        """What a row, or everything, would have cost; None where the price of a model is missing.

        Args:
            prices: By model.
            row: Its name; None for everything.
        """
        names = self.rows if row is None else (row,)
        parts = [part for name in names for part in self.by_model[name].items()]
        if not prices or any(model not in prices for model, _ in parts):
            return None
        return sum(prices[model].of(used) for model, used in parts)

    def to_document(self, prices: Mapping[str, Price]) -> dict[str, object]:
        """All of it as JSON, with costs where there are prices."""

        def figures(used: Sums, row: str | None = None) -> dict[str, object]:
            found = used.to_document()
            return {**found, "cost_usd": self.cost(prices, row)} if prices else found

        return {
            "since": _iso(self.since),
            "until": _iso(self.until),
            "totals": figures(self.totals),
            "rows": [
                {self.by.value: name, **figures(each, name)} for name, each in self.rows.items()
            ],
            "availability": {name: each.share for name, each in self.availability.items()},
            "outages": {name: each.to_document() for name, each in self.availability.items()},
        }

    def table(self) -> list[list[object]]:
        """The rows for a spreadsheet, under a line of headings; what is unknown is None."""
        names = ("requests", "failed", "prompt_tokens", "cached_tokens", "completion_tokens")
        heads = [*names, "ttft_p50_s", "ttft_p95_s", "generation_p50_tps"]
        table: list[list[object]] = [[self.by.value, *heads]]
        for name, used in self.rows.items():
            speeds = (used.ttft_s(0.5), used.ttft_s(0.95), used.generation_tps(0.5))
            table.append([name, *(getattr(used, each) for each in names), *speeds])
        return table


@dataclass(frozen=True, slots=True)
class CleanRequest:
    """A request whose speed is that of the model by itself.

    Attributes:
        at: When it came, in seconds since the epoch.
        prompt_tokens: The length of its prompt.
        prompt_tps: Prefill speed; None where a cache helped, nobody knows, or it was short.
        generation_tps: Decode speed; None where the answer was short.
    """

    at: float
    prompt_tokens: int
    prompt_tps: float | None
    generation_tps: float | None


def parse_since(text: str, now: float) -> float:
    """The time that `7d`, `12h`, `30m`, `2w` or a date mean, in seconds since the epoch.

    Raises:
        ValueError: When it is none of these.
    """
    match = _SINCE.fullmatch(text)
    if match is not None:
        return now - int(match["count"]) * _UNITS_S[match["unit"]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"{text!r} isn't a time") from error


def read_usage(path: Path, *, since: float, until: float, by: By = By.MODEL) -> LedgerUsage:
    """What was used between two times; nothing where there is no ledger.

    Raises:
        LedgerError: When it can't be read.
    """
    found: dict[tuple[str, str], Sums] = defaultdict(Sums)
    found_there: dict[str, Availability] = {}
    events: tuple[LedgerEvent, ...] = ()
    rereads: tuple[RereadSum, ...] = ()
    with open_ledger(path) as ledger:
        if ledger is not None:
            rereads = _rereads(ledger, since, until)
            _collect(ledger, since, until, by, found)
            events = _events(ledger, since, until)
            found_there = availability(_seen(ledger), _events(ledger, 0, until), since, until)
    by_model: dict[str, dict[str, Sums]] = defaultdict(dict)
    for (name, model), used in found.items():
        by_model[name][model] = used
    rows = {name: Sums.of(parts.values()) for name, parts in by_model.items()}
    in_order = sorted(rows) if by is By.DAY else sorted(rows, key=lambda name: -rows[name].requests)
    return LedgerUsage(
        since,
        until,
        by,
        {name: rows[name] for name in in_order},
        by_model,
        found_there,
        events,
        rereads,
    )


def key_uses(path: Path) -> dict[str, float]:
    """When each key was last used, by its client's name; empty where there is no ledger.

    Raises:
        LedgerError: When it can't be read.
    """
    with open_ledger(path) as ledger:
        return {} if ledger is None else dict(ledger.execute("SELECT name, at FROM key_use"))


def read_events(path: Path, since: float = 0, until: float = 2**40) -> tuple[LedgerEvent, ...]:
    """What happened to the machine, in the order in which it was written.

    Raises:
        LedgerError: When it can't be read.
    """
    with open_ledger(path) as ledger:
        return () if ledger is None else _events(ledger, since, until)


def last_events(path: Path, what: str, service: str, count: int) -> tuple[LedgerEvent, ...]:
    """What of one kind happened to one service, the last first: at most `count` of them.

    Raises:
        LedgerError: When it can't be read.
    """
    with open_ledger(path) as ledger:
        if ledger is None:
            return ()
        rows = ledger.execute(
            "SELECT at, what, service, detail FROM events WHERE what = ? AND service = ? "
            "ORDER BY id DESC LIMIT ?",
            (what, service, count),
        )
        return tuple(LedgerEvent(at / 1000, *rest) for at, *rest in rows)


def clean_requests(path: Path, tier: str, since: float) -> tuple[CleanRequest, ...]:
    """The last requests to a tier whose speed tells something of its model, oldest first.

    Raises:
        LedgerError: When it can't be read.
    """
    with open_ledger(path) as ledger:
        if ledger is None:
            return ()
        rows = ledger.execute(
            "SELECT at, prompt_tokens, cached_tokens, completion_tokens, ttft_us - queue_us,"
            " centi_tps FROM requests WHERE clean = 1 AND at >= ? AND prompt_tokens > 0"
            " AND tier = (SELECT id FROM names WHERE name = ?) ORDER BY at DESC LIMIT ?",
            (round(since * 1000), tier, _MOST_CLEAN),
        ).fetchall()
    return tuple(_clean(*row) for row in reversed(rows))


def typical(
    requests: Iterable[CleanRequest], figure: str, *, least: int
) -> tuple[float, int] | None:
    """The median of a figure, and of the prompts' lengths; None of fewer than `least` requests.

    `figure` is "generation_tps" or "prompt_tps".
    """
    known = [(getattr(each, figure), each.prompt_tokens) for each in requests]
    known = [(value, tokens) for value, tokens in known if value is not None]
    if len(known) < least:
        return None
    return median(value for value, _ in known), round(median(tokens for _, tokens in known))


def _clean(
    at: int,
    prompt: int,
    cached: int | None,
    completion: int | None,
    read_us: int | None,
    centi_tps: int | None,
) -> CleanRequest:
    is_read = cached == 0 and prompt >= _LONG_PROMPT_TOKENS and (read_us or 0) > 0
    is_long = centi_tps is not None and (completion or 0) >= _LONG_ANSWER_TOKENS
    return CleanRequest(
        at / 1000,
        prompt,
        prompt * 1e6 / read_us if is_read and read_us else None,
        centi_tps / 100 if is_long and centi_tps else None,
    )


def _collect(
    ledger: sqlite3.Connection,
    since: float,
    until: float,
    by: By,
    found: dict[tuple[str, str], Sums],
) -> None:
    """Add up the whole days before the newest requests, then the rest one by one."""
    names: dict[int, str] = dict(ledger.execute("SELECT id, name FROM names"))
    whole_from, whole_until = _midnight_after(since), _newest_from(ledger, until)
    for day, key, model, data in ledger.execute(
        "SELECT day, key, model, sums FROM days WHERE day >= ? AND day < ?",
        (day_of(whole_from), day_of(whole_until)),
    ):
        place = {By.MODEL: names[model], By.KEY: names[key], By.DAY: day}[by]
        found[place, names[model]].join(decode_sums(data))
    one_by_one = [(since, min(whole_from, until)), (whole_until, until)]
    if whole_until <= whole_from:
        one_by_one = [(since, until)]
    for begin, end in one_by_one:
        for at, key, model, *figures in ledger.execute(
            "SELECT at, key, model, status, prompt_tokens, cached_tokens, completion_tokens,"
            " ttft_us, centi_tps FROM requests WHERE at >= ? AND at < ?",
            (round(begin * 1000), round(end * 1000)),
        ):
            place = names[model] if by is By.MODEL else names[key]
            if by is By.DAY:
                place = day_of(at / 1000)
            found[place, names[model]].add(figures)


def _rereads(ledger: sqlite3.Connection, since: float, until: float) -> tuple[RereadSum, ...]:
    """What was read again, by program and reason."""
    times = (round(since * 1000), round(until * 1000))
    found: dict[tuple[str, str, int | None], list[tuple[str, int, int, int, int]]] = {}
    for program, prefix, place, *figures in ledger.execute(
        "SELECT p.name, x.name, CASE WHEN x.name IN (?, ?) THEN r.prefix_place END AS place,"
        " m.name, count(*), sum(r.reread_tokens), sum(coalesce(r.reread_us, 0)),"
        " sum(CASE WHEN r.reread_us IS NULL THEN r.reread_tokens ELSE 0 END)"
        " FROM requests r JOIN names p ON p.id = r.program JOIN names x ON x.id = r.prefix"
        " JOIN names m ON m.id = r.model WHERE r.reread_tokens > 0 AND r.at >= ? AND r.at < ?"
        " GROUP BY p.name, x.name, place, m.name",
        (Prefix.SYSTEM, Prefix.TOOLS, *times),
    ):
        found.setdefault((program, prefix, place), []).append(tuple(figures))
    if not found:
        return ()
    turns: dict[str, int] = dict(
        ledger.execute(
            "SELECT p.name, count(*) FROM requests r JOIN names p ON p.id = r.program JOIN names x"
            " ON x.id = r.prefix WHERE r.prefix IS NOT NULL AND x.name <> ? AND r.at >= ?"
            " AND r.at < ? GROUP BY p.name",
            (Prefix.NEW, *times),
        )
    )
    sums = [
        RereadSum(
            program=program,
            prefix=prefix,
            place=place,
            requests=sum(row[1] for row in rows),
            turns=turns.get(program, 0),
            tokens=sum(row[2] for row in rows),
            seconds=sum(row[3] for row in rows) / 1e6,
            untimed={row[0]: row[4] for row in rows if row[4]},
        )
        for (program, prefix, place), rows in found.items()
    ]
    return tuple(sorted(sums, key=lambda each: -each.tokens)[:_MOST_REASONS])


def _newest_from(ledger: sqlite3.Connection, until: float) -> float:
    """The midnight from which on there are few enough requests to look at each."""
    row = ledger.execute(
        "SELECT at FROM requests WHERE at < ? ORDER BY at DESC LIMIT 1 OFFSET ?",
        (round(until * 1000), _LOOKED_AT),
    ).fetchone()
    return 0.0 if row is None else min(_midnight_after(row[0] / 1000), _midnight_after(until))


def _midnight_after(at: float) -> float:
    """The beginning of the local day after a time; of the day itself at midnight."""
    there = datetime.fromtimestamp(at)  # noqa: DTZ006 - the local day, whatever its length
    day = there.replace(hour=0, minute=0, second=0, microsecond=0)
    return (day if day == there else day + timedelta(days=1)).timestamp()


def _seen(ledger: sqlite3.Connection) -> dict[str, list[TimeSpan]]:
    spans: dict[str, list[TimeSpan]] = defaultdict(list)
    for service, begin, end in ledger.execute("SELECT service, since, until FROM seen"):
        spans[service].append((begin / 1000, end / 1000))
    return spans


def _events(ledger: sqlite3.Connection, since: float, until: float) -> tuple[LedgerEvent, ...]:
    rows = ledger.execute(
        "SELECT at, what, service, detail FROM events WHERE at >= ? AND at < ? ORDER BY id",
        (round(since * 1000), round(until * 1000)),
    )
    return tuple(LedgerEvent(at / 1000, *rest) for at, *rest in rows)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
