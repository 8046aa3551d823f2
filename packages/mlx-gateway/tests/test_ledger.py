"""What is noted of requests and of the machine, and what a disk may do meanwhile."""

import logging
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlx_gateway import ledger as ledger_module
from mlx_gateway.ledger import (
    Bounds,
    Ledger,
    LedgerError,
    LedgerEvent,
    NewerLedgerError,
    RequestRow,
    migrate,
    open_ledger,
    program_of,
    tidy,
    write_event,
)
from mlx_gateway.requests import read_requests
from mlx_gateway.usage import By, key_uses, last_events, read_events, read_usage

NOW = time.time()
VERSIONS = len(ledger_module._STEPS)
ROW = RequestRow(
    at=NOW - 60, key="laptop", program="claude-cli", model="qwen3-8b", tier="standard",
    protocol="messages", status=200, seconds=4.5, queue_s=0.01, ttft_s=0.5, generation_tps=50.0,
    prompt_tokens=1000, cached_tokens=0, completion_tokens=200, received_bytes=4000,
    sent_bytes=9000, was_alone=True,
)  # fmt: skip


def until(holds: Callable[[], Any], within_s: float = 20.0) -> None:
    """Wait for what another thread does."""
    pause, ends = threading.Event(), time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < ends, "it never happened"
        pause.wait(0.02)


def written(path: Path, *rows: RequestRow | LedgerEvent) -> None:
    ledger = Ledger(path)
    for row in rows:
        ledger.note(row)
    ledger.close()


def rows_in(path: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM requests ORDER BY id")]


def test_a_request_is_one_row_and_the_file_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    written(path, ROW, replace(ROW, fallback_from="fast", status=503, ttft_s=None))

    first, second = rows_in(path)
    assert (first["prompt_tokens"], first["ttft_us"], first["centi_tps"]) == (1000, 500_000, 5000)
    assert (first["clean"], second["clean"], second["ttft_us"]) == (1, 0, None)
    assert second["fallback_from"] is not None
    assert path.stat().st_mode & 0o777 == 0o600
    usage = read_usage(path, since=NOW - 3600, until=NOW)
    assert usage.totals.requests == 2
    assert usage.totals.failed == 1


def test_what_was_read_again_is_noted_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    told = replace(ROW, prefix="system", prefix_place=3, reread_tokens=700, reread_s=1.25)

    written(path, ROW, told)

    noted, unknown = read_requests(path)
    assert (noted.prefix, noted.prefix_place) == ("system", 3)
    assert (noted.reread_tokens, noted.reread_s) == (700, 1.25)
    assert noted.to_document()["why_read_again"] == "line 3 of claude-cli's system prompt changed"
    assert (unknown.prefix, unknown.reread_tokens, unknown.why_read_again) == (None, None, None)


def test_nothing_is_made_before_the_first_note(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger.db").close()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", range(VERSIONS))
def test_a_ledger_of_each_older_version_goes_on_with_all_it_has(
    tmp_path: Path, version: int
) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        migrate(old, version)
        if version:
            old.execute("INSERT INTO names VALUES (1, 'laptop'), (2, 'qwen3-8b'), (3, 'curl')")
            old.execute(
                "INSERT INTO requests (at, key, program, model, tier, protocol, status,"
                " prompt_tokens, ttft_us) VALUES (?, 1, 3, 2, 2, 3, 200, 10, 250000)",
                (round(NOW * 1000) - 60_000,),
            )
            old.execute(
                "INSERT INTO events (at, what, service, detail) VALUES (?, 'start', '', '')",
                (round(NOW * 1000),),
            )
        if version > 1:
            ledger_module._sum_up_days(old)

    written(path, ROW)

    usage = read_usage(path, since=NOW - 3600, until=NOW, by=By.KEY)
    assert usage.rows["laptop"].requests == (2 if version else 1)
    assert len(read_events(path)) == (1 if version else 0)
    with open_ledger(path) as ledger:
        assert ledger is not None
        assert ledger.execute("PRAGMA user_version").fetchone()[0] == VERSIONS
        days = ledger.execute("SELECT sums FROM days").fetchall()
        assert sum(ledger_module.decode_sums(sums).requests for (sums,) in days) == (
            2 if version else 1
        )


def test_a_ledger_of_a_newer_version_is_left_alone_and_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA user_version = {VERSIONS + 1}")
        newer.commit()
    before = path.read_bytes()
    ledger = Ledger(path)

    with caplog.at_level(logging.ERROR, "mlx_gateway"):
        for _ in range(3):
            ledger.note(ROW)
            until(lambda: ledger.problem)
        ledger.close()

    assert path.read_bytes() == before
    assert len(caplog.records) == 1
    with pytest.raises(NewerLedgerError, match="leaves it alone"):
        write_event(path, LedgerEvent(NOW, "start"))
    with pytest.raises(NewerLedgerError):
        read_usage(path, since=0, until=NOW)


def test_a_damaged_ledger_stops_itself_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"no database at all " * 100)
    ledger = Ledger(path)

    with caplog.at_level(logging.ERROR, "mlx_gateway"):
        ledger.note(ROW)
        until(lambda: ledger.problem)
    ledger.close()

    assert "not a database" in ledger.problem
    assert "requests are served without it" in caplog.text
    with pytest.raises(LedgerError):
        read_usage(path, since=0, until=NOW)


def test_a_full_disk_stops_the_ledger_until_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ledger.db"
    written(path, ROW)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        ledger = Ledger(path, Bounds(retry_s=0.05))
        with caplog.at_level(logging.INFO, "mlx_gateway"):
            ledger.note(ROW)
            until(lambda: ledger.problem)
            ledger.note(ROW)
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            until(lambda: not ledger.problem)
        ledger.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)

    assert len(rows_in(path)) == 3, "what was noted meanwhile is not lost"
    assert "the ledger works again" in caplog.text


def test_a_disk_that_never_comes_back_takes_no_memory_without_end(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "no" / "such" / "folder" / "ledger.db", Bounds(max_pending=10))

    ledger.note(ROW)
    until(lambda: ledger.problem)
    for _ in range(50):
        ledger.note(ROW)
    ledger.close()

    assert ledger.dropped >= 40
    assert len(ledger._pending) <= 11


KILLED = """
import sys, time
from dataclasses import replace
from pathlib import Path
from mlx_gateway.ledger import Ledger
from test_ledger import ROW
ledger = Ledger(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    ledger.note(replace(ROW, at=time.time()))
    time.sleep(0.002)
"""


def test_what_was_noted_a_second_ago_outlives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    before = 0
    for _ in range(3):
        process = subprocess.Popen(
            (sys.executable, "-c", KILLED, str(path)),
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        )
        assert process.stdout is not None
        with process, process.stdout:
            process.stdout.readline()
            until(lambda seen=before: path.exists() and len(rows_in_or_none(path)) > seen)
            killed_at = time.time()
            process.kill()

        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            last = connection.execute("SELECT max(at) FROM requests").fetchone()[0] / 1000
        before = len(rows_in(path))
        assert last > killed_at - 5.0, "the figure of one second is benchmarks/gateway_ledger.py's"


def rows_in_or_none(path: Path) -> list[dict[str, Any]]:
    try:
        return rows_in(path)
    except sqlite3.OperationalError:  # the table is just being made
        return []


def test_two_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    script = (
        "import sys, time; from pathlib import Path\n"
        "from mlx_gateway.ledger import LedgerEvent, write_event\n"
        "for number in range(25):\n"
        "    write_event(Path(sys.argv[1]), LedgerEvent(time.time(), 'restart', 'x'))"
    )
    others = [subprocess.Popen((sys.executable, "-c", script, str(path))) for _ in range(2)]
    ledger = Ledger(path)
    while any(other.poll() is None for other in others):
        ledger.note(ROW)
        threading.Event().wait(0.01)
    ledger.close()

    assert [other.returncode for other in others] == [0, 0]
    assert len(read_events(path)) == 50
    usage = read_usage(path, since=NOW - 3600, until=time.time())
    assert usage.totals.requests == len(rows_in(path)) > 0


def test_the_last_events_of_one_service_are_found_among_all(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    assert last_events(path, "start", "fast", 2) == ()
    events = [
        LedgerEvent(NOW + number, what, service, f"{number}")
        for number, (what, service) in enumerate(
            [("start", "fast"), ("start", "slow"), ("stop", "fast")] * 3
        )
    ]
    written(path, *events)
    assert [each.detail for each in last_events(path, "start", "fast", 2)] == ["6", "3"]
    assert last_events(path, "start", "nobody", 2) == ()


def test_a_request_written_while_the_ledger_is_read_is_wholly_in_it_or_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.db"

    def models(ledger: sqlite3.Connection) -> list[str]:
        names: dict[int, str] = dict(ledger.execute("SELECT id, name FROM names"))
        written(path, replace(ROW, model="of-a-new-name"))
        return [names[each] for (each,) in ledger.execute("SELECT model FROM requests")]

    written(path, replace(ROW, model="known"))
    with open_ledger(path) as ledger:
        assert ledger is not None
        assert models(ledger) == ["known"]
    with open_ledger(path) as ledger:
        assert ledger is not None
        assert models(ledger) == ["known", "of-a-new-name"]


def test_old_rows_go_and_their_days_stay(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    old = replace(ROW, at=NOW - 10 * 86_400)
    written(
        path, *([old] * 30), ROW, LedgerEvent(NOW - 10 * 86_400, "start"), LedgerEvent(NOW, "start")
    )

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        tidy(connection, Bounds(max_age_s=5 * 86_400), NOW)

    assert len(rows_in(path)) == 1
    assert len(read_events(path)) == 1
    with open_ledger(path) as ledger:
        assert ledger is not None
        assert ledger.execute("SELECT count(*) FROM days").fetchone()[0] == 2


def test_a_ledger_that_is_too_large_loses_its_oldest_rows(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    written(path, *(replace(ROW, at=NOW - number) for number in range(3000)))
    size = path.stat().st_size

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        tidy(connection, Bounds(max_bytes=size // 2, rows_at_once=100), NOW)

    left = rows_in(path)
    assert 500 < len(left) < 2500
    assert max(row["at"] for row in left) == pytest.approx(NOW * 1000, abs=1)


def test_a_clock_that_is_set_back_loses_nothing(tmp_path: Path) -> None:
    path, now = tmp_path / "ledger.db", [NOW]
    ledger = Ledger(path, clock=lambda: now[0])
    for at in (NOW, NOW + 30, NOW - 7200, NOW - 7170):
        now[0] = at
        ledger.note(replace(ROW, at=at))
        ledger.beat(["endpoint"])
    ledger.close()

    usage = read_usage(path, since=NOW - 8000, until=NOW + 31)
    assert usage.totals.requests == 4
    assert usage.availability["endpoint"].share == pytest.approx(90 / 7231, rel=0.1)


def test_whoever_was_there_all_the_time_was_fully_available(tmp_path: Path) -> None:
    path, now = tmp_path / "ledger.db", [0.0]
    ledger = Ledger(path, clock=lambda: now[0])
    for minute in range(61):
        now[0] = NOW - 3600 + minute * 60
        ledger.beat(["endpoint"] if 20 <= minute < 40 else ["endpoint", "standard"])
    ledger.close()

    usage = read_usage(path, since=NOW - 86_400, until=NOW)

    assert usage.availability["endpoint"].share == 1.0
    assert usage.availability["standard"].share == pytest.approx(2 / 3, abs=0.02)


def test_an_absence_of_a_single_beat_is_an_absence(tmp_path: Path) -> None:
    path, now = tmp_path / "ledger.db", [0.0]
    ledger = Ledger(path, clock=lambda: now[0])
    for beat in range(11):
        now[0] = NOW - 300 + beat * 30
        ledger.beat(["standard"] if beat != 5 else [], ["standard"] if beat == 6 else [])
    ledger.close()

    found = read_usage(path, since=NOW - 300, until=NOW).availability["standard"]

    assert (found.outages, found.share) == (1, pytest.approx(0.9, abs=0.01))


def test_a_key_says_when_it_was_last_used(tmp_path: Path) -> None:
    path, now = tmp_path / "ledger.db", [NOW]
    ledger = Ledger(path, clock=lambda: now[0])
    ledger.note_key("laptop")
    now[0] = NOW + 5
    ledger.note_key("laptop")
    ledger.close()

    assert key_uses(path) == {"laptop": NOW + 5}


def test_clients_that_make_names_up_take_no_room_without_end(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger(path, Bounds(max_names=8))
    for number in range(50):
        ledger.note(replace(ROW, program=f"program-{number}"))
    ledger.close()

    with open_ledger(path) as ledger:
        assert ledger is not None
        assert ledger.execute("SELECT count(*) FROM names").fetchone()[0] <= 9
        known = "SELECT count(*) FROM names WHERE name IN ('laptop', 'qwen3-8b', 'standard')"
        assert ledger.execute(known).fetchone()[0] == 3


@pytest.mark.parametrize(
    ("header", "program"),
    [
        ("claude-cli/1.0.33 (external, cli)", "claude-cli"),
        ("OpenAI/Python 2.8.0", "OpenAI"),
        ("curl/8.7.1", "curl"),
        ("python-requests", "python-requests"),
        ("", ""),
        ("(no product)", ""),
        ("what is the capital of France?", "what"),
        ("x" * 5000, "x" * 40),
    ],
)
def test_a_program_is_known_by_its_product(header: str, program: str) -> None:
    assert program_of(header) == program
