"""`ledger.db`: one row a request, and the machine's events. Never a word of a prompt or an answer.

One thread writes what the gateway notes, a batch at a time and behind the answers. Other processes
add events with `write_event`; `mlx_gateway.usage` reads (decision 0086).
"""

import logging
import os
import re
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from mlx_gateway.errors import GatewayError
from mlx_gateway.sums import Sums

ENDPOINT = "endpoint"
"""What the gateway itself is called among those whose availability is noted."""
WEDGE = "wedge"
"""The event of an engine that stopped delivering, from then on."""
BEAT_S = 30.0
"""How often it is noted what is there; three times as long without a note is an absence."""
LONGEST_DETAIL = 200
"""How much of an event's detail is kept."""
_BATCH_S = 0.5
_MOST_IN_BATCH = 5_000
_TIDY_S = 3600.0
_BUSY_S = 5.0
_NO_QUEUE_S = 0.05
_PROGRAM = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,40}")

_log = logging.getLogger("mlx_gateway")


class LedgerError(GatewayError):
    """The ledger can't be read or written."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


class NewerLedgerError(LedgerError):
    """A newer version of this library made it; it is left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRow:
    """A request that has ended. Unknown is None.

    Attributes:
        at: When it came, in seconds since the epoch.
        key: Whose key it carried.
        model: The model that answered, or would have; as `tier` where another machine did.
        tier: The name under which the gateway serves it: `standard`, or `standard@studio`.
        protocol: The API, such as `chat/completions`.
        status: The HTTP status; 499 where the client left, 502 where the answer broke off.
        seconds: From the request to the end of its answer.
        queue_s: How long it waited for its turn.
        ttft_s: From the request to the first of a streamed answer.
        generation_tps: Tokens a second after that.
        cached_tokens: Tokens of the prompt that were not read again.
        fallback_from: The tier that was asked for, if another answered; else "".
        received_bytes: The size of the request's body.
        sent_bytes: The size of the answer's.
        was_alone: Whether its model worked on nothing else when it began and when it ended.
        prefix: What became of what its engine had read before, as `prompts.conversations.Prefix`
            has it; "" where that is unknown.
        prefix_place: Which line, tool or message changed first; 0 where none did.
        reread_tokens: Tokens that its conversation had paid for and that were read again.
        reread_s: The time for these.
    """

    at: float
    key: str
    program: str
    model: str
    tier: str
    protocol: str
    status: int
    seconds: float
    queue_s: float = 0.0
    ttft_s: float | None = None
    generation_tps: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    fallback_from: str = ""
    received_bytes: int = 0
    sent_bytes: int = 0
    was_alone: bool = False
    prefix: str = ""
    prefix_place: int = 0
    reread_tokens: int | None = None
    reread_s: float | None = None

    @property
    def is_clean(self) -> bool:
        """Whether its speed is that of the model by itself."""
        return self.status == 200 and self.was_alone and self.queue_s < _NO_QUEUE_S


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """Something that happened to the machine.

    Attributes:
        what: A word, such as `start` or `restart`.
        service: Whom it is about; "" for the machine.
        detail: More words, none of them from a log.
    """

    at: float
    what: str
    service: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _KeyUse:
    name: str
    at: float


@dataclass(frozen=True, slots=True)
class _Beat:
    services: tuple[str, ...]
    returned: frozenset[str]
    at: float


type _Note = RequestRow | LedgerEvent | _KeyUse | _Beat


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a ledger keeps; whole days are kept as sums beyond that.

    Attributes:
        max_age_s: No row is kept for longer.
        max_bytes: When the file holds more, its oldest rows go.
        rows_at_once: How many go in one transaction.
        max_names: How many names of clients, models and programs there may be.
        max_pending: How many rows wait in memory for a disk that doesn't take them.
        retry_s: How often such a disk is tried again.
    """

    max_age_s: float = 400 * 86_400
    max_bytes: int = 256 * 2**20
    rows_at_once: int = 10_000
    max_names: int = 5_000
    max_pending: int = 20_000
    retry_s: float = 5.0


def program_of(user_agent: str) -> str:
    """The product that a User-Agent names first, without its version; "" where it names none."""
    found = _PROGRAM.match(user_agent)
    return found[0] if found else ""


def day_of(at: float) -> str:
    """The local day of a time: `2026-11-28`."""
    return datetime.fromtimestamp(at).astimezone().date().isoformat()


class Ledger:
    """Writes what it is told, from a thread of its own. No disk holds up or fails a request.

    Args:
        path: The file, made (mode 0600) with the first note; its folder must exist.
        bounds: What is kept.
        clock: Seconds since the epoch.

    Attributes:
        problem: Why nothing is written now; "" while all is well.
        dropped: How many notes were lost since the start.
    """

    def __init__(
        self, path: Path, bounds: Bounds | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.problem: str = ""
        self.dropped: int = 0
        self._path = path
        self._bounds = bounds or Bounds()
        self._clock = clock
        self._pending: deque[_Note] = deque()
        self._something = threading.Event()
        self._closing = threading.Event()
        self._tidied_at = float("-inf")
        self._is_foreign = False
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def note(self, row: RequestRow | LedgerEvent) -> None:
        """Write a row before long."""
        self._put(row)

    def note_key(self, name: str) -> None:
        """Write before long that a key was used just now."""
        self._put(_KeyUse(name, self._clock()))

    def beat(self, services: Iterable[str], returned: Iterable[str] = ()) -> None:
        """Write before long that these services are there now.

        Args:
            services: Their names.
            returned: Those of them that were not there at the beat before.
        """
        self._put(_Beat(tuple(services), frozenset(returned), self._clock()))

    def close(self) -> None:
        """Write what is left, and end."""
        self._closing.set()
        self._something.set()
        self._thread.join(_BUSY_S)

    def _put(self, note: _Note) -> None:
        if self._is_foreign:
            return
        if len(self._pending) >= self._bounds.max_pending:
            self.dropped += 1
            return
        self._pending.append(note)
        self._something.set()

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        while not (self._closing.is_set() and (not self._pending or self.problem)):
            self._something.wait()
            self._closing.wait(self._bounds.retry_s if self.problem else _BATCH_S)
            self._something.clear()
            count = min(len(self._pending), _MOST_IN_BATCH)
            batch = [self._pending.popleft() for _ in range(count)]
            if not batch:
                continue
            try:
                connection = connection or _open(self._path)
                self._write(connection, batch)
            except NewerLedgerError as error:
                self._is_foreign = True
                self._say(str(error))
                break
            except (LedgerError, sqlite3.Error, OSError) as error:
                self._say(str(error))
                self._pending.extendleft(reversed(batch))
                self._something.set()
                connection = _closed(connection)
            else:
                self._say("")
                if self._pending:
                    self._something.set()
        _closed(connection)

    def _say(self, problem: str) -> None:
        if problem and not self.problem:
            _log.error("the ledger has stopped; requests are served without it: %s", problem)
        elif self.problem and not problem:
            _log.info("the ledger works again; %d rows were lost", self.dropped)
        self.problem = problem

    def _write(self, connection: sqlite3.Connection, batch: Sequence[_Note]) -> None:
        with _transaction(connection):
            rows = [note for note in batch if isinstance(note, RequestRow)]
            if rows:
                _insert_requests(connection, rows, self._bounds.max_names)
            for note in batch:
                if isinstance(note, LedgerEvent):
                    _insert_event(connection, note)
                elif isinstance(note, _Beat):
                    _insert_beat(connection, note)
            used = {note.name: note.at for note in batch if isinstance(note, _KeyUse)}
            connection.executemany("INSERT OR REPLACE INTO key_use VALUES (?, ?)", used.items())
        now = time.monotonic()
        if now - self._tidied_at >= _TIDY_S:
            self._tidied_at = now
            tidy(connection, self._bounds, self._clock())


def write_event(path: Path, event: LedgerEvent) -> None:
    """Add an event to the ledger, from whatever process.

    Raises:
        LedgerError: When it can't be written, or a newer version made it.
    """
    try:
        with closing(_open(path)) as connection, _transaction(connection):
            _insert_event(connection, event)
    except (sqlite3.Error, OSError) as error:
        raise LedgerError(path, str(error)) from error


@contextmanager
def open_ledger(path: Path) -> Generator[sqlite3.Connection | None]:
    """A connection that sees the ledger as it is at the first query; None without a ledger.

    Raises:
        LedgerError: When it can't be read, then or later, or a newer version made it.
    """
    if not path.exists():
        yield None
        return
    try:
        with closing(_open(path)) as connection:
            connection.execute("PRAGMA query_only = 1")
            connection.execute("BEGIN")  # all queries see the same moment
            yield connection
    except (sqlite3.Error, OSError) as error:
        raise LedgerError(path, str(error)) from error


def tidy(connection: sqlite3.Connection, bounds: Bounds, now: float) -> None:
    """Remove what is too old or too much, some rows at a time."""
    oldest = round((now - bounds.max_age_s) * 1000)
    with _transaction(connection):
        connection.execute("DELETE FROM events WHERE at < ?", (oldest,))
        connection.execute("DELETE FROM seen WHERE until < ?", (oldest,))
    first = "SELECT id FROM requests WHERE at < ? ORDER BY at LIMIT ?"
    while True:
        is_full = _used_bytes(connection) > bounds.max_bytes
        with _transaction(connection):
            before = 2**62 if is_full else oldest
            gone = connection.execute(
                f"DELETE FROM requests WHERE id IN ({first})",  # noqa: S608 - no value in it
                (before, bounds.rows_at_once),
            ).rowcount
        if gone < bounds.rows_at_once:
            return


def _used_bytes(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def _open(path: Path) -> sqlite3.Connection:
    """A connection to the ledger, which is made or brought up to date.

    Raises:
        NewerLedgerError: When a newer version made it.
    """
    if not path.exists():  # to close a file is to let go of the locks that SQLite has on it
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
    try:
        _check_version(connection, path)
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = FULL")  # a batch outlives a power cut
        connection.execute("PRAGMA checkpoint_fullfsync = 1")  # on a Mac, the file does as well
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch the file to WAL; SQLite itself doesn't wait for another process that does the same."""
    ends_at = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() >= ends_at:
                raise
            time.sleep(0.01)
        else:
            return


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    version = _version(connection)
    if version > len(_STEPS):
        problem = f"has version {version}; this program knows {len(_STEPS)}, and leaves it alone"
        raise NewerLedgerError(path, problem)


def _version(connection: sqlite3.Connection) -> int:
    return connection.execute("PRAGMA user_version").fetchone()[0]


def _closed(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        with suppress(sqlite3.Error):
            connection.close()


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Generator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def migrate(connection: sqlite3.Connection, version: int | None = None) -> None:
    """Bring a ledger to a version, by default the one that this module writes."""
    version = len(_STEPS) if version is None else version
    if _version(connection) >= version:
        return
    with _transaction(connection):  # another process may have been quicker
        for number in range(_version(connection), version):
            for statement in _STEPS[number].split(";"):
                connection.execute(statement)
            if number == _DAYS_SINCE:
                _sum_up_days(connection)
            connection.execute(f"PRAGMA user_version = {number + 1}")


def _insert_requests(
    connection: sqlite3.Connection, rows: Sequence[RequestRow], max_names: int
) -> None:
    ids = _Names(connection, max_names)
    values = [
        (
            round(row.at * 1000),
            *(ids[each] for each in (row.key, row.program, row.model, row.tier, row.protocol)),
            ids[row.fallback_from] if row.fallback_from else None,
            row.status,
            row.prompt_tokens,
            row.cached_tokens,
            row.completion_tokens,
            *(_micro(each) for each in (row.queue_s, row.ttft_s, row.seconds)),
            None if row.generation_tps is None else round(row.generation_tps * 100),
            row.received_bytes,
            row.sent_bytes,
            row.is_clean,
            ids[row.prefix] if row.prefix else None,
            row.prefix_place or None,
            row.reread_tokens,
            _micro(row.reread_s),
        )
        for row in rows
    ]
    connection.executemany(
        "INSERT INTO requests (at, key, program, model, tier, protocol, fallback_from, status,"
        " prompt_tokens, cached_tokens, completion_tokens, queue_us, ttft_us, total_us, centi_tps,"
        " received_bytes, sent_bytes, clean, prefix, prefix_place, reread_tokens, reread_us)"
        " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        values,
    )
    _add_to_days(connection, ((v[0], v[1], v[3], *v[7:11], v[12], v[14]) for v in values))


def _micro(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e6)


class _Names(dict[str, int]):
    """The numbers that stand for names in the ledger."""

    def __init__(self, connection: sqlite3.Connection, most: int) -> None:
        super().__init__()
        self._connection = connection
        self._most = most

    def __missing__(self, name: str) -> int:
        find = "SELECT id FROM names WHERE name = ?"
        found = self._connection.execute(find, (name,)).fetchone()
        if found is None:
            count = self._connection.execute("SELECT count(*) FROM names").fetchone()[0]
            if count >= self._most and name != "other":
                return self["other"]  # a client that calls itself something else each time
            add = "INSERT INTO names (name) VALUES (?) RETURNING id"
            found = self._connection.execute(add, (name,)).fetchone()
        self[name] = found[0]
        return self[name]


def _add_to_days(connection: sqlite3.Connection, rows: Iterable[Sequence[int | None]]) -> None:
    """Add requests (when, key, model, and what `Sums` adds) to the sums of their days."""
    sums: dict[tuple[str, int | None, int | None], Sums] = {}
    find = "SELECT sums FROM days WHERE day = ? AND key = ? AND model = ?"
    day, known = "", -1
    for at, key, model, *figures in rows:
        quarter = (at or 0) // 900_000  # days begin at quarters of an hour, wherever one is
        if quarter != known:
            day, known = day_of(quarter * 900), quarter
        place = (day, key, model)
        if place not in sums:
            found = connection.execute(find, place).fetchone()
            sums[place] = Sums() if found is None else decode_sums(found[0])
        sums[place].add(figures, in_steps=True)
    connection.executemany(
        "INSERT OR REPLACE INTO days VALUES (?, ?, ?, ?)",
        [(*place, msgspec.msgpack.encode(each)) for place, each in sums.items()],
    )


def decode_sums(data: bytes) -> Sums:
    """The sums of a day as the ledger keeps them.

    Raises:
        sqlite3.DatabaseError: When they are damaged.
    """
    try:
        return msgspec.msgpack.decode(data, type=Sums)
    except msgspec.DecodeError as error:
        raise sqlite3.DatabaseError(f"the sums of a day are damaged: {error}") from error


def _sum_up_days(connection: sqlite3.Connection) -> None:
    """Make the sums of all requests that there are."""
    columns = "at, key, model, status, prompt_tokens, cached_tokens, completion_tokens"
    rows = connection.execute(f"SELECT {columns}, ttft_us, centi_tps FROM requests ORDER BY at")  # noqa: S608
    _add_to_days(connection, rows)


def _insert_event(connection: sqlite3.Connection, event: LedgerEvent) -> None:
    connection.execute(
        "INSERT INTO events (at, what, service, detail) VALUES (?, ?, ?, ?)",
        (round(event.at * 1000), event.what, event.service, event.detail[:LONGEST_DETAIL]),
    )


def _insert_beat(connection: sqlite3.Connection, beat: _Beat) -> None:
    """Lengthen the time in which each service was seen, or begin another."""
    now = round(beat.at * 1000)
    for service in beat.services:
        absent = 0 if service in beat.returned else round(3 * BEAT_S * 1000)
        longer = connection.execute(
            "UPDATE seen SET until = ? WHERE id = (SELECT max(id) FROM seen WHERE service = ?)"
            " AND until BETWEEN ? AND ?",
            (now, service, now - absent, now),
        )
        if longer.rowcount == 0:
            connection.execute(
                "INSERT INTO seen (service, since, until) VALUES (?, ?, ?)", (service, now, now)
            )


_STEPS = (
    """
    CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE requests (
        id INTEGER PRIMARY KEY, at INTEGER NOT NULL, key INTEGER NOT NULL, program INTEGER NOT NULL,
        model INTEGER NOT NULL, tier INTEGER NOT NULL, protocol INTEGER NOT NULL,
        fallback_from INTEGER, status INTEGER NOT NULL, prompt_tokens INTEGER,
        cached_tokens INTEGER, completion_tokens INTEGER, queue_us INTEGER, ttft_us INTEGER,
        total_us INTEGER, centi_tps INTEGER, received_bytes INTEGER, sent_bytes INTEGER);
    CREATE INDEX requests_at ON requests (at);
    CREATE TABLE events (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, what TEXT NOT NULL,
        service TEXT NOT NULL, detail TEXT NOT NULL)
    """,
    """
    CREATE TABLE days (day TEXT NOT NULL, key INTEGER NOT NULL, model INTEGER NOT NULL,
        sums BLOB NOT NULL, PRIMARY KEY (day, key, model)) WITHOUT ROWID
    """,
    """
    CREATE TABLE seen (id INTEGER PRIMARY KEY, service TEXT NOT NULL, since INTEGER NOT NULL,
        until INTEGER NOT NULL);
    CREATE TABLE key_use (name TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
    ALTER TABLE requests ADD COLUMN clean INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX requests_clean ON requests (tier, at) WHERE clean = 1
    """,
    """
    ALTER TABLE requests ADD COLUMN prefix INTEGER;
    ALTER TABLE requests ADD COLUMN prefix_place INTEGER;
    ALTER TABLE requests ADD COLUMN reread_tokens INTEGER;
    ALTER TABLE requests ADD COLUMN reread_us INTEGER;
    CREATE INDEX requests_turns ON requests (at, program, prefix) WHERE prefix IS NOT NULL;
    CREATE INDEX requests_reread ON requests (at) WHERE reread_tokens > 0
    """,
)
"""What makes each version out of the one before; the version is SQLite's `user_version`."""
_DAYS_SINCE = 1
