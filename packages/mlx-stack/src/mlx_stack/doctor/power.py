"""Sleep, power cuts and launchd: whether the stack would come back by itself."""

from collections.abc import Iterator

from mlx_stack.autostart.mac import this_mac
from mlx_stack.autostart.status import read_install_status
from mlx_stack.doctor.finding import Finding, Severity, ok
from mlx_stack.errors import MissingError
from mlx_stack.home import Home

_SEVERITIES: dict[str, Severity] = {
    "ok": "ok",
    "prevents": "warning",
    "warning": "warning",
    "unknown": "info",
}


def check_power(home: Home) -> Iterator[Finding]:
    """What `install --status` knows; nothing where there is no launchd.

    Raises:
        LaunchdError: launchctl does not answer.
    """
    try:
        mac = this_mac()
    except MissingError:
        return
    status = read_install_status(home, mac)
    if status.kind is None:
        yield Finding(
            "launchd",
            "info",
            "The watchdog is not installed: nothing starts the stack after a reboot.",
            fix="mlx-stack install",
        )
    elif not status.running:
        how = f"it last {status.last_end}" if status.last_end else status.state or "not loaded"
        if status.missing_program is not None:
            how = f"its program {status.missing_program} is gone"
        yield Finding(
            "launchd",
            "problem",
            f"The watchdog is installed and does not run ({how}).",
            fix="mlx-stack install, then mlx-stack logs watchdog",
        )
    else:
        yield ok("launchd", f"The watchdog runs under launchd (PID {status.pid}).")
    for finding in status.findings:
        severity = _SEVERITIES[finding.verdict]
        yield Finding(f"boot-{finding.name}", severity, finding.message, fix=finding.fix)
