"""Runs one model on several Macs as one process: what ends a part of it ends all of it.

`python -m mlx_stack.nodes.group_process PLAN COMMAND…` starts the engine's command here, as rank 0,
and one `ssh` for each other Mac. It ends when any of them ends, with a line that says which, and
none is left, here or there (decision 0114). First of all, the plan's check asks every Mac whether
they may run together: whoever starts this, the same is refused (decision 0115).
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType, ModuleType
from typing import IO

import msgspec

from mlx_stack import atomic_file
from mlx_stack.engines import guard, mlx_lm_start
from mlx_stack.nodes import facts_script, rank_keeper
from mlx_stack.nodes.facts import framed, missing_there, python_over_there
from mlx_stack.nodes.group import (
    SSH_AGENT,
    AddressError,
    Objections,
    Plan,
    Rank,
    Ranks,
    RankState,
    addresses_file,
    hosts_of,
    meeting_of,
    rank_name,
    require_private,
    ring_addresses,
    write_ranks,
)
from mlx_stack.nodes.ssh import ssh_command, ssh_environment
from mlx_stack.stack import USUAL_HOME

GRACE_S = 6.0
"""What the parts may take to end: less than this process may take itself."""
TOGETHER_S = 0.5
"""How long after the first end others are seen as part of it."""
_TURN_S = 0.1
_STARTED = "started as PID "
_LONGEST_LINE = 4000
_FILES = (guard, mlx_lm_start, facts_script)
_FOR_ONE = frozenset({guard.SECRET_VARIABLE, guard.SCRATCH_VARIABLE})

type Ending = tuple[int, str]
"""A rank, and how it has ended."""


class RunningGroup:
    """The parts of a model that run, as long as all of them do.

    Args:
        plan: What is run on the other Macs.
        command: What is run here.
    """

    def __init__(self, plan: Plan, command: Sequence[str]) -> None:
        self._plan = plan
        self._command = tuple(command)
        self._run = Path(plan.run)
        self._endings: SimpleQueue[Ending] = SimpleQueue()
        self._children: list[subprocess.Popen[bytes]] = []
        self._ranks: list[Rank] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._last_words: dict[int, str] = {}

    def run(self) -> int:
        """Run until a part ends, or `stop` was called; the exit code."""
        try:
            addresses = self._find_addresses()
        except AddressError as error:
            _say(f"error: {error}")
            return 1
        hosts = hosts_of(self._plan)
        self._ranks = [
            Rank(rank=rank, host=host, address=address)
            for rank, (host, address) in enumerate(zip(hosts, addresses, strict=True))
        ]
        self._write_down()
        try:
            if objections := self._find_objections():
                return self._refuse(objections)
            if self._stopping.is_set():
                return 0
            self._start_here(addresses)
            for rank in range(1, len(hosts)):
                self._start_there(rank, addresses)
            return self._hold_on()
        finally:
            self._end_all()

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Let `run` come to its end."""
        del number, frame
        self._stopping.set()

    def _find_addresses(self) -> list[str]:
        found = ring_addresses(self._plan, os.environ)
        require_private(self._plan, found)
        port = self._plan.ring_port
        return [f"{address}:{port + rank}" for rank, address in enumerate(found)]

    def _find_objections(self) -> Objections:
        """What speaks against a start; nothing if that can't be found out, or nobody waits."""
        if not self._plan.check:
            return ()
        checking = subprocess.Popen(
            self._plan.check, env=_for_all(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        self._children.append(checking)
        said = b""
        while checking.returncode is None and not self._stopping.is_set():
            with suppress(subprocess.TimeoutExpired):
                said, _ = checking.communicate(timeout=_TURN_S)
        try:
            return msgspec.json.decode(said, type=Objections)
        except msgspec.DecodeError:  # it has said in the log what kept it
            return ()

    def _refuse(self, objections: Objections) -> int:
        """Say what speaks against a start, as `up` does; the exit code."""
        for rank, host in enumerate(hosts_of(self._plan)):
            words = " ".join(each.words for each in objections if each.host == host)
            if words:
                self._note(rank, RankState.ENDED, words)
        _say(f"error: {' '.join(each.words for each in objections)}")
        return 1

    def _start_here(self, addresses: list[str]) -> None:
        path = addresses_file(self._run, self._plan.tier)
        meeting = meeting_of(self._plan, addresses)
        atomic_file.write_text(path, json.dumps(meeting.content))
        inherited = {name: value for name, value in os.environ.items() if name != SSH_AGENT}
        environment = {
            **inherited,
            **self._plan.environment,
            **meeting.environment,
            meeting.variable: str(path),
            "MLX_RANK": "0",
        }
        started = subprocess.Popen(self._command, env=environment, stdin=subprocess.PIPE)
        self._children.append(started)
        self._note(0, RankState.RUNNING)
        self._await_end(0, started)

    def _start_there(self, rank: int, addresses: list[str]) -> None:
        host = self._plan.workers[rank - 1]
        command = ssh_command(host.host, python_over_there(host.home or USUAL_HOME))
        started = subprocess.Popen(
            command,
            env=ssh_environment(_for_all()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert started.stdin is not None
        assert started.stdout is not None
        self._children.append(started)
        lease = json.dumps(self._lease(rank, addresses)).encode()
        first = framed(_text_of(rank_keeper).encode()) + lease + b"\n"
        _in_background(_hold, started.stdin, first)
        reader = _in_background(self._listen, rank, started.stdout)
        self._await_end(rank, started, reader)

    def _lease(self, rank: int, addresses: list[str]) -> dict[str, object]:
        """What the keeper on the other Mac is told to run."""
        plan, host = self._plan, self._plan.workers[rank - 1]
        meeting = meeting_of(plan, addresses)
        return {
            "name": rank_name(plan.tier, rank),
            "home": host.home or USUAL_HOME,
            "rank": rank,
            "meeting": {"variable": meeting.variable, "content": meeting.content},
            "files": {_file_of(module): _text_of(module) for module in _FILES},
            "program": _file_of(guard),
            "facts": _file_of(facts_script),
            "arguments": plan.arguments,
            "model": plan.model,
            "environment": {**plan.environment, **meeting.environment},
            "secret_variable": guard.SECRET_VARIABLE,
            "keeps_awake": plan.keeps_awake,
        }

    def _listen(self, rank: int, output: IO[bytes]) -> None:
        """Put what another Mac says into this process's log, with its name."""
        host = hosts_of(self._plan)[rank]
        while line := output.readline(_LONGEST_LINE):
            words = line.decode(errors="replace").rstrip()
            if words.startswith(_STARTED):
                self._note(rank, RankState.RUNNING)
            if words:
                self._last_words[rank] = words
                _say(f"[rank {rank} on {host}] {words}")

    def _await_end(
        self, rank: int, started: subprocess.Popen[bytes], reader: threading.Thread | None = None
    ) -> None:
        def wait() -> None:
            code = started.wait()
            if reader is not None:
                reader.join(timeout=TOGETHER_S)  # its last words say why
            last = self._last_words.get(rank)
            how = f"it ended: signal {-code}" if code < 0 else f"it ended: exit code {code}"
            if rank > 0 and (missing := self._missing(rank, code)) is not None:
                how = missing
            elif last is not None:
                # a keeper that ends says why; one that was killed, or its `ssh`, hasn't
                how = last if code == 1 else f"{how}; its last line was: {last}"
            self._endings.put((rank, how))

        _in_background(wait)

    def _missing(self, rank: int, code: int) -> str | None:
        """What the other Mac lacks, if that is why nothing was started there."""
        host = self._plan.workers[rank - 1]
        error = missing_there(host.host, host.home or USUAL_HOME, code)
        return error.message if error is not None else None

    def _hold_on(self) -> int:
        """Wait until a part ends; 0 if this process was stopped, which ends them all as well."""
        endings: list[Ending] = []
        while not (endings or self._stopping.is_set()):
            with suppress(Empty):
                endings.append(self._endings.get(timeout=_TURN_S))
        # one takes another with it, and who stopped this process may have stopped all of them
        ends = time.monotonic() + TOGETHER_S
        while (left_s := ends - time.monotonic()) > 0 and not self._stopping.is_set():
            with suppress(Empty):
                endings.append(self._endings.get(timeout=left_s))
        if self._stopping.is_set():
            return 0
        told = [f"rank {rank} on {self._place(rank)}: {how}" for rank, how in endings]
        for rank, how in endings:
            self._note(rank, RankState.ENDED, how)
        _say(f"error: all ranks were stopped, because one ended ({'; '.join(told)})")
        return 1

    def _place(self, rank: int) -> str:
        return "this Mac" if rank == 0 else hosts_of(self._plan)[rank]

    def _end_all(self) -> None:
        """End every part: here at once, there since nobody holds on to them any more."""
        for child in self._children:
            with suppress(ProcessLookupError):
                child.terminate()
        ends = time.monotonic() + GRACE_S
        for child in self._children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, ends - time.monotonic()))
            child.kill()
            child.wait()

    def _note(self, rank: int, state: RankState, reason: str | None = None) -> None:
        with self._lock:
            known = self._ranks[rank]
            self._ranks[rank] = msgspec.structs.replace(known, state=state, reason=reason)
            self._write_down()

    def _write_down(self) -> None:
        with suppress(OSError):  # a full disk ends no answer
            ranks = Ranks(pid=os.getpid(), ranks=tuple(self._ranks))
            write_ranks(self._run, self._plan.tier, ranks)


def _for_all() -> dict[str, str]:
    """This process's environment, without what is for the engine here alone."""
    return {name: value for name, value in os.environ.items() if name not in _FOR_ONE}


def _in_background(target: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


def _hold(lease: IO[bytes], first: bytes) -> None:
    """Hold on to a part on another Mac: say what to run, then that this Mac is there."""
    with suppress(OSError):  # its end is seen elsewhere
        lease.write(first)
        while True:
            lease.write(b"\n")
            lease.flush()
            time.sleep(rank_keeper.BEAT_S)


def _file_of(module: ModuleType) -> str:
    return Path(str(module.__file__)).name


def _text_of(module: ModuleType) -> str:
    return Path(str(module.__file__)).read_text(encoding="utf-8")


def _say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def main() -> int:
    """Run a group as the command line says; the exit code."""
    group = RunningGroup(msgspec.json.decode(sys.argv[1], type=Plan), sys.argv[2:])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, group.stop)
    try:
        return group.run()
    except FileNotFoundError as error:
        _say(f"error: there is no {error.filename} on this machine")
        return 1


if __name__ == "__main__":
    sys.exit(main())
