"""How `install` shows a job, and whether a Mac would come back after a power cut."""

from collections.abc import Callable

import mlx_launchd
from mlx_stack import autostart
from mlx_stack.cli.frame.output import Output

_SIGNS = {
    "ok": ("✓", "green"),
    "prevents": ("✗", "red"),
    "unknown": ("?", "yellow"),
    "warning": ("!", "yellow"),
}
_ANSWERS = {
    True: "After a power cut the stack comes back by itself.",
    False: "After a power cut the stack does not come back by itself.",
    None: "Whether the stack comes back by itself after a power cut is not certain.",
}


def show_outlook(output: Output, outlook: "mlx_launchd.BootOutlook") -> None:
    """The answer in one sentence, and below it what it depends on and what to change."""
    output.answer(_ANSWERS[outlook.comes_back], style="bold")
    for finding in outlook.findings:
        sign, colour = _SIGNS[finding.verdict]
        output.item(sign, finding.message, colour=colour, indent=2)
        if finding.fix and finding.verdict != "ok":
            output.item("→", finding.fix, style="dim", indent=4)


def say_root_step(output: Output) -> Callable[[str], None]:
    """What names each command that needs root, word for word, before it is run."""
    return lambda step: output.hint(f"needs root: {step}")


def show_status(output: Output, status: "autostart.status.InstallStatus") -> None:
    """What is installed, how it does, and whether it would come back."""
    output.answer(_describe_job(status) + "\n")
    show_outlook(output, status.outlook)


def _describe_job(status: "autostart.status.InstallStatus") -> str:
    """The job in a few lines."""
    if status.kind is None:
        return "The watchdog is not installed; run `mlx-stack install`."
    what = "LaunchDaemon" if status.kind == "daemon" else "LaunchAgent"
    lines = [f"The watchdog is installed as a {what}: {status.plist or 'its file is missing'}"]
    if status.domain is None:
        off = ", and it is switched off in Login Items" if status.disabled else ""
        lines.append(f"launchd has not loaded it{off}: `mlx-stack install` loads it.")
    elif status.running:
        lines.append(f"It runs (PID {status.job.pid}), loaded in {status.domain}.")
    else:
        lines.append(f"It is loaded in {status.domain} and is not running: {status.job.state}.")
    if status.last_end is not None:
        lines.append(f"It last {status.last_end}.")
    return "\n".join(lines)
