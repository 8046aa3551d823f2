"""launchctl's verbs, one call each, interpreted only by their exit codes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlx_launchd.command import CommandRunner
from mlx_launchd.domain import Domain
from mlx_launchd.exit_codes import LaunchctlStatus, Verb, classify


@dataclass(frozen=True, slots=True)
class LaunchctlAnswer:
    """launchctl's answer.

    Attributes:
        status: The meaning of the exit code.
    """

    command: tuple[str, ...]
    returncode: int
    stdout: str
    text: str
    status: LaunchctlStatus


PROGRAM = "/bin/launchctl"
"""Where macOS has it, for what runs as root."""


@dataclass(frozen=True, slots=True)
class Launchctl:
    """launchctl, run through a given runner.

    `load`, `unload` and `start` are left out, because they exit with 0 even if they fail.

    Attributes:
        program: launchctl's name or path.
        privilege: Put before commands that change a domain, such as `("sudo",)`; questions need no
            permission.
    """

    run: CommandRunner
    program: str = "launchctl"
    privilege: tuple[str, ...] = ()

    def print_domain(self, domain: Domain) -> LaunchctlAnswer:
        """Whether a domain exists; its long text is best not parsed."""
        return self._ask(Verb.PRINT, domain.target)

    def print_job(self, domain: Domain, label: str) -> LaunchctlAnswer:
        """A job; the text is for parse_print."""
        return self._ask(Verb.PRINT, domain.service_target(label))

    def print_disabled(self, domain: Domain) -> LaunchctlAnswer:
        """The enabled and disabled labels; the text is for parse_print_disabled."""
        return self._ask(Verb.PRINT_DISABLED, domain.target)

    def bootstrap(self, domain: Domain, plist: Path) -> LaunchctlAnswer:
        """Load a job from its plist."""
        return self._change(Verb.BOOTSTRAP, domain.target, str(plist))

    def bootout(self, domain: Domain, label: str) -> LaunchctlAnswer:
        """Stop a job and unload it; it may still exist when this returns."""
        return self._change(Verb.BOOTOUT, domain.service_target(label))

    def enable(self, domain: Domain, label: str) -> LaunchctlAnswer:
        """Enable a label, across reboots, whether or not it is loaded."""
        return self._change(Verb.ENABLE, domain.service_target(label))

    def kickstart(self, domain: Domain, label: str) -> LaunchctlAnswer:
        """Start a loaded job now; a changed plist is not read again."""
        return self._change(Verb.KICKSTART, domain.service_target(label))

    def _ask(self, verb: Verb, *arguments: str) -> LaunchctlAnswer:
        return self._run(verb, (self.program, verb, *arguments))

    def _change(self, verb: Verb, *arguments: str) -> LaunchctlAnswer:
        # sudo would look for a bare name on the user's PATH
        program = (*self.privilege, PROGRAM) if self.privilege else (self.program,)
        return self._run(verb, (*program, verb, *arguments))

    def _run(self, verb: Verb, command: Sequence[str]) -> LaunchctlAnswer:
        words = tuple(str(word) for word in command)
        done = self.run(words)
        return LaunchctlAnswer(
            command=words,
            returncode=done.returncode,
            stdout=done.stdout,
            text=done.stderr.strip(),
            status=classify(verb, done.returncode),
        )
