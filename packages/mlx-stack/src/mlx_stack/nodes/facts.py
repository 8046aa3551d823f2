"""What each Mac says of itself before a part of a model is started there, and how it is asked.

The same script answers here and over there. What comes from there is untrusted: it has a schema,
and every text and list a bound.
"""

import json
import re
import subprocess
from collections.abc import Mapping
from importlib import resources
from typing import Annotated, cast

import msgspec
from msgspec import Meta

from mlx_stack.child_environment import inherited_environment
from mlx_stack.engines.environment import EngineName, require_environment
from mlx_stack.errors import StackError
from mlx_stack.home import Home
from mlx_stack.nodes.facts_script import MARK, MOST_FILES
from mlx_stack.nodes.ssh import SshError, ask

_MOST_BYTES = 8 << 20
_WITHIN_S = 60.0
_NO_HOME, _NO_ENGINE = 91, 92
_RUN = (
    'h=$1; case $h in "~") h=$HOME;; "~/"*) h=$HOME/${h#??};; esac; '
    f'[ -d "$h" ] || exit {_NO_HOME}; p=$h/engines/mlx-lm/current/bin/python; '
    f'[ -x "$p" ] || exit {_NO_ENGINE}; exec "$p" -I -B -u -c "$2" "$h"'
)
"""What finds the engine's Python in a state folder, for any shell; no quote or backslash in it."""
LOAD = "import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
"""What that Python is started with: it reads its program as `framed` writes it."""

_NO_PART_OF_A_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"

type Name = Annotated[str, Meta(max_length=200)]
type PathText = Annotated[str, Meta(max_length=2000)]
type Bytes = Annotated[int, Meta(ge=0, le=2**60)]


class InterfaceAddress(msgspec.Struct, frozen=True, kw_only=True):
    """An IPv4 address of a Mac, with the length of its network's prefix."""

    interface: Name
    address: Annotated[str, Meta(pattern=rf"\A{_OCTET}(\.{_OCTET}){{3}}\Z")]
    prefix: Annotated[int, Meta(ge=0, le=32)]


class HashedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a model as its manifest has it, or its beginning where there is none."""

    path: PathText
    size_bytes: Bytes
    algorithm: Name
    digest: Name


class ModelThere(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's folder holds.

    Attributes:
        files: What should be there.
        sizes: What is there, by path.
        damaged: What differed from its hash when it was last compared.
    """

    folder: PathText
    files: Annotated[tuple[HashedFile, ...], Meta(max_length=MOST_FILES)]
    sizes: Annotated[dict[PathText, Bytes], Meta(max_length=MOST_FILES)]
    damaged: Annotated[tuple[PathText, ...], Meta(max_length=MOST_FILES)]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a Mac says of itself. Unknown is None.

    Attributes:
        home: Its state folder.
        packages: The versions of what decides how a model is computed.
        lock_sha256: The digest of the lock that its engine was made from.
        gpu_limit_bytes: What its GPU may use.
        disk_free_bytes: What is free where its models are.
        model: The folder of the model that was asked for; None where there is none.
        ports_taken: Those that were asked for and are in use.
        rdma_devices: The Thunderbolt ports that it offers for RDMA; None where that isn't known.
    """

    schema_version: Annotated[int, Meta(ge=1, le=1)]
    home: PathText
    system: Name
    os_version: Name | None
    os_build: Name | None
    python: Name
    packages: Annotated[dict[Name, Name | None], Meta(max_length=20)]
    lock_sha256: Name | None
    memory_bytes: Bytes | None
    gpu_limit_bytes: Bytes | None
    model_dir: PathText
    disk_free_bytes: Bytes | None
    model: ModelThere | None
    addresses: Annotated[tuple[InterfaceAddress, ...], Meta(max_length=500)]
    ports_taken: Annotated[tuple[int, ...], Meta(max_length=20)]
    rdma_devices: Annotated[tuple[Name, ...], Meta(max_length=100)] | None


class FactsQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked besides.

    Attributes:
        folder: The name of the model's folder in the models folder.
        address: Where the ring is to listen there; None where that isn't known.
        ports: The ports that it needs there.
    """

    folder: str
    address: str | None
    ports: tuple[int, ...]


def python_over_there(home: str) -> tuple[str, ...]:
    """What runs the engine's Python on another Mac.

    It reads its program from stdin, as `framed` writes it, and then whatever that reads.

    Args:
        home: The state folder over there; `~` is the user's home.
    """
    return ("/bin/sh", "-c", _RUN, "sh", home, LOAD)


def program(module: str, question: msgspec.Struct) -> bytes:
    """A module of this room as a program for `python_over_there`; its `main` gets the question."""
    text = resources.files("mlx_stack.nodes").joinpath(f"{module}.py").read_text(encoding="utf-8")
    source = f"{text}\n\nmain({msgspec.json.encode(question).decode()!r})\n".encode()
    return framed(source)


def framed(source: bytes) -> bytes:
    """A program for `python_over_there`: a line with its length, then the program."""
    return b"%d\n%s" % (len(source), source)


def ask_facts(host: str, home: str, question: FactsQuestion, variables: Mapping[str, str]) -> Facts:
    """What another Mac says of itself.

    Raises:
        SshError: When it can't be asked, or has no state folder or no engine.
        MissingError: When there is no `ssh` on this Mac.
    """
    try:
        said = ask(
            host,
            python_over_there(home),
            variables,
            given=program("facts_script", question),
            within_s=_WITHIN_S,
            most_bytes=_MOST_BYTES,
        )
    except SshError as error:
        raise explained(error, home) from error
    facts = facts_in(said)
    if facts is None:
        raise SshError(host, f"The answer of {host} can't be understood.")
    return facts


def explained(error: SshError, home: str) -> SshError:
    """What is missing over there, where that is why the engine's Python couldn't be run."""
    return (error.code is not None and missing_there(error.host, home, error.code)) or error


def missing_there(host: str, home: str, code: int) -> SshError | None:
    """What is missing on another Mac if `python_over_there` exits with `code`; None if nothing."""
    if code == _NO_HOME:
        return SshError(
            host,
            f"There is no state folder {home} on {host}.",
            hint=f"On {host}: install mlx-stack, then `mlx-stack engines install mlx-lm`. `home` "
            f"of {host} in the stack file names another folder.",
        )
    if code == _NO_ENGINE:
        return SshError(
            host,
            f"mlx-lm is not installed on {host}.",
            hint=f"On {host}: `mlx-stack engines install mlx-lm`.",
        )
    return None


def own_facts(home: Home, question: FactsQuestion, variables: Mapping[str, str]) -> Facts:
    """What this Mac says of itself.

    Raises:
        EngineMissingError: When mlx-lm isn't installed.
        StackError: When its Python can't be run.
    """
    python = require_environment(home.engines, EngineName.MLX_LM).python
    try:
        done = subprocess.run(
            (str(python), "-I", "-B", "-u", "-c", LOAD, str(home.root)),
            input=program("facts_script", question),
            env=inherited_environment(variables),
            capture_output=True,
            timeout=_WITHIN_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise StackError(
            f"The Python of mlx-lm can't be run: {error}",
            hint="`mlx-stack engines verify` checks it.",
        ) from error
    facts = facts_in(done.stdout)
    if facts is None:
        raise StackError("The facts about this Mac can't be understood.")
    return facts


def facts_in(said: bytes) -> Facts | None:
    """The facts in what the script printed, after whatever a login shell did; None without any."""
    lines = [line for line in said.splitlines() if line.startswith(MARK.encode())]
    try:
        said = json.loads(lines[-1].removeprefix(MARK.encode()))
        return msgspec.convert(_in_one_line(said), Facts)
    except (IndexError, ValueError, RecursionError):
        return None


def _in_one_line(said: object) -> object:
    """The same, without what in its texts could begin a line of its own, or steer a terminal."""
    match said:
        case str():
            return one_line(said)
        case list():
            return [_in_one_line(each) for each in cast("list[object]", said)]
        case dict():
            fields = cast("dict[str, object]", said)
            return {one_line(name): _in_one_line(each) for name, each in fields.items()}
        case _:
            return said


def one_line(text: str) -> str:
    """A text of another Mac, as it can be shown in a sentence."""
    return _NO_PART_OF_A_LINE.sub("\ufffd", text)
