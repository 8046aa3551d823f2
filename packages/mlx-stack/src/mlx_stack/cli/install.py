"""`mlx-stack install` and `uninstall`."""

import click

import mlx_launchd
from mlx_stack import autostart
from mlx_stack.cli.frame.context import Context, examples, with_context
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


@click.command("install")
@click.option("--system", is_flag=True, help="As a LaunchDaemon, which needs no login; needs sudo.")
@click.option(
    "--status", "only_status", is_flag=True, help="Show what is installed and whether it's running."
)
@with_context()
@examples("mlx-stack install", "sudo mlx-stack install --system")
def command(context: Context, *, system: bool, only_status: bool) -> None:
    """Run the watchdog at every login, or with --system at every boot.

    It starts the stack and keeps it up. Run it again after an upgrade: an installed watchdog is
    brought up to date. The power-cut verdict considers FileVault, automatic login, and the power
    settings.
    """
    output, mac = context.output, autostart.mac.this_mac()
    if only_status:
        output.show(autostart.status.read_install_status(context.home, mac), _show_status)
        return
    report = autostart.install.install(
        context.opened, mac, system=system, on_step=lambda step: _say_root_step(output, step)
    )
    output.show(report, _show_installed)


def _show_installed(output: Output, report: "autostart.install.InstallReport") -> None:
    words = {"installed": "Installed", "updated": "Brought up to date", "unchanged": "Up to date"}
    status = report.status
    when = "at boot" if status.kind == "daemon" else "at login"
    output.answer(f"{words[report.outcome]}: the watchdog starts {when} (PID {status.job.pid}).")
    output.answer(f"{status.plist}\nin {status.domain}, since {report.reason}\n")
    _show_outlook(output, status.outlook)


@click.command("uninstall")
@click.option("--system", is_flag=True, help="Only the LaunchDaemon of `install --system`.")
@click.option(
    "--status", "only_status", is_flag=True, help="Show what is installed; remove nothing."
)
@with_context()
@examples("mlx-stack uninstall", "mlx-stack uninstall --status")
def uninstall(context: Context, *, system: bool, only_status: bool) -> None:
    """Remove the watchdog from launchd, however it was installed.

    The services stay as they are: `mlx-stack down` stops them.
    """
    output, mac = context.output, autostart.mac.this_mac()
    if only_status:
        output.show(autostart.status.read_install_status(context.home, mac), _show_status)
        return

    def show(output: Output, done: "autostart.install.Uninstalled") -> None:
        if done.removed:
            output.answer("Uninstalled: launchd no longer starts the watchdog.")
            output.say("The services stay as they are; `mlx-stack down` stops them.")
        else:
            as_what = " as a LaunchDaemon" if system else ""
            output.answer(f"The watchdog was not installed{as_what}.")

    done = autostart.install.uninstall(
        context.home, mac, system=system, on_step=lambda step: _say_root_step(output, step)
    )
    output.show(done, show)


def _say_root_step(output: Output, step: str) -> None:
    """Name a command that needs root, word for word, before it is run."""
    output.hint(f"needs root: {step}")


def _show_outlook(output: Output, outlook: "mlx_launchd.BootOutlook") -> None:
    output.answer(_ANSWERS[outlook.comes_back], style="bold")
    for finding in outlook.findings:
        sign, colour = _SIGNS[finding.verdict]
        output.item(sign, finding.message, colour=colour, indent=2)
        if finding.fix and finding.verdict != "ok":
            output.item("→", finding.fix, style="dim", indent=4)


def _show_status(output: Output, status: "autostart.status.InstallStatus") -> None:
    output.answer(_describe_job(status) + "\n")
    _show_outlook(output, status.outlook)


def _describe_job(status: "autostart.status.InstallStatus") -> str:
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
