"""A command on another Mac, over the user's own ssh: with keys only, and bounded.

What goes wrong is said in words, with the command that fixes it.
"""

import shlex
import subprocess
import threading
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Self

from mlx_stack.child_environment import inherited_environment
from mlx_stack.errors import MissingError, StackError

OPTIONS = (
    *("-o", "BatchMode=yes"),
    *("-o", "StrictHostKeyChecking=yes"),
    *("-o", "ConnectTimeout=10"),
    # a connection whose other end is gone ends after a quarter of a minute
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
    *("-o", "ForwardAgent=no", "-o", "ForwardX11=no", "-o", "ClearAllForwardings=yes"),
    *("-o", "ControlMaster=no"),  # one that is there is used, none is left behind
    *("-o", "RemoteCommand=none", "-o", "RequestTTY=no", "-o", "LogLevel=INFO"),
)
"""Never a question, never a password, never an unknown Mac, and nothing but the command."""
_MOST_LINES, _LONGEST_LINE = 40, 500
_NOT_CONNECTED = 255
"""What `ssh` exits with where it failed itself."""
_CHUNK_BYTES = 65536


class SshError(StackError):
    """A command can't be run on another Mac, or not to its end.

    Attributes:
        host: The Mac, as `ssh` calls it.
        code: What the command exited with; None where it didn't.
    """

    type = "ssh"

    def __init__(
        self, host: str, message: str, *, hint: str | None = None, code: int | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.host = host
        self.code = code


def ssh_command(host: str, command: Sequence[str]) -> tuple[str, ...]:
    """The command line that runs `command` on `host`, word for word.

    Args:
        host: As `stack.SshName` allows it.
        command: Without backslashes, which not every login shell reads alike.
    """
    return ("ssh", *OPTIONS, "--", host, shlex.join(command))


def ssh_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """What `ssh` may see of the caller's environment: the agent that holds its keys as well."""
    inherited = inherited_environment(variables, also=frozenset({"SSH_AUTH_SOCK"}))
    return {**inherited, "LC_ALL": "C"}  # so that its messages are those that are known here


def host_name(host: str, variables: Mapping[str, str]) -> str:
    """What `host` stands for in the user's configuration: a host name, or an address.

    Raises:
        MissingError: When there is no `ssh` on this Mac.
    """
    try:
        done = subprocess.run(
            ("ssh", "-G", "--", host),  # noqa: S607 - the user's own, as on their PATH
            env=ssh_environment(variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except FileNotFoundError as error:
        raise _no_ssh() from error
    except subprocess.TimeoutExpired:
        return host
    found = (line.split() for line in done.stdout.splitlines() if line.startswith("hostname "))
    return next((words[1] for words in found if len(words) == 2), host.rpartition("@")[2])


class Connection:
    """A command that runs on another Mac, for as long as the `with` block does at most.

    Args:
        host: As `stack.SshName` allows it.
        variables: The caller's environment.
        silent_s: It is ended when nobody has called `stir` for so long.

    Attributes:
        stdin: What it reads.
        stdout: What it writes; untrusted.

    Raises:
        MissingError: When there is no `ssh` on this Mac.
    """

    def __init__(
        self,
        host: str,
        command: Sequence[str],
        variables: Mapping[str, str],
        *,
        silent_s: float,
    ) -> None:
        self.host = host
        self._silent_s = silent_s
        try:
            self._process = subprocess.Popen(
                ssh_command(host, command),
                env=ssh_environment(variables),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except FileNotFoundError as error:
            raise _no_ssh() from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.stdin, self.stdout = self._process.stdin, self._process.stdout
        self._said: deque[str] = deque(maxlen=_MOST_LINES)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._silence: threading.Timer | None = None
        self._was_silent = False

    def __enter__(self) -> Self:
        self._listener.start()
        self.stir()
        together: _Together | None = getattr(_thread, "together", None)
        if together is not None:
            together.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._silence is not None:
            self._silence.cancel()
        self._process.kill()
        with suppress(OSError):
            self.stdin.close()
        self.stdout.close()
        self._process.wait()
        self._listener.join(timeout=1.0)  # what `ssh` itself started may still hold its stderr

    def stir(self) -> None:
        """Something came or went: the time that it may be silent begins again."""
        if self._silence is not None:
            self._silence.cancel()
        self._silence = threading.Timer(self._silent_s, self._give_up)
        self._silence.daemon = True
        self._silence.start()

    def stop(self) -> None:
        """End it, whoever waits for it."""
        self._process.kill()

    def end(self) -> SshError | None:
        """Why it failed, once it has ended; None where it did well. What it writes is lost."""
        with suppress(OSError):
            self.stdin.close()
        while self.stdout.read(_CHUNK_BYTES):
            pass
        code = self._process.wait()
        if self._was_silent:
            return SshError(
                self.host,
                f"{self.host} has not answered for {self._silent_s:.0f} s.",
                hint=f"Is it awake, and the cable in? `ssh {self.host} true` shows.",
            )
        if code == 0:
            return None
        self._listener.join(timeout=1.0)
        return failure_in(self.host, code, tuple(self._said))

    def _give_up(self) -> None:
        self._was_silent = True
        self._process.kill()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            for line in iter(lambda: stderr.readline(_LONGEST_LINE), b""):
                if words := line.decode(errors="replace").strip():
                    self._said.append(words)


class _Together:
    """The connections of threads that are ended together."""

    def __init__(self) -> None:
        self._connections: list[Connection] = []
        self._lock = threading.Lock()
        self._has_ended = False

    def join(self) -> None:
        """Have the connections of this thread belong to them."""
        _thread.together = self

    def add(self, connection: Connection) -> None:
        """One more; it is ended at once if the others are."""
        with self._lock:
            self._connections.append(connection)
            if self._has_ended:
                connection.stop()

    def end(self) -> None:
        """End those that are open, and those that are still to come."""
        with self._lock:
            self._has_ended = True
            for each in self._connections:
                each.stop()


_thread = threading.local()


@contextmanager
def threads(count: int) -> Generator[ThreadPoolExecutor]:
    """Threads that talk to other Macs: what interrupts the block ends their connections."""
    together = _Together()
    with ThreadPoolExecutor(max_workers=count, initializer=together.join) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            together.end()
            raise


def ask(
    host: str,
    command: Sequence[str],
    variables: Mapping[str, str],
    *,
    given: bytes = b"",
    within_s: float = 30.0,
    most_bytes: int = 1 << 20,
) -> bytes:
    """What `command` writes on `host`, once it has ended well.

    Args:
        given: What it reads; it may end before it has read all.
        within_s: It is ended after so long.
        most_bytes: More than that is no answer.

    Raises:
        SshError: When it can't be run, fails, takes too long or writes too much.
        MissingError: When there is no `ssh` on this Mac.
    """
    with Connection(host, command, variables, silent_s=within_s) as opened:
        writer = threading.Thread(target=_give, args=(opened.stdin, given), daemon=True)
        writer.start()
        answer = opened.stdout.read(most_bytes + 1)
        if len(answer) > most_bytes:
            raise SshError(host, f"{host} answers with more than {most_bytes} bytes.")
        writer.join()
        failure = opened.end()
    if failure is not None:
        raise failure
    return answer


def _give(stdin: IO[bytes], given: bytes) -> None:
    with suppress(OSError):  # it ended before it had read all, or the connection is gone
        stdin.write(given)
    with suppress(OSError):
        stdin.close()


def failure_in(host: str, code: int, said: Sequence[str]) -> SshError:
    """What a command on `host` that exited with `code` failed of, by what it and `ssh` said."""
    text = "\n".join(said)
    last = said[-1] if said else f"exit code {code}"
    if code != _NOT_CONNECTED:
        return SshError(host, f"A command on {host} failed: {last}", code=code)
    for each in _FAILURES:
        if any(fragment in text for fragment in each.fragments):
            return SshError(host, each.message.format(host=host), hint=each.hint.format(host=host))
    return SshError(
        host, f"The connection to {host} failed: {last}", hint=f"`ssh -v {host}` shows why."
    )


def _no_ssh() -> MissingError:
    return MissingError("There is no `ssh` on this machine.")


@dataclass(frozen=True, slots=True)
class _Failure:
    """What the client says, what it means, and what to do."""

    fragments: tuple[str, ...]
    message: str
    hint: str


_FAILURES = (
    _Failure(
        ("REMOTE HOST IDENTIFICATION HAS CHANGED", "host key has just been changed"),
        "{host} has another host key than the one that is known here: it was set up again, or "
        "another machine answers instead of it.",
        "Look there: `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`. If it is that Mac, "
        "`ssh-keygen -R` with its host name forgets the former key, and `ssh {host}` shows the "
        "new one.",
    ),
    _Failure(
        ("host key is known for", "Host key verification failed"),
        "The host key of {host} is not known here.",
        "`ssh {host}` shows it once; compare it with the one there: "
        "`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`.",
    ),
    _Failure(
        ("Permission denied", "Too many authentication failures"),
        "{host} asks for a password.",
        "`ssh-copy-id {host}` puts your key there; `ssh-keygen` makes one first, if you have none. "
        "A key with a passphrase must be in the agent: `ssh-add`.",
    ),
    _Failure(
        ("Could not resolve hostname",),
        "There is no address for {host}.",
        "Is the name right? It is the name of a Mac, or an alias in ~/.ssh/config.",
    ),
    _Failure(
        ("Connection refused",),
        "{host} doesn't accept logins over ssh.",
        "Turn on Remote Login there: System Settings, General, Sharing.",
    ),
    _Failure(
        ("No route to host", "Network is unreachable", "Host is down"),
        "There is no route to {host}.",
        "Is it awake, and the cable in? `ping` with its host name tells.",
    ),
    _Failure(
        ("timed out", "not responding"),
        "{host} does not answer.",
        "Is it awake, and on this network? `ssh {host} true` shows.",
    ),
    _Failure(
        ("Connection closed", "Connection reset", "Broken pipe", "closed by remote host"),
        "The connection to {host} broke off.",
        "Is it awake, and the cable in? `ssh {host} true` shows.",
    ),
)
"""The first that fits."""
