"""What a check reports, and all of them together."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from mlx_stack.errors import StackError

type Severity = Literal["ok", "info", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        check: A stable name such as `stale-pid`.
        severity: `problem` (something doesn't work), `warning` (something will not, or is risky),
            `info` (worth knowing), `ok`.
        reason: Why it matters; "" if that is obvious.
        fix: What to do; "" if there is nothing to do.
        repair: Does it, if that is safe; None if a person must.
        repaired: What to say once `repair` has done it.
    """

    check: str
    severity: Severity
    message: str
    reason: str = ""
    fix: str = ""
    repair: Callable[[], object] | None = field(default=None, repr=False, compare=False)
    repaired: str = ""

    def to_document(self) -> dict[str, object]:
        """The finding as JSON."""
        return {
            "check": self.check,
            "severity": self.severity,
            "message": self.message,
            "reason": self.reason,
            "fix": self.fix,
            "can_fix": self.repair is not None,
        }


def ok(check: str, message: str) -> Finding:
    """The result of a check that found nothing wrong."""
    return Finding(check, "ok", message)


def of_error(check: str, error: StackError, severity: Severity = "problem") -> Finding:
    """What an error says, as a finding."""
    return Finding(check, severity, error.message, fix=error.hint or "")


@dataclass(frozen=True, slots=True)
class Examination:
    """What the doctor found.

    Attributes:
        bundle: The file for a bug report, or None if none was asked for.
    """

    findings: tuple[Finding, ...]
    fixed: tuple[str, ...] = ()
    bundle: Path | None = None

    def count(self, severity: Severity) -> int:
        """How many findings are of that severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def is_well(self) -> bool:
        """Whether no problem is left."""
        return not self.count("problem")

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        severities: tuple[Severity, ...] = get_args(Severity.__value__)
        return {
            "ok": self.is_well,
            "counts": {severity: self.count(severity) for severity in severities},
            "findings": [finding.to_document() for finding in self.findings],
            "fixed": list(self.fixed),
            "bundle": str(self.bundle) if self.bundle else None,
        }
