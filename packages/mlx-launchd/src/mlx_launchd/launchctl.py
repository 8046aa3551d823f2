"""launchctl's verbs, one call each; no judgement beyond what the exit code says."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlx_launchd.command import Run
from mlx_launchd.domain import Domain
from mlx_launchd.exit_codes import Situation, Verb, classify


@dataclass(frozen=True, slots=True)
class Answer:
    """What launchctl answered.

    Attributes:
        command: The command as it was run.
        returncode: Its exit code.
        stdout: Its standard output.
        text: Its standard error, stripped.
        situation: What the exit code means.
    """

    command: tuple[str, ...]
    returncode: int
    stdout: str
    text: str
    situation: Situation


@dataclass(frozen=True, slots=True)
class Launchctl:
    """launchctl, run through a given runner.

    `load`, `unload` and `start` are left out: they exit with 0 where they fail.

    Attributes:
        run: Runs a command.
        program: launchctl's name or path.
        privilege: Put before what changes a domain, `("sudo",)` for one; questions need no rights.
    """

    run: Run
    program: str = "launchctl"
    privilege: tuple[str, ...] = ()

    def print_domain(self, domain: Domain) -> Answer:
        """Ask whether a domain exists; its long text is best left alone."""
        return self._ask(Verb.PRINT, domain.target)

    def print_job(self, domain: Domain, label: str) -> Answer:
        """Ask for a job; the text is for parse_print."""
        return self._ask(Verb.PRINT, domain.service_target(label))

    def print_disabled(self, domain: Domain) -> Answer:
        """Ask for the labels switched on and off; the text is for parse_print_disabled."""
        return self._ask(Verb.PRINT_DISABLED, domain.target)

    def list_jobs(self, label: str | None = None) -> Answer:
        """Ask for all jobs of the caller's own domain, or one; the text is for parse_list."""
        return self._ask(Verb.LIST, *([] if label is None else [label]))

    def bootstrap(self, domain: Domain, plist: Path) -> Answer:
        """Load a job from its plist."""
        return self._change(Verb.BOOTSTRAP, domain.target, str(plist))

    def bootout(self, domain: Domain, label: str) -> Answer:
        """Tell a job to stop and unload it; it may still be there when this returns."""
        return self._change(Verb.BOOTOUT, domain.service_target(label))

    def enable(self, domain: Domain, label: str) -> Answer:
        """Switch a label on, across reboots, whether or not it is loaded."""
        return self._change(Verb.ENABLE, domain.service_target(label))

    def disable(self, domain: Domain, label: str) -> Answer:
        """Switch a label off, across reboots, whether or not it is loaded."""
        return self._change(Verb.DISABLE, domain.service_target(label))

    def kickstart(self, domain: Domain, label: str, *, kill: bool = False) -> Answer:
        """Start a loaded job now, with `kill` after ending the one that runs.

        The plist is not read again: a changed one needs bootout and bootstrap.
        """
        target = domain.service_target(label)
        return self._change(Verb.KICKSTART, *(["-k"] if kill else []), target)

    def _ask(self, verb: Verb, *arguments: str) -> Answer:
        return self._run(verb, (self.program, verb, *arguments))

    def _change(self, verb: Verb, *arguments: str) -> Answer:
        return self._run(verb, (*self.privilege, self.program, verb, *arguments))

    def _run(self, verb: Verb, command: Sequence[str]) -> Answer:
        words = tuple(str(word) for word in command)
        done = self.run(words)
        return Answer(
            command=words,
            returncode=done.returncode,
            stdout=done.stdout,
            text=done.stderr.strip(),
            situation=classify(verb, done.returncode),
        )
