"""Keeps one part of a model running on another Mac, for as long as the first Mac holds on to it.

Its text is sent over ssh to the engine's Python over there, which knows nothing of mlx-stack: it
uses the standard library only. Standard input is a lease. The line after this text says what to
run; then one comes every few seconds, and once none has come for a while, or the connection ends,
the part is killed: nothing is left there whatever happens here (decision 0114).
"""

import fcntl
import json
import os
import runpy
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

BEAT_S = 2.0
"""How often a line comes."""
SILENT_S = 20.0
"""How long none may come: longer than a cable is out that somebody moves."""
_FORMER_S = SILENT_S + 10.0
"""How long to wait for a part that is being ended since nobody holds on to it any more."""
_TURN_S = 0.2
_BASE = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
_INHERITED = ("TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "USER", "LOGNAME")


class Lease:
    """What still comes over standard input, each a sign that the first Mac is there."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._is_over = False
        threading.Thread(target=self._listen, daemon=True).start()

    def problem(self) -> str | None:
        """Why the part is to end; None while it isn't."""
        if self._is_over:
            return "the first Mac let go of it"
        if time.monotonic() - self._last > SILENT_S:
            return f"nothing was heard of the first Mac for {SILENT_S:.0f} s"
        return None

    def _listen(self) -> None:
        while os.read(0, 4096):  # not buffered: a thread that reads so can't be left behind
            self._last = time.monotonic()
        self._is_over = True


def main(lines: IO[bytes]) -> int:
    """Run what the first line says until it ends, or the lease does; its exit code."""
    said: dict[str, Any] = json.loads(lines.readline())
    lease = Lease()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _leave)
    home = Path(said["home"]).expanduser()
    folder = Path(tempfile.mkdtemp(prefix="mlx-stack-rank."))
    try:
        with _place(home / "run", said["name"]) as place:
            if not _taken_alone(place, lease):
                return _end(lease.problem() or "the part that ran before doesn't end")
            return _keep(_start(said, home, folder), lease)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _place(folder: Path, name: str) -> IO[bytes]:
    """The file that is locked while the part of that name runs here."""
    folder.mkdir(mode=0o700, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(folder / f"{name}.lock", flags, mode=0o600), "r+b")


def _taken_alone(place: IO[bytes], lease: Lease) -> bool:
    """Whether no other part of this name runs here any more: two of them wouldn't fit."""
    ends = time.monotonic() + _FORMER_S
    while True:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if lease.problem() or time.monotonic() > ends:
                return False
            time.sleep(_TURN_S)
        else:
            return True


def _start(said: dict[str, Any], home: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start the engine's program, with its own files and the one that says where all parts are."""
    for name, text in said["files"].items():
        (folder / name).write_text(text, encoding="utf-8")
    meeting = folder / "meeting.json"
    meeting.write_text(json.dumps(said["meeting"]["content"]), encoding="utf-8")
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    environment = {
        **_BASE,
        **inherited,
        **said["environment"],
        "HF_HOME": str(home / "engines" / "huggingface"),
        said["meeting"]["variable"]: str(meeting),
        "MLX_RANK": str(said["rank"]),
        said["secret_variable"]: secrets.token_hex(32),
    }
    model = runpy.run_path(str(folder / said["facts"]))["model_dir"](home) / said["model"]
    program = (sys.executable, "-I", "-u", str(folder / said["program"]))
    started = subprocess.Popen(
        (*program, *said["arguments"], "--model", str(model)),
        env=environment,
        stdin=subprocess.PIPE,  # closes when this process ends, whatever ends it
        start_new_session=True,
    )
    _awaken(started.pid, said["keeps_awake"])
    return started


def _awaken(pid: int, keeps_awake: bool) -> None:
    """Keep this Mac from sleeping while the part runs."""
    if keeps_awake and (program := shutil.which("caffeinate", path=_BASE["PATH"])):
        words = (program, "-i", "-s", "-w", str(pid))
        subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)


def _keep(started: subprocess.Popen[bytes], lease: Lease) -> int:
    try:
        _say(f"started as PID {started.pid}")
        while True:
            try:
                code = started.wait(_TURN_S)
            except subprocess.TimeoutExpired:
                if (problem := lease.problem()) is not None:
                    _kill(started)  # first: it can take for ever until somebody reads why
                    return _end(problem)
            else:
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                return _end(f"it ended: {how}")
    finally:
        _kill(started)


def _kill(started: subprocess.Popen[bytes]) -> None:
    if started.poll() is None:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def _end(words: str) -> int:
    _say(words)
    return 1


def _say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.stdin.buffer))
