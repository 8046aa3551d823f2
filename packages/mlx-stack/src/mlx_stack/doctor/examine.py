"""All checks, one after the other; a check that fails is a finding too."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from mlx_hwprobe import HwprobeError
from mlx_launchd import LaunchdError
from mlx_procsup import SupervisionError
from mlx_stack.doctor import machine, running, state
from mlx_stack.doctor.finding import Examination, Finding
from mlx_stack.errors import NoStackError, StackError
from mlx_stack.open_stack import OpenStack

FAILED_CHECK = "check-failed"
"""The finding of a check that could not be made."""

type Check = Callable[[], Iterator[Finding]]


def examine(opened: OpenStack, *, fix: bool = False) -> Examination:
    """The findings of every check, those about services first.

    With `fix`, they are what is left after fixing what can be fixed safely.

    Safe are modes of our own files, PID files of processes that are gone, conversations on disk
    that no tier keeps, old engine installations, which are removed, and engines that are missing or
    damaged, which are installed.
    No service is started, stopped or restarted.
    """
    found = _without_repeats(
        finding for check in _checks(opened, fix=fix) for finding in _made(check)
    )
    findings = tuple(sorted(found, key=lambda finding: finding.check != running.SERVICE))
    fixed = [finding for finding in findings if fix and _repair(finding)]
    return Examination(
        tuple(
            replace(
                finding,
                severity="ok",
                message=finding.repaired or f"Fixed: {finding.message}",
                repair=None,
            )
            if finding in fixed
            else finding
            for finding in findings
        ),
        tuple(finding.check for finding in fixed),
    )


def _checks(opened: OpenStack, *, fix: bool) -> tuple[Check, ...]:
    home = opened.home
    return (
        machine.check_machine,
        lambda: state.check_permissions(home),
        lambda: state.check_files(opened),
        lambda: machine.check_disk(home.root, opened.config.model_dir),
        lambda: state.check_exposure(opened),
        lambda: running.check_engines(home, reads_files=fix),
        lambda: running.check_models(opened),
        lambda: running.check_kept_prompts(opened),
        lambda: running.check_aliases(opened),
        lambda: running.check_ports(opened),
        lambda: running.check_node_door(opened),
        lambda: running.check_hosts(opened),
        lambda: running.check_leftovers(home),
        lambda: running.check_panics(opened),
        lambda: running.check_speed(opened),
        running.check_hub,
        lambda: machine.check_power(home),
        machine.check_man_page,
        lambda: running.check_services(opened),
    )


def _made(check: Check) -> Iterator[Finding]:
    try:
        yield from check()
    except NoStackError:
        return  # `state.check_files` says so
    except (StackError, SupervisionError, HwprobeError, LaunchdError, OSError) as error:
        hint = getattr(error, "hint", None)
        yield Finding(FAILED_CHECK, "problem", str(error), fix=hint or "")


def _without_repeats(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Without what has been reported already, such as a damaged file that several checks read."""
    reported: set[str] = set()
    for finding in findings:
        if finding.check != FAILED_CHECK or finding.message not in reported:
            yield finding
        reported.add(finding.message)


def _repair(finding: Finding) -> bool:
    if finding.repair is None:
        return False
    try:
        finding.repair()
    except (OSError, SupervisionError, StackError):
        return False
    return True
