"""What the page starts: commands of `mlx-stack`, each a process that outlives page and gateway.

An action's folder holds what it is (`action.json`) and what it says (`out`, `err`), so that a
gateway that it restarted, or a page that was closed meanwhile, finds it again (decision 0092).
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from mlx_catalog import Quant
from mlx_procsup import ProcessIdentity, identify, is_alive
from mlx_stack import atomic_file, json_file
from mlx_stack.errors import LockedError, StackError, UsageError
from mlx_stack.home import Home
from mlx_stack.page.command import command_line, environment

_KEPT = 30
_MOST_AT_ONCE = 8
_TAIL_BYTES = 64 * 1024
_LONGEST_NAME = 512
_HINT = "Remove the folder; it only says what the page did."
_DETACH = 'folder=$1; shift; "$@" >"$folder/out" 2>"$folder/err" & echo $!'
_STOPPED = frozenset({"interrupted", "terminated"})
_BAD_OUTCOMES = frozenset({"failed", "skipped"})


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `action.json`."""

    schema_version: int = 1
    do: str
    about: str
    arguments: tuple[str, ...]
    started_at: float
    pid: int
    start_time: float
    boot_time: float
    boot_id: str

    @property
    def process(self) -> ProcessIdentity:
        return ProcessIdentity(self.pid, self.start_time, self.boot_time, self.boot_id)


@dataclass(frozen=True, slots=True)
class PageAction:
    """A command that the page started.

    Attributes:
        do: Its name, as in `KINDS`.
        about: The tier or the model; "" for the whole stack.
        state: `running`, `done`, `failed` or `cancelled`.
        progress: The last event of a pull; None where there was none.
        result: The document that it printed; None where it hasn't.
        error: What went wrong, as commands say it; None where nothing did.
    """

    id: str
    do: str
    about: str
    command: str
    started_at: float
    state: str
    progress: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {
            "id": self.id,
            "do": self.do,
            "about": self.about,
            "command": self.command,
            "started_at": datetime.fromtimestamp(self.started_at, UTC).isoformat(),
            "state": self.state,
            "progress": self.progress,
            "result": self.result,
            "error": self.error,
        }


def _of_tier(command: str) -> Callable[[Mapping[str, str]], tuple[str, ...]]:
    def arguments(given: Mapping[str, str]) -> tuple[str, ...]:
        tier = given.get("tier", "")
        return (command, "--json", *((f"--tier={tier}",) if tier else ()))

    return arguments


def _pull(given: Mapping[str, str]) -> tuple[str, ...]:
    quant = given.get("quant", "")
    if quant and quant not in Quant:
        raise UsageError(
            f"There is no precision {quant!r}.", hint=f"Choose one of these: {', '.join(Quant)}."
        )
    return ("pull", "--json-lines", *((f"--quant={quant}",) if quant else ()), "--", _model(given))


def _remove(given: Mapping[str, str]) -> tuple[str, ...]:
    return ("models", "--json", f"--remove={_model(given)}")


def _add_tier(given: Mapping[str, str]) -> tuple[str, ...]:
    tier = given.get("tier", "")
    named = (f"--as={tier}",) if tier else ()
    return ("init", "--json", "--accept-defaults", f"--add={_model(given)}", *named)


def _remove_tier(given: Mapping[str, str]) -> tuple[str, ...]:
    if not given.get("tier"):
        raise UsageError("Which tier?")
    return ("init", "--json", "--accept-defaults", f"--remove={given['tier']}")


def _model(given: Mapping[str, str]) -> str:
    if not given.get("model"):
        raise UsageError("Which model?")
    return given["model"]


KINDS: dict[str, Callable[[Mapping[str, str]], tuple[str, ...]]] = {
    "start": _of_tier("up"),
    "stop": _of_tier("down"),
    "restart": _of_tier("restart"),
    "pull": _pull,
    "remove": _remove,
    "add-tier": _add_tier,
    "remove-tier": _remove_tier,
    "fix": lambda _: ("doctor", "--json", "--fix"),
}
"""What the page can do, and the command's arguments for it."""


class Actions:
    """Starts actions, and says how they are; all that it knows is in their folders."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._folder = home.page / "actions"

    def start(self, do: str, given: Mapping[str, str]) -> PageAction:
        """Start an action.

        Args:
            do: One of `KINDS`.
            given: Its `tier`, `model` or `quant`.

        Raises:
            UsageError: When there is no such action, or something is missing.
            LockedError: When many are running.
            OSError: When it can't be started.
        """
        if do not in KINDS:
            raise UsageError(f"There is no action {do!r}.", hint=f"Available: {', '.join(KINDS)}.")
        if any(len(value) > _LONGEST_NAME or not value.isprintable() for value in given.values()):
            raise UsageError("That isn't a name.")
        arguments = KINDS[do](given)
        if sum(each.state == "running" for each in self.all()) >= _MOST_AT_ONCE:
            raise LockedError("Too many actions are running.", hint="Wait until one has ended.")
        self._forget_old()
        number = f"{time.time_ns():x}-{secrets.token_hex(4)}"
        folder = self._folder / number
        folder.mkdir(mode=0o700, parents=True)
        pid = self._spawn(folder, arguments)
        # one that has ended already is known by what it said
        process = identify(pid) or ProcessIdentity(pid, 0.0, 0.0, "")
        about = given.get("model") or given.get("tier") or ""
        record = _Record(
            do=do,
            about=about,
            arguments=arguments,
            started_at=time.time(),
            pid=process.pid,
            start_time=process.start_time,
            boot_time=process.boot_time,
            boot_id=process.boot_id,
        )
        json_file.write(folder / "action.json", record, mode=atomic_file.PRIVATE)
        return self._read(folder, record)

    def _spawn(self, folder: Path, arguments: tuple[str, ...]) -> int:
        """Start a command that is no descendant of the gateway: to stop it is to stop these, too.

        The shell in between starts it, says its PID and ends.
        """
        done = subprocess.run(
            ("/bin/sh", "-c", _DETACH, "sh", str(folder), *command_line(*arguments)),
            env=environment(self._home),
            cwd=self._home.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
            check=True,
            text=True,
        )
        return int(done.stdout)

    def all(self) -> tuple[PageAction, ...]:
        """The last actions, newest first."""
        try:
            folders = sorted(self._folder.iterdir(), reverse=True)
        except OSError:
            return ()
        found = (self._find(folder) for folder in folders[:_KEPT])
        return tuple(each for each in found if each is not None)

    def cancel(self, number: str) -> PageAction:
        """Ask an action to end; what a pull has fetched is kept.

        Raises:
            UsageError: When there is no such action.
        """
        folder = self._folder / number
        found = self._find(folder) if folder.parent == self._folder else None
        record = None if found is None else _record_of(folder)
        if found is None or record is None:
            raise UsageError(f"There is no action {number[:64]!r}.")
        if found.state == "running":
            with suppress(ProcessLookupError):
                os.kill(record.pid, signal.SIGTERM)
        return found

    def _find(self, folder: Path) -> PageAction | None:
        record = _record_of(folder)
        return None if record is None else self._read(folder, record)

    def _read(self, folder: Path, record: _Record) -> PageAction:
        runs = is_alive(record.process)
        documents = _documents(folder / "out")
        last = documents[-1] if documents else None
        is_event = last is not None and last.get("event") not in (None, "result")
        result = None if runs or is_event else last
        progress = [each for each in documents if each.get("event") in ("progress", "converting")]
        error = None if runs else _error_in(result, folder / "err")
        state = "running"
        if not runs:
            is_stopped = error is not None and error.get("type") in _STOPPED
            state = "done" if error is None else "cancelled" if is_stopped else "failed"
        return PageAction(
            id=folder.name,
            do=record.do,
            about=record.about,
            command=" ".join(("mlx-stack", *record.arguments)),
            started_at=record.started_at,
            state=state,
            progress=progress[-1] if progress else None,
            result=result,
            error=error,
        )

    def _forget_old(self) -> None:
        with suppress(OSError):
            for folder in sorted(self._folder.iterdir(), reverse=True)[_KEPT:]:
                found = self._find(folder)
                if found is None or found.state != "running":
                    shutil.rmtree(folder, ignore_errors=True)


def _record_of(folder: Path) -> _Record | None:
    with suppress(StackError, OSError):
        return json_file.read(folder / "action.json", _Record, hint=_HINT)
    return None


def _documents(path: Path) -> list[dict[str, Any]]:
    """The JSON objects at the end of what a command has printed, one a line."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _TAIL_BYTES, 0))
            lines = file.read().splitlines()
    except OSError:
        return []
    found: list[dict[str, Any]] = []
    for line in lines:
        with suppress(ValueError):  # the first may be cut, the last unfinished
            document: object = json.loads(line)
            if isinstance(document, dict):
                found.append(msgspec.convert(document, dict[str, Any]))
    return found


def _error_in(result: Mapping[str, Any] | None, said: Path) -> Mapping[str, Any] | None:
    """What went wrong with an action that has ended; None where nothing did."""
    if result is None:
        with suppress(OSError):
            lines = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            words = " ".join(lines[-3:])[-500:]
            return {
                "type": "failed",
                "message": words or "It ended without any output.",
                "hint": None,
            }
        return {"type": "failed", "message": "It ended without any output.", "hint": None}
    if "error" in result and isinstance(result["error"], dict):
        return msgspec.convert(result["error"], dict[str, Any])
    for service in result.get("services") or ():
        if service.get("outcome") in _BAD_OUTCOMES:
            words = f"{service.get('name')}: {service.get('error') or service.get('outcome')}"
            return {"type": "failed", "message": words, "hint": None}
    return None
