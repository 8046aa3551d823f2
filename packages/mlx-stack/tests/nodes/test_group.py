"""One model on several Macs: what is run where, and what keeps a part of it on another Mac."""

import ast
import fcntl
import json
import os
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
import psutil
import pytest

from mlx_procsup.testing import eventually
from mlx_stack.nodes import facts_script, rank_keeper
from mlx_stack.nodes.facts import LOAD, framed, python_over_there
from mlx_stack.nodes.group import (
    AddressError,
    Plan,
    Rank,
    Ranks,
    RankState,
    command,
    meeting_of,
    read_ranks,
    require_private,
    ring_addresses,
    write_ranks,
)
from mlx_stack.stack import Host

WITHIN_S = 60
TELLS_WHERE = """
import os
told = {name: value for name, value in os.environ.items() if name.startswith("MLX_")}
with open(told["MLX_IBV_DEVICES"]) as devices:
    print({**told, "MLX_IBV_DEVICES": devices.read()})
"""
SLEEPS = "import os, sys, time; print(os.environ['MLX_RANK'], sys.argv[1:]); time.sleep(600)"


@pytest.mark.parametrize("home", ["~/.mlx-stack", "~/with space", "~", "{home}/it's"])
def test_the_engines_python_over_there_is_found_below_its_state_folder(
    tmp_path: Path, home: str
) -> None:
    named = home.format(home=tmp_path)
    python = Path(named.replace("~", str(tmp_path))) / "engines/mlx-lm/current/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$0"\nexec {sys.executable} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    said = subprocess.check_output(
        python_over_there(named), env={"HOME": str(tmp_path)}, input=framed(b"print('it runs')")
    )
    assert said.decode() == f"{python}\nit runs\n"


def plan(*workers: Host, own_address: str | None = None, **more: Any) -> Plan:
    return Plan(
        tier="huge", run="/run", own_address=own_address, ring_port=20_000, workers=workers,
        model="m", arguments=(), environment={}, keeps_awake=False, **more,
    )  # fmt: skip


def test_mlx_is_told_of_the_ring_or_of_rdma_and_never_of_both() -> None:
    addresses = ("10.0.0.1:20000", "10.0.0.2:20001")
    ring = meeting_of(plan(Host(host="b")), addresses)
    assert (ring.variable, ring.environment) == ("MLX_HOSTFILE", {})
    assert json.loads(json.dumps(ring.content)) == [["10.0.0.1:20000"], ["10.0.0.2:20001"]]
    devices = ((None, "rdma_en5"), ("rdma_en4", None))
    rdma = meeting_of(plan(Host(host="b"), rdma=devices), addresses)
    assert (rdma.variable, rdma.content) == ("MLX_IBV_DEVICES", devices)
    assert rdma.environment == {"MLX_JACCL_COORDINATOR": "10.0.0.1:20000"}


def test_addresses_that_the_file_does_not_say_are_looked_up(tmp_path: Path) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\necho hostname 127.0.0.1\n", encoding="utf-8")
    ssh.chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    workers = Host(host="alias"), Host(host="c", address="169.254.1.3")
    assert ring_addresses(plan(*workers), variables) == ("127.0.0.1", "127.0.0.1", "169.254.1.3")
    assert ring_addresses(plan(*workers, own_address="10.0.0.1"), variables)[0] == "10.0.0.1"


def test_a_name_without_an_address_is_refused_with_what_to_do(tmp_path: Path) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\necho hostname nowhere.invalid\n", encoding="utf-8")
    ssh.chmod(0o755)
    with pytest.raises(AddressError, match="give it an `address` in `hosts`"):
        ring_addresses(plan(Host(host="studio")), {"PATH": f"{tmp_path}:{os.environ['PATH']}"})


def test_what_a_program_wrote_of_its_ranks_is_not_taken_for_anothers(tmp_path: Path) -> None:
    rank = Rank(rank=1, host="b", address="10.0.0.2:20001", state=RankState.RUNNING)
    write_ranks(tmp_path, "huge", Ranks(pid=12, ranks=(rank,)))
    known = read_ranks(tmp_path, "huge")
    assert known is not None
    assert known.of(1, "b", 12) == rank
    assert known.of(1, "b", 13) is None
    assert known.of(1, "c", 12) is None
    (tmp_path / "huge.ranks").write_text("{", encoding="utf-8")
    assert read_ranks(tmp_path, "huge") is None


class Kept:
    """A keeper as the first Mac starts it, over pipes in place of ssh."""

    def __init__(
        self,
        home: Path,
        program: str = SLEEPS,
        name: str = "huge.rank1",
        devices: tuple[tuple[str | None, ...], ...] = (),
    ) -> None:
        self._early: list[str] = []
        self.process = subprocess.Popen(
            (sys.executable, "-I", "-u", "-c", LOAD),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        facts = Path(facts_script.__file__).read_text(encoding="utf-8")
        addresses = ("10.0.0.1:20000", "10.0.0.2:20001")
        meeting = meeting_of(plan(Host(host="b"), rdma=devices), addresses)
        said: dict[str, Any] = {
            "name": name, "home": str(home), "rank": 1,
            "meeting": {"variable": meeting.variable, "content": meeting.content},
            "files": {"engine.py": program, "facts.py": facts}, "facts": "facts.py",
            "program": "engine.py", "arguments": ["mlx-lm"],
            "model": "m", "environment": meeting.environment, "secret_variable": "SECRET",
            "keeps_awake": False,
        }  # fmt: skip
        text = Path(rank_keeper.__file__).read_text(encoding="utf-8")
        assert self.process.stdin is not None
        self.process.stdin.write(f"{framed(text.encode()).decode()}{json.dumps(said)}\n")
        self.process.stdin.flush()

    @property
    def output(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def line(self) -> str:
        return self._early.pop(0) if self._early else self._next_line()

    def started(self) -> psutil.Process:
        """The part, once it runs; it may have written lines before the keeper says so."""
        while not (line := self._next_line()).startswith("started as PID "):
            assert line
            self._early.append(line)
        return psutil.Process(int(line.removeprefix("started as PID ")))

    def _next_line(self) -> str:
        return self.output.readline().rstrip()

    def let_go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None


type Keep = Callable[..., Kept]


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[Keep]:
    """Call it for a keeper; all of them are gone afterwards."""
    made: list[Kept] = []

    def start(**fields: Any) -> Kept:
        made.append(Kept(tmp_path, **fields))
        return made[-1]

    yield start
    for each in made:
        each.process.communicate(timeout=WITHIN_S)  # it lets go


def test_a_part_runs_with_its_rank_and_the_model_over_there(keep: Keep, tmp_path: Path) -> None:
    kept = keep()
    kept.started()
    assert kept.line() == f"1 ['mlx-lm', '--model', '{tmp_path / 'models' / 'm'}']"


def test_a_part_over_rdma_is_told_its_devices_and_where_to_meet(keep: Keep) -> None:
    kept = keep(program=TELLS_WHERE, devices=((None, "rdma_en5"), ("rdma_en4", None)))
    kept.started()
    assert ast.literal_eval(kept.line()) == {
        "MLX_IBV_DEVICES": '[[null, "rdma_en5"], ["rdma_en4", null]]',
        "MLX_JACCL_COORDINATOR": "10.0.0.1:20000",
        "MLX_RANK": "1",
    }


def test_the_models_folder_is_the_one_configured_over_there(keep: Keep, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model-dir: /Volumes/models\n", encoding="utf-8")
    kept = keep()
    kept.started()
    assert kept.line().endswith("'/Volumes/models/m']")


def test_a_part_ends_once_nobody_holds_on_to_it(keep: Keep) -> None:
    kept = keep()
    part = kept.started()
    kept.line()  # before its program runs, it may have no command line
    folder = Path(part.cmdline()[3]).parent
    kept.let_go()
    assert kept.process.wait(WITHIN_S) == 1
    assert eventually(lambda: not part.is_running(), within_s=WITHIN_S)
    assert not folder.exists()


def test_a_part_that_was_stopped_ends_as_well(keep: Keep) -> None:
    kept = keep()
    part = kept.started()
    part.suspend()
    kept.process.terminate()
    kept.process.wait(WITHIN_S)
    assert eventually(lambda: not part.is_running(), within_s=WITHIN_S)


def test_a_part_ends_though_nobody_reads_what_it_writes(keep: Keep) -> None:
    kept = keep(program="import os\nwhile True: os.write(1, b'x')")
    part = kept.started()
    unread = [-1]

    def is_full() -> bool:
        unread.append(
            int.from_bytes(fcntl.ioctl(kept.output, termios.FIONREAD, bytes(4)), "little")
        )
        return unread[-1] == unread[-2] > 0

    assert eventually(is_full, within_s=WITHIN_S)
    kept.let_go()
    assert eventually(lambda: not part.is_running(), within_s=WITHIN_S)


def test_a_part_that_ends_by_itself_is_an_error_whatever_it_says(keep: Keep) -> None:
    kept = keep(program="raise SystemExit(0)")
    kept.started()
    assert kept.line() == "it ended: exit code 0"
    assert kept.process.wait(WITHIN_S) == 1


def test_a_second_part_waits_until_the_first_is_gone(keep: Keep) -> None:
    former = keep()
    first = former.started()
    second, other = keep(), keep(name="other.rank1")
    assert other.started().is_running()
    assert first.is_running()
    former.let_go()
    assert second.started().is_running()
    assert eventually(lambda: not first.is_running(), within_s=WITHIN_S)


def test_a_group_is_not_started_on_a_link_that_is_open_to_others() -> None:
    cable = plan(Host(host="b"), Host(host="c"))
    require_private(cable, ("127.0.0.1", "127.0.0.2", "127.0.0.3"))
    with pytest.raises(AddressError, match="c is a public internet address"):
        require_private(cable, ("127.0.0.1", "127.0.0.2", "8.8.8.8"))
    with pytest.raises(AddressError, match="nodes check"):
        require_private(cable, ("127.0.0.1", "127.0.0.2", "10.255.255.254"))


def run_group(
    folder: Path, ssh_script: str, check: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Two ranks until they end: here one that sleeps, and what a stand-in for ssh does."""
    ssh = folder / "ssh"
    ssh.write_text(f"#!/bin/sh\n{ssh_script}\n", encoding="utf-8")
    ssh.chmod(0o755)
    said = msgspec.structs.replace(
        plan(Host(host="b", address="127.0.0.2"), own_address="127.0.0.1", check=check),
        run=str(folder),
    )
    return subprocess.run(
        command(said, ("sleep", "600")),
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        cwd=folder, capture_output=True, text=True, timeout=WITHIN_S, check=False,
    )  # fmt: skip


OBJECTS = """
import json
print(json.dumps([{"host": "b", "words": "b has another engine. Install it."},
                  {"host": "here", "words": "This Mac is full. Empty it."}]))
"""


def test_a_group_that_may_not_run_starts_nothing_and_says_what_up_says(tmp_path: Path) -> None:
    done = run_group(tmp_path, "touch started", (sys.executable, "-c", OBJECTS))
    assert done.returncode == 1
    assert done.stdout == "error: b has another engine. Install it. This Mac is full. Empty it.\n"
    known = read_ranks(tmp_path, "huge")
    assert known is not None
    reasons = [each.reason for each in known.ranks]
    assert reasons == ["This Mac is full. Empty it.", "b has another engine. Install it."]
    assert not (tmp_path / "started").exists()


@pytest.mark.story
@pytest.mark.parametrize("check", ["raise SystemExit('it broke')", "print('[]')", "print('{}')"])
def test_a_check_that_finds_nothing_ends_no_group(tmp_path: Path, check: str) -> None:
    done = run_group(tmp_path, "exit 255", (sys.executable, "-c", check))
    assert done.stdout.endswith("because one ended (rank 1 on b: it ended: exit code 255)\n")


@pytest.mark.story
@pytest.mark.parametrize(
    ("ends", "how"),
    [
        ("kill -9 $$", "it ended: signal 9; its last line was: started as PID 4"),
        ("echo it ended: signal 6; sleep 1; exit 1", "it ended: signal 6"),
        ("exit 255", "it ended: exit code 255; its last line was: started as PID 4"),
        ("exit 92", "mlx-lm is not installed on b."),
    ],
)
def test_a_rank_says_how_it_ended_whatever_was_its_last_line(
    tmp_path: Path, ends: str, how: str
) -> None:
    script = f"echo started as PID 4\nsleep 1\n{ends}"
    done = run_group(tmp_path, script)
    assert done.returncode == 1
    assert done.stdout.endswith(f"because one ended (rank 1 on b: {how})\n")
    known = read_ranks(tmp_path, "huge")
    assert known is not None
    assert known.ranks[1].reason == how
