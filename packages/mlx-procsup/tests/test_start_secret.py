"""What a service is given at its start: a secret of its own, and as many files as servers need."""

import json
import os
import resource
import stat
import sys
from dataclasses import replace
from pathlib import Path

from mlx_procsup import (
    HttpReadiness,
    ProcessSpec,
    StateDirs,
    adopt,
    probe_service,
    read_run,
    secret_of,
    start_service,
    stop_service,
    target_of,
)
from mlx_procsup.testing import eventually

SAYS = "import os, resource, sys, time; print(os.environ.get('S'), resource.getrlimit(7)[0], "
SAYS += "flush=True); time.sleep(60)"


def spec(folder: Path) -> ProcessSpec:
    command = (sys.executable, "-c", SAYS)
    return ProcessSpec("one", command, {"PATH": os.defpath}, folder, start_secret="S")


def said(dirs: StateDirs) -> list[str]:
    log = dirs.log_file("one")
    assert eventually(lambda: log.read_text().endswith("\n"), 30)
    return log.read_text().split()


def test_each_start_has_a_secret_that_only_the_service_and_its_owner_know(
    dirs: StateDirs, tmp_path: Path
) -> None:
    dirs.create()
    start_service(spec(tmp_path), dirs)
    first = secret_of(dirs, "one")
    assert len(first) == 64
    assert said(dirs)[0] == first
    assert stat.S_IMODE(dirs.run_file("one").stat().st_mode) == 0o600
    assert first not in repr(read_run(dirs, "one"))
    stop_service("one", dirs)
    assert secret_of(dirs, "one") == ""
    start_service(spec(tmp_path), dirs)
    assert secret_of(dirs, "one") not in ("", first)


def test_a_lost_run_file_does_not_lose_the_secret(dirs: StateDirs, tmp_path: Path) -> None:
    dirs.create()
    start_service(spec(tmp_path), dirs)
    secret = secret_of(dirs, "one")
    said(dirs)
    dirs.run_file("one").unlink()
    assert adopt(spec(tmp_path), dirs) is not None
    assert secret_of(dirs, "one") == secret


def test_a_run_file_of_an_older_version_is_read(dirs: StateDirs, tmp_path: Path) -> None:
    dirs.create()
    start_service(spec(tmp_path), dirs)
    document = json.loads(dirs.run_file("one").read_text())
    del document["secret"]
    dirs.run_file("one").write_text(json.dumps(document))
    record = read_run(dirs, "one")
    assert record is not None
    assert record.secret == ""


def test_a_service_may_open_as_many_files_as_servers_need(dirs: StateDirs, tmp_path: Path) -> None:
    dirs.create()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))  # as a Mac's terminal has it
    try:
        start_service(spec(tmp_path), dirs)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert int(said(dirs)[1]) == min(8192, hard)


class Never:
    """A question that nobody can answer."""

    @property
    def headers(self) -> dict[str, str]:
        return {"x-proof": "nonce"}

    def is_answered(self, headers: object, /) -> bool:
        del headers
        return False


def test_an_answer_of_another_process_is_none(dirs: StateDirs, web) -> None:
    dirs.create()
    made = web()
    start_service(made, dirs)
    assert eventually(lambda: probe_service(target_of(made), dirs).response_ms is not None, 30)
    asked = HttpReadiness(made.readiness.url, ask=lambda *_: Never())
    status = probe_service(target_of(replace(made, readiness=asked)), dirs)
    assert status.state == "down"
    assert status.last_error == "what answers there is not this service (HTTP 200)"
