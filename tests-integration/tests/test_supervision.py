"""`watch`, `logs`, `restart`, `status --watch` and what `up` and `down` leave behind, installed."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from mlx_gateway.usage import read_events
from mlx_procsup import acquire_lock, identify, read_pid, rotate_log
from mlx_procsup.http_probe import accepts_connection
from mlx_procsup.testing import eventually
from mlx_stack.engines.environment import (
    EngineName,
    Environment,
    require_environment,
    use_environment,
)
from mlx_stack.stack import save_stack
from stack_testkit.home import define_stack
from stack_testkit.program import Program

pytestmark = pytest.mark.story


def _pid(program: Program, name: str) -> int | None:
    return read_pid(program.home.state_dirs, name)


def _row(program: Program, name: str) -> dict[str, object]:
    document = program.run("status", "--json").document
    return next(row for row in document["services"] if row["name"] == name)


def _outcomes(document: dict[str, list[dict[str, object]]]) -> dict[str, object]:
    return {str(row["name"]): row["outcome"] for row in document["services"]}


def _watch(program: Program, *options: str) -> None:
    done = program.run("watch", "--daemon", "--interval", "0.2", "--restart-delay", "0.2", *options)
    assert done.code == 0, done.err


def _kill(program: Program, name: str) -> int:
    pid = _pid(program, name)
    assert pid is not None
    os.killpg(pid, signal.SIGKILL)
    return pid


def _is_new(program: Program, name: str, old: int) -> Callable[[], bool]:
    return lambda: (
        _pid(program, name) not in (None, old) and _row(program, name)["state"] == ("healthy")
    )


def test_the_watchdog_runs_once_in_the_background_and_restores_what_crashes(
    served: Program,
) -> None:
    define_stack(served.home, {"standard": {}})
    served.run("up")
    _watch(served)
    watchdog = _pid(served, "watchdog")
    assert watchdog is not None
    assert os.getsid(watchdog) == watchdog

    again = served.run("watch", "--daemon", "--json")
    assert again.document == {"schema_version": 1, "outcome": "already-running", "pid": watchdog}
    second = served.run("watch")
    assert second.code == 1
    assert f"already runs as PID {watchdog}" in second.err

    old = _kill(served, "standard")
    assert eventually(_is_new(served, "standard", old), 60)
    row = _row(served, "standard")
    assert row["restarts"] == 1
    status = served.run("status").out
    assert "Recent watchdog events:" in status
    assert "restarted: crashed" in status
    events = {(event.what, event.service) for event in read_events(served.home.ledger)}
    assert {("start", "standard"), ("trouble", "standard"), ("restart", "standard")} <= events


def test_of_several_watchdogs_started_at_once_one_stays_and_all_say_which(
    served: Program,
) -> None:
    define_stack(served.home, {"standard": {}})
    commands = [served.start("watch", "--daemon", "--json") for _ in range(3)]
    answers = [json.loads(command.communicate(timeout=60)[0]) for command in commands]
    assert [command.returncode for command in commands] == [0, 0, 0]
    assert {answer["pid"] for answer in answers} == {_pid(served, "watchdog")}
    outcomes = sorted(answer["outcome"] for answer in answers)
    assert outcomes == ["already-running", "already-running", "started"]


def test_the_watchdog_survives_a_damaged_catalog_and_takes_over_another_engine(
    served: Program,
) -> None:
    define_stack(served.home, {"standard": {}})
    served.run("up")
    _watch(served)
    log = served.home.logs / "watchdog.log"
    served.home.catalog.mkdir()
    damaged = served.home.catalog / "mine-1b.yaml"
    damaged.write_text("id: [")
    assert eventually(lambda: f"can't be read: {damaged}" in log.read_text())
    damaged.unlink()

    before = require_environment(served.home.engines, EngineName.VLLM_MLX)
    newer = Environment(EngineName.VLLM_MLX, before.path.with_name("0.0.1-fake0001"))
    shutil.copytree(before.path, newer.path, symlinks=True)
    use_environment(served.home.engines, newer)
    assert eventually(lambda: "the stack has changed: standard, gateway" in log.read_text())

    old = _kill(served, "standard")
    assert eventually(_is_new(served, "standard", old), 60)
    assert str(newer.path) in (served.home.run / "standard.json").read_text()


def test_what_down_stopped_stays_stopped_and_the_watchdog_survives(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    served.run("up")
    _watch(served)
    watchdog = _pid(served, "watchdog")

    served.run("down")

    log = served.home.logs / "watchdog.log"
    assert not eventually(lambda: _pid(served, "standard") is not None, 1.5)
    assert _pid(served, "watchdog") == watchdog
    assert not log.exists() or "restarted" not in log.read_text()
    assert _row(served, "watchdog")["state"] == "healthy"


def test_watch_up_starts_the_stack_but_not_what_down_stopped(served: Program) -> None:
    define_stack(served.home, {"standard": {}, "fast": {}})
    served.run("up", "--tier", "fast")
    served.run("down", "--tier", "fast")

    _watch(served, "--up")

    assert eventually(lambda: _pid(served, "gateway") is not None, 60)
    assert eventually(lambda: _row(served, "standard")["state"] == "healthy", 60)
    assert _row(served, "fast")["state"] == "stopped"
    lines = served.run("logs", "watchdog").out
    assert "`down` stopped it; `mlx-stack up` starts it" in lines


def test_a_tier_whose_disk_was_away_at_first_is_started_when_it_is_there_and_not_after_down(
    served: Program, tmp_path: Path
) -> None:
    define_stack(served.home, {"standard": {}, "fast": {}})
    disk = served.home.models
    disk.rename(tmp_path / "away")

    _watch(served, "--up")
    log = served.home.logs / "watchdog.log"
    assert eventually(lambda: "watching gateway" in log.read_text(), 60)
    served.run("down", "--tier", "fast")
    (tmp_path / "away").rename(disk)

    assert eventually(lambda: _row(served, "standard")["state"] == "healthy", 60)
    assert "started: should run, and was never started" in log.read_text()
    assert _row(served, "standard")["restarts"] == 0
    assert _row(served, "fast")["state"] == "stopped"


def test_a_model_that_is_completed_after_up_is_served_by_the_watchdog(served: Program) -> None:
    define_stack(served.home, {"standard": {}, "fast": {}})
    weights = served.home.models / "fast-model" / "model.safetensors"
    whole = weights.read_bytes()
    weights.unlink()
    assert served.run("up").code == 1
    _watch(served)
    assert _row(served, "fast")["state"] == "stopped"

    weights.write_bytes(whole)

    assert eventually(lambda: _row(served, "fast")["state"] == "healthy", 60)


def test_watch_up_waits_for_the_command_that_holds_the_lock(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    log = served.home.logs / "watchdog.log"
    with acquire_lock(served.home.lock, "bench"):
        _watch(served, "--up")
        assert eventually(lambda: log.exists() and "waits for `bench`" in log.read_text())
        assert _pid(served, "standard") is None
    assert eventually(lambda: _row(served, "standard")["state"] == "healthy", 60)


def test_a_flapping_tier_is_given_up_and_status_says_so_until_up(served: Program) -> None:
    stack = define_stack(served.home, {"standard": {"exit-after": 0.5}})
    served.run("up")
    _watch(served, "--max-restarts", "1")

    assert eventually(lambda: _row(served, "standard")["flapping"] is True, 60)
    shown = served.run("status")
    assert shown.code == 3
    assert "standard is flapping" in shown.out

    tier = stack.tiers[0]
    save_stack(served.home.stack, type(stack)(schema_version=1, tiers=(_without_flags(tier),)))
    assert served.run("up").code == 0
    assert _row(served, "standard")["flapping"] is False


def _without_flags(tier: object) -> object:
    return msgspec.structs.replace(tier, vllm_flags={})


def test_restart_gives_every_service_a_new_process_under_one_lock(served: Program) -> None:
    define_stack(served.home, {"standard": {}, "fast": {}})
    served.run("up")
    before = {name: _pid(served, name) for name in ("standard", "fast", "gateway")}

    one = served.run("restart", "--tier", "fast", "--json")
    assert one.code == 0
    assert _outcomes(one.document) == {"fast": "started"}
    assert [row["outcome"] for row in one.document["stopped"]] == ["stopped"]
    assert _pid(served, "standard") == before["standard"]

    assert served.run("restart").code == 0
    after = {name: _pid(served, name) for name in before}
    assert all(after[name] not in (None, before[name]) for name in before)

    with acquire_lock(served.home.lock, "pull"):
        held = served.run("restart", "--json")
    assert held.code == 75
    assert "`pull`" in held.document["error"]["message"]


def test_what_cannot_be_started_again_is_not_stopped_by_a_restart(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    served.run("up")
    served.home.config.write_text(served.home.config.read_text() + "no-such-key: 1\n")
    assert served.run("restart", "--json").code == 2
    (served.home.engines / "vllm-mlx" / "current").unlink()
    served.home.config.write_text(served.home.config.read_text().replace("no-such-key: 1\n", ""))
    assert served.run("restart", "--json").code == 5
    assert _row(served, "standard")["state"] == "healthy"


def test_up_restarts_what_no_longer_matches_the_stack_and_stops_what_left_it(
    served: Program,
) -> None:
    stack = define_stack(served.home, {"standard": {}, "fast": {}})
    served.run("up")
    before = {name: _pid(served, name) for name in ("standard", "fast", "gateway")}
    assert before["fast"] is not None

    save_stack(served.home.stack, type(stack)(schema_version=1, tiers=stack.tiers[:1]))
    assert served.run("status", "--json").document["changed"] == ["gateway"]
    done = served.run("up", "--json")

    assert _outcomes(done.document) == {
        "standard": "already-running",
        "gateway": "already-running",  # it takes the new stack over without a restart
        "fast": "stopped",
    }
    assert _pid(served, "standard") == before["standard"]
    assert identify(before["fast"]) is None
    assert served.run("status", "--json").document["changed"] == []


def test_a_dry_run_prints_the_exact_commands_without_secrets_and_starts_nothing(
    served: Program,
) -> None:
    define_stack(served.home, {"standard": {}})
    served.run("up")
    key = json.loads(served.home.credentials.read_text())["gateway_key"]
    served.run("down")

    planned = served.run("up", "--dry-run")

    assert planned.code == 0
    assert key not in planned.out + planned.err
    assert "MLX_GATEWAY_KEY=********" in planned.out
    assert len(planned.out.splitlines()) == 2
    document = served.run("up", "--dry-run", "--json").document
    record = json.loads((served.home.run / "standard.json").read_text())
    assert document["services"][0]["command"] == record["command"]
    assert list(served.home.pids.iterdir()) == []


def test_a_tier_that_is_ready_but_cannot_answer_has_failed(served: Program) -> None:
    define_stack(served.home, {"standard": {}, "fast": {"chat-status": 500}})

    done = served.run("up", "--json")

    rows = {row["name"]: row for row in done.document["services"]}
    assert done.code == 1
    assert rows["fast"]["outcome"] == "failed"
    assert "A request for one token" in rows["fast"]["error"]
    assert rows["standard"]["outcome"] == "started"
    assert rows["gateway"]["outcome"] == "started"


def test_a_stolen_port_is_named_with_its_owner(served: Program, tmp_path: Path) -> None:
    stack = define_stack(served.home, {"standard": {}})
    command = ("python3", "-m", "http.server", str(stack.tiers[0].port), "--bind", "127.0.0.1")
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as thief:
        try:
            url = f"http://127.0.0.1:{stack.tiers[0].port}/"
            assert eventually(lambda: accepts_connection(url), 60)
            done = served.run("up", "--tier", "standard", "--json")
            assert done.code == 1
            assert f"is taken by PID {thief.pid}" in done.document["services"][0]["error"]
            assert thief.poll() is None
        finally:
            thief.kill()


def test_a_recycled_pid_is_never_signalled(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    served.run("up")
    _kill(served, "standard")
    with subprocess.Popen(("sleep", "60"), start_new_session=True) as stranger:
        try:
            (served.home.pids / "standard.pid").write_text(f"{stranger.pid}\n")
            assert _row(served, "standard")["state"] == "crashed"
            down = served.run("down", "--json")
            assert _outcomes(down.document)["standard"] == "stale-removed"
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_damaged_state_files_are_survived_by_every_command(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    served.run("up")
    pid = _pid(served, "standard")
    assert pid is not None
    (served.home.pids / "standard.pid").write_text("garbage")
    assert _row(served, "standard")["state"] == "healthy"
    assert _outcomes(served.run("up", "--json").document)["standard"] == "already-running"
    assert _pid(served, "standard") == pid
    (served.home.run / "standard.json").write_text("{")
    row = _row(served, "standard")
    assert "isn't a run file" in str(row["last_error"])
    down = served.run("down", "--json")
    assert _outcomes(down.document)["standard"] == "stopped"
    assert identify(pid) is None


def test_logs_are_listed_shown_joined_and_rotated(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    assert served.run("logs", "--json").document["logs"] == []
    none_yet = served.run("logs", "standard")
    assert none_yet.code == 1
    assert "no log yet" in none_yet.err
    served.home.logs.mkdir()
    log = served.home.logs / "standard.log"
    log.write_bytes(b"\x1b[31mfirst\x1b[0m\n\xff second\n")
    rotate_log(log, 5)
    log.write_text("".join(f"line {n}\n" for n in range(60)))

    assert served.run("logs", "standard").out.splitlines() == [f"line {n}" for n in range(10, 60)]
    assert served.run("logs", "standard", "--tail", "2").out == "line 58\nline 59\n"
    everything = served.run("logs", "standard", "--all").out.splitlines()
    assert everything[:3] == ["first", "\ufffd second", "line 0"]
    document = served.run("logs", "standard", "--tail", "1", "--json").document
    assert document["lines"] == ["line 59"]
    lines = served.run("logs", "standard", "--tail", "1", "--json-lines").out
    assert json.loads(lines) == {"service": "standard", "line": "line 59"}

    assert served.run("logs", "standard", "--rotate").code == 0
    listed = served.run("logs", "--json").document["logs"]
    assert [(entry["name"], entry["size_bytes"]) for entry in listed] == [("standard", 0)]
    assert [Path(path).name for path in listed[0]["archives"]] == [
        "standard.log.1.gz",
        "standard.log.2.gz",
    ]
    typo = served.run("logs", "standrad")
    assert typo.code == 2
    assert "Did you mean standard?" in typo.err


def test_following_a_log_goes_on_across_a_rotation(served: Program) -> None:
    served.home.logs.mkdir(parents=True)
    log = served.home.logs / "standard.log"
    log.write_text("one\n")
    process = served.start("logs", "standard", "--follow", "--tail", "1")
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "one\n"
        rotate_log(log, 5)
        with log.open("a") as writer:
            writer.write("two\n")
        assert process.stdout.readline() == "two\n"
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert said == ""  # Ctrl-C is how it ends, no error


def test_status_watch_writes_one_document_a_look(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    process = served.start("status", "--watch", "--json-lines")
    assert process.stdout is not None
    try:
        documents = [json.loads(process.stdout.readline()) for _ in range(2)]
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=10)
    assert (process.returncode, said) == (143, "")
    assert [row["state"] for row in documents[1]["services"]] == ["stopped"] * 3


def test_watch_says_what_it_watches_and_that_it_ends(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    process = served.start("watch")
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
    finally:
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=10)
    assert (process.returncode, said) == (130, "")
    assert "watching standard, gateway every 30 s" in first
    assert out.endswith("services keep running\n")


def test_an_interrupted_up_leaves_no_half_started_service(served: Program) -> None:
    define_stack(served.home, {"standard": {"ready-after": 60}, "fast": {}})
    process = served.start("up")
    assert eventually(lambda: _pid(served, "standard") is not None, 60)
    assert eventually(lambda: _row(served, "fast")["state"] == "healthy", 60)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert _pid(served, "standard") is None
    assert _row(served, "fast")["state"] == "healthy"
