"""What to run, and where its state is kept: plain values."""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

MASK = "********"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Question(Protocol):
    """A request to which only the service itself can give the right answer."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the request."""
        ...

    def is_answered(self, headers: Mapping[str, str], /) -> bool:
        """Whether the answer with these headers, names in lower case, is the service's own."""
        ...


type Ask = Callable[[str, str], Question]
"""The question for a method and a path, made for each request."""


@dataclass(frozen=True, slots=True)
class HttpReadiness:
    """Where a service answers HTTP 200 once it is ready.

    Attributes:
        url: `http://host:port/path`.
        headers: Sent with every request; never shown, since they may contain a key.
        ask: Distinguishes the service from another process that answers at this address; None if
            nothing does.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    ask: Ask | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """Everything that starting a service needs, complete and explicit.

    Attributes:
        name: Names its state files; letters, digits, `.`, `_`, `-`.
        command: Program and arguments; never a secret, since every user can read them.
        env: The complete environment of the process; nothing is inherited.
        readiness: How to ask whether it is ready; None if it counts as ready as soon as it runs.
        secret_env: Names of the variables whose values are masked wherever text is shown.
        start_secret: The variable that holds a new secret with each start, which the run file keeps
            (`secret_of`); "" for none.
        fingerprint: What else it depends on, such as a digest of its configuration file; a running
            service whose fingerprint differs is out of date. Never a secret.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: Path
    readiness: HttpReadiness | None = None
    secret_env: frozenset[str] = frozenset()
    start_secret: str = ""
    fingerprint: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.command:
            raise ValueError(f"{self.name}: the command is empty")

    def mask(self, text: str) -> str:
        """`text` with every secret value replaced by asterisks."""
        secrets = {self.env.get(name, "") for name in self.secret_env} - {""}
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, MASK)
        return text

    def masked_command(self) -> tuple[str, ...]:
        """The command as it may be recorded and shown."""
        return tuple(self.mask(word) for word in self.command)

    def shell_line(self, env_names: frozenset[str] = frozenset()) -> str:
        """One shell line that would run the command, with secrets masked.

        Args:
            env_names: Variables to show before it; secret ones are masked.
        """
        shown = sorted(env_names & set(self.env))
        assignments = [
            f"{name}={MASK if name in self.secret_env else shlex.quote(self.env[name])}"
            for name in shown
        ]
        return " ".join([*assignments, shlex.join(self.masked_command())])


@dataclass(frozen=True, slots=True)
class StateDirs:
    """The three folders that keep the state of services between two commands."""

    pids: Path
    run: Path
    logs: Path

    def pid_file(self, name: str) -> Path:
        """`<pids>/<name>.pid`: exactly one integer and a newline."""
        return self.pids / f"{check_name(name)}.pid"

    def run_file(self, name: str) -> Path:
        """`<run>/<name>.json`: the information that the PID file can't hold."""
        return self.run / f"{check_name(name)}.json"

    def log_file(self, name: str) -> Path:
        """`<logs>/<name>.log`: what the service prints."""
        return self.logs / f"{check_name(name)}.log"

    @property
    def last_look_file(self) -> Path:
        """`<run>/last-look`: when a watchdog last looked, and what it found wedged."""
        return self.run / "last-look"

    def names(self) -> tuple[str, ...]:
        """The services that have a PID or run file, sorted; other files are ignored."""
        found = {path.stem for path in (*self.pids.glob("*.pid"), *self.run.glob("*.json"))}
        return tuple(sorted(name for name in found if _NAME.fullmatch(name)))

    def create(self) -> None:
        """Create the folders, private to this user, if they are missing."""
        for folder in (self.pids, self.run, self.logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def check_name(name: str) -> str:
    """Returns `name` if it can name a service and its files; otherwise raises ValueError."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} can't name a service")
    return name
