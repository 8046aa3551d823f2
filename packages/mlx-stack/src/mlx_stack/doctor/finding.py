"""What a check reports."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

type Severity = Literal["ok", "info", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: Which check this is, a stable name such as `state-folder-mode`.
        severity: `problem` (something doesn't work), `warning` (something will not, or is risky),
            `info` (worth knowing), `ok`.
        message: What was found, one sentence.
        reason: Why it matters; "" where that is plain.
        fix: What to do; "" where there is nothing to do.
        mend: Does it, where that is safe; None where a person must.
    """

    check: str
    severity: Severity
    message: str
    reason: str = ""
    fix: str = ""
    mend: Callable[[], None] | None = field(default=None, repr=False, compare=False)

    def to_document(self) -> dict[str, object]:
        """The finding as JSON."""
        return {
            "check": self.check,
            "severity": self.severity,
            "message": self.message,
            "reason": self.reason,
            "fix": self.fix,
            "can_fix": self.mend is not None,
        }


def ok(check: str, message: str) -> Finding:
    """A check that found nothing wrong."""
    return Finding(check, "ok", message)
