"""All checks, one after the other; a check that can't be made is a finding too."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from mlx_hwprobe import HwprobeError
from mlx_launchd import LaunchdError
from mlx_procsup import SupervisionError
from mlx_stack.doctor import hub, machine, power, running, state
from mlx_stack.doctor.finding import Finding
from mlx_stack.errors import NoStackError, StackError
from mlx_stack.open_stack import OpenStack

FAILED_CHECK = "check-failed"
"""A check that could not be made."""

type Check = Callable[[], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Examination:
    """What the doctor found.

    Attributes:
        findings: In the order of the checks.
        mended: The checks whose findings were put right.
    """

    findings: tuple[Finding, ...]
    mended: tuple[str, ...] = ()

    @property
    def is_well(self) -> bool:
        """Whether no problem is left."""
        return not any(finding.severity == "problem" for finding in self.findings)

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        counts = {"problem": 0, "warning": 0, "info": 0, "ok": 0}
        for finding in self.findings:
            counts[finding.severity] += 1
        return {
            "ok": self.is_well,
            "counts": counts,
            "findings": [finding.to_document() for finding in self.findings],
            "fixed": list(self.mended),
        }


def examine(opened: OpenStack, *, fix: bool = False) -> Examination:
    """Make every check; with `fix`, put right what is safe to put right.

    Safe are modes of our own files and PID files of processes that are gone. Nothing is installed,
    downloaded, stopped or restarted.
    """
    findings = tuple(_told_once(finding for check in _checks(opened) for finding in _made(check)))
    if not fix:
        return Examination(findings)
    mended = [finding for finding in findings if finding.mend is not None and _mend(finding)]
    after = tuple(
        replace(finding, severity="ok", message=f"{finding.message} Put right.", mend=None)
        if finding in mended
        else finding
        for finding in findings
    )
    return Examination(after, tuple(finding.check for finding in mended))


def _checks(opened: OpenStack) -> tuple[Check, ...]:
    home = opened.home
    return (
        machine.check_machine,
        lambda: state.check_permissions(home),
        lambda: state.check_files(opened),
        lambda: machine.check_disk(home.root, opened.config.model_dir),
        lambda: state.check_exposure(opened),
        lambda: running.check_engines(home),
        lambda: running.check_models(opened),
        lambda: running.check_ports(opened),
        lambda: running.check_leftovers(home),
        running.check_tools,
        hub.check_hub,
        lambda: power.check_power(home),
    )


def _made(check: Check) -> Iterator[Finding]:
    try:
        yield from check()
    except NoStackError:
        return  # `state.check_files` says so
    except (StackError, SupervisionError, HwprobeError, LaunchdError, OSError) as error:
        hint = getattr(error, "hint", None)
        yield Finding(FAILED_CHECK, "problem", str(error), fix=hint or "")


def _told_once(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Without what several checks stumbled over, such as a damaged file that all of them read."""
    told: set[str] = set()
    for finding in findings:
        if finding.check != FAILED_CHECK or finding.message not in told:
            yield finding
        told.add(finding.message)


def _mend(finding: Finding) -> bool:
    assert finding.mend is not None
    try:
        finding.mend()
    except (OSError, SupervisionError):
        return False
    return True
