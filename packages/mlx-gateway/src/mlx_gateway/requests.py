"""The requests that a ledger holds, one by one, newest first. Reads only."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlx_gateway.errors import CLIENT_LEFT
from mlx_gateway.ledger import open_ledger
from mlx_gateway.prompts.conversations import in_words

MOST = 500
"""How many requests one answer holds at the most."""

_COLUMNS = (
    "r.id, r.at, k.name, p.name, m.name, t.name, o.name, f.name, r.status, r.prompt_tokens,"
    " r.cached_tokens, r.completion_tokens, r.queue_us, r.ttft_us, r.total_us, r.centi_tps,"
    " r.received_bytes, r.sent_bytes, r.clean, x.name, r.prefix_place, r.reread_tokens, r.reread_us"
)
_FROM = (
    " FROM requests r JOIN names k ON k.id = r.key JOIN names p ON p.id = r.program"
    " JOIN names m ON m.id = r.model JOIN names t ON t.id = r.tier JOIN names o ON o.id ="
    " r.protocol LEFT JOIN names f ON f.id = r.fallback_from LEFT JOIN names x ON x.id = r.prefix"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFilter:
    """Which requests are wanted; None for whatever it is.

    Attributes:
        failed: Only those that failed, or only those that didn't; a client that left is neither.
        before: Only those that were noted before the request of this id.
    """

    key: str | None = None
    tier: str | None = None
    model: str | None = None
    program: str | None = None
    failed: bool | None = None
    since: float | None = None
    before: int | None = None

    def conditions(self) -> tuple[str, list[object]]:
        """The same in SQL, and the values in it."""
        named = {"k": self.key, "t": self.tier, "m": self.model, "p": self.program}
        found: list[tuple[str, object]] = [
            (f"{table}.name = ?", value) for table, value in named.items() if value is not None
        ]
        if self.failed is not None:
            is_failed = f"(r.status >= 400 AND r.status <> {CLIENT_LEFT})"
            found.append((f"{is_failed} = ?", int(self.failed)))
        if self.since is not None:
            found.append(("r.at >= ?", round(self.since * 1000)))
        if self.before is not None:
            found.append(("r.id < ?", self.before))
        words = " AND ".join(words for words, _ in found)
        return f" WHERE {words}" if words else "", [value for _, value in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotedRequest:
    """A request that has ended. Unknown is None.

    Attributes:
        at: When it came, in seconds since the epoch.
        fallback_from: The tier that was asked for, if another answered.
        status: 499 where the client left, 502 where the answer broke off.
        was_alone: Whether its speed is that of the model by itself.
        prefix: What became of what its engine had read before, as a `Prefix` is called.
        prefix_place: Which line, tool or message changed first.
        reread_tokens: Tokens that its conversation had paid for and that were read again.
        reread_s: The time for these.
    """

    id: int
    at: float
    key: str
    program: str
    model: str
    tier: str
    protocol: str
    fallback_from: str | None
    status: int
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    queue_s: float | None
    ttft_s: float | None
    seconds: float | None
    generation_tps: float | None
    received_bytes: int | None
    sent_bytes: int | None
    was_alone: bool
    prefix: str | None
    prefix_place: int | None
    reread_tokens: int | None
    reread_s: float | None

    @property
    def why_read_again(self) -> str | None:
        """What became of what its engine had read before, in words; None where nobody knows."""
        if self.prefix is None:
            return None
        return in_words(self.prefix, self.prefix_place, self.program)

    def to_document(self) -> dict[str, object]:
        """The request as JSON."""
        at = datetime.fromtimestamp(self.at, UTC).isoformat()
        return {**asdict(self), "at": at, "why_read_again": self.why_read_again}


def read_requests(
    path: Path, wanted: RequestFilter | None = None, *, limit: int = 100
) -> tuple[NotedRequest, ...]:
    """The last `limit` requests that are wanted; none where there is no ledger.

    Raises:
        LedgerError: When it can't be read.
    """
    where, values = (wanted or RequestFilter()).conditions()
    return _read(path, f"{where} ORDER BY r.id DESC LIMIT ?", (*values, min(limit, MOST)))


def read_request(path: Path, number: int) -> NotedRequest | None:
    """The request of that id, or None.

    Raises:
        LedgerError: When the ledger can't be read.
    """
    return next(iter(_read(path, " WHERE r.id = ?", (number,))), None)


def _read(path: Path, rest: str, values: tuple[object, ...]) -> tuple[NotedRequest, ...]:
    with open_ledger(path) as ledger:
        if ledger is None:
            return ()
        rows = ledger.execute(f"SELECT {_COLUMNS}{_FROM}{rest}", values).fetchall()
    return tuple(_noted(*row) for row in rows)


def _noted(
    number: int,
    at: int,
    key: str,
    program: str,
    model: str,
    tier: str,
    protocol: str,
    fallback_from: str | None,
    status: int,
    prompt_tokens: int | None,
    cached_tokens: int | None,
    completion_tokens: int | None,
    queue_us: int | None,
    ttft_us: int | None,
    total_us: int | None,
    centi_tps: int | None,
    received_bytes: int | None,
    sent_bytes: int | None,
    clean: int,
    prefix: str | None,
    prefix_place: int | None,
    reread_tokens: int | None,
    reread_us: int | None,
) -> NotedRequest:
    return NotedRequest(
        id=number,
        at=at / 1000,
        key=key,
        program=program,
        model=model,
        tier=tier,
        protocol=protocol,
        fallback_from=fallback_from,
        status=status,
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        completion_tokens=completion_tokens,
        queue_s=_seconds(queue_us),
        ttft_s=_seconds(ttft_us),
        seconds=_seconds(total_us),
        generation_tps=None if centi_tps is None else centi_tps / 100,
        received_bytes=received_bytes,
        sent_bytes=sent_bytes,
        was_alone=bool(clean),
        prefix=prefix,
        prefix_place=prefix_place,
        reread_tokens=reread_tokens,
        reread_s=_seconds(reread_us),
    )


def _seconds(micro: int | None) -> float | None:
    return None if micro is None else micro / 1e6
