"""A model copied from this Mac to those that a part of it is to run on, and verified there."""

import queue
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mlx_stack.errors import UsageError
from mlx_stack.format import format_bytes
from mlx_stack.models.disk.local import LocalModel, own_files
from mlx_stack.models.disk.manifest import FileRecord, Manifest, read_manifest, record_of
from mlx_stack.models.events import Copying, ModelEvent
from mlx_stack.nodes.facts import (
    Bytes,
    FactsQuestion,
    PathText,
    ask_facts,
    explained,
    one_line,
    program,
    python_over_there,
)
from mlx_stack.nodes.facts_script import MOST_FILES
from mlx_stack.nodes.ssh import Connection, SshError, threads
from mlx_stack.open_stack import OpenStack
from mlx_stack.stack import USUAL_HOME, Host, Tier
from mlx_stack.steps import OnEvent, ignore

_CHUNK_BYTES = 1 << 20
_LONGEST_LINE = 1 << 22
_SILENT_S = 120.0
"""How long the other Mac may say nothing: it says how far it is twice a second."""


class _Said(msgspec.Struct, frozen=True):
    """A line of `copy_script`."""

    said: Literal[
        "checked", "plan", "received", "wrong", "full", "held", "failed", "present", "done"
    ]
    bytes: Bytes = 0
    text: PathText = ""
    offsets: Annotated[dict[PathText, Bytes], Meta(max_length=MOST_FILES)] = {}


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What `copy_script` is to take.

    Attributes:
        manifest: What is written next to the files; None where there is none here either.
    """

    model_dir: str
    folder: str
    files: tuple[FileRecord, ...]
    manifest: Manifest | None


@dataclass(frozen=True, slots=True)
class CopiedModel:
    """What became of the copy to one Mac.

    Attributes:
        outcome: `present` where it was there already, every byte of it verified.
        problem: Why it failed; None where it didn't.
        sent_bytes: What was sent; what an earlier copy left wasn't.
    """

    host: str
    outcome: Literal["copied", "present", "failed"]
    sent_bytes: int = 0
    problem: str | None = None
    hint: str | None = None

    def to_document(self) -> dict[str, object]:
        """One row of the JSON answer."""
        return {
            "host": self.host,
            "outcome": self.outcome,
            "sent_bytes": self.sent_bytes,
            "problem": self.problem,
            "hint": self.hint,
        }


def hosts_of(tiers: tuple[Tier, ...], name: str) -> tuple[Host, ...]:
    """The other Macs that a part of a model is to run on, each state folder once.

    Args:
        tiers: Those that serve it.
        name: What the user called it.

    Raises:
        UsageError: When there are none.
    """
    found = {(each.host, each.home or USUAL_HOME): each for tier in tiers for each in tier.workers}
    if not found:
        raise UsageError(
            f"No tier runs {name} on several Macs.",
            hint=f"`mlx-stack init --add {name} --host NAME` adds one.",
        )
    return tuple(found.values())


def copy_model(
    opened: OpenStack,
    model: LocalModel,
    hosts: tuple[Host, ...],
    *,
    on_event: OnEvent[ModelEvent] = ignore,
) -> tuple[CopiedModel, ...]:
    """Copy a whole model to `hosts`, side by side; a copy that failed doesn't stop the others.

    A copy that was interrupted is continued. The model takes its place there once every byte was
    compared with its hash.

    Raises:
        InvalidFileError: When the manifest here is damaged.
        OSError: When a file can't be read.
        MissingError: When there is no `ssh` on this Mac.
    """
    manifest = read_manifest(model.path)
    if manifest is not None:
        files = manifest.files
    else:
        files = tuple(record_of(model.path, path) for path in own_files(model.path))
    # what may run here was allowed here: over there it is asked for again
    left = msgspec.structs.replace(manifest, allowed_code=None) if manifest is not None else None
    asked = _Asked(model_dir="", folder=model.path.name, files=files, manifest=left)
    telling = threading.Lock()

    def tell(event: ModelEvent) -> None:
        with telling:
            on_event(event)

    def copy(host: Host) -> CopiedModel:
        try:
            return _copy(model.path, asked, host, opened.variables, tell)
        except SshError as error:
            return CopiedModel(host.host, "failed", 0, error.message, error.hint)

    with threads(len(hosts)) as pool:
        return tuple(pool.map(copy, hosts))


def _copy(
    folder: Path,
    asked: _Asked,
    host: Host,
    variables: Mapping[str, str],
    tell: OnEvent[ModelEvent],
) -> CopiedModel:
    home, name = host.home or USUAL_HOME, host.host
    question = FactsQuestion(folder=asked.folder, address=None, ports=())
    there = ask_facts(name, home, question, variables)
    asked = msgspec.structs.replace(asked, model_dir=there.model_dir)
    total = sum(each.size_bytes for each in asked.files)
    with Connection(name, python_over_there(home), variables, silent_s=_SILENT_S) as opened:
        lines: queue.SimpleQueue[_Said | None] = queue.SimpleQueue()
        listener = threading.Thread(target=_listen, args=(opened, lines), daemon=True)
        listener.start()
        present = 0

        def note(said: _Said) -> None:
            if said.said == "received":
                tell(Copying(name, total, present + said.bytes))

        send = partial(_send, opened, folder)
        try:
            opened.stdin.write(program("copy_script", asked))
            opened.stdin.flush()
            said = _decisive(lines, note)
            if said is not None and said.said == "plan":
                known = [each for each in asked.files if each.path in said.offsets]
                missing = sum(each.size_bytes - said.offsets[each.path] for each in known)
                present = total - missing
                tell(Copying(name, total, present))
                sender = threading.Thread(target=send, args=(known, said.offsets), daemon=True)
                sender.start()
                said = _decisive(lines, note)
        except OSError:
            said = _decisive(lines, note)
        if said is not None and said.said in ("done", "present"):
            outcome = "copied" if said.said == "done" else "present"
            return CopiedModel(name, outcome, said.bytes)
        raise _problem(opened, home, said)


def _send(
    opened: Connection, folder: Path, files: list[FileRecord], offsets: Mapping[str, int]
) -> None:
    """Write the rest of each file; what the other side says tells whether it came."""
    with suppress(OSError, ValueError):  # the connection is gone, or the file here
        for each in files:
            with (folder / each.path).open("rb") as content:
                content.seek(offsets[each.path])
                left = each.size_bytes - offsets[each.path]
                while left > 0 and (chunk := content.read(min(left, _CHUNK_BYTES))):
                    opened.stdin.write(chunk)
                    left -= len(chunk)
        opened.stdin.flush()
    with suppress(OSError):
        opened.stdin.close()


def _listen(opened: Connection, lines: "queue.SimpleQueue[_Said | None]") -> None:
    """Pass on what the other side says; None at its end. Each word is a sign of life."""
    with suppress(OSError, ValueError):  # it was ended
        for line in iter(partial(opened.stdout.readline, _LONGEST_LINE), b""):
            with suppress(msgspec.MsgspecError, UnicodeError):  # what a login shell prints
                lines.put(msgspec.json.decode(line, type=_Said))
                opened.stir()
    lines.put(None)


def _decisive(lines: "queue.SimpleQueue[_Said | None]", note: OnEvent[_Said]) -> _Said | None:
    """The next line that decides something; None where there is none."""
    while (said := lines.get()) is not None:
        if said.said not in ("checked", "received"):
            return said
        note(said)
    return None


def _problem(opened: Connection, home: str, said: _Said | None) -> SshError:
    """Why a copy wasn't finished."""
    host, again = opened.host, "The same command continues where this stopped."
    match said:
        case None:
            error = opened.end() or SshError(host, f"The copy to {host} broke off.")
            error = explained(error, home)
            hint = f"{error.hint} {again}" if error.hint is not None else again
            return SshError(host, error.message, hint=hint)
        case _Said(said="full"):
            needed = f"{format_bytes(said.bytes)} more" if said.bytes else "more room"
            return SshError(
                host,
                f"The disk of {host} is full: the model needs {needed}.",
                hint=f"On {host}: `mlx-stack models rm MODEL`. {again}",
            )
        case _Said(said="held"):
            return SshError(
                host,
                f"The model is being pulled on {host}, or copied to it.",
                hint="Wait until that has ended; then run this again.",
            )
        case _Said(said="wrong"):
            return SshError(
                host,
                f"{one_line(said.text)} arrived on {host} with another hash than it should have.",
                hint="`mlx-stack models verify` shows whether it is damaged on this Mac.",
            )
        case _:
            return SshError(
                host,
                f"{host} couldn't store the model: {one_line(said.text)}",
                hint="Check the disk and the models folder of that Mac.",
            )
