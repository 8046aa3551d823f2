"""`mlx-stack install`."""

import click

from mlx_stack import autostart
from mlx_stack.cli.frame.context import Context, with_context
from mlx_stack.cli.frame.output import Output
from mlx_stack.cli.views.launchd import say_root_step, show_outlook, show_status


@click.command("install")
@click.option("--system", is_flag=True, help="As a LaunchDaemon, which needs no login; takes sudo.")
@click.option(
    "--status", "only_status", is_flag=True, help="Tell what is installed and how it does."
)
@with_context()
def command(context: Context, *, system: bool, only_status: bool) -> None:
    """Run the watchdog at every login, or with --system at every boot.

    It starts the stack and keeps it up. Run it again after an upgrade: an installed watchdog is
    brought up to date. What is said of a power cut looks at FileVault, automatic login, and the
    power settings.
    """
    output, mac = context.output, autostart.mac.this_mac()
    if only_status:
        output.show(autostart.status.read_install_status(context.home, mac), show_status)
        return
    report = autostart.install.install(
        context.opened, mac, system=system, on_step=say_root_step(output)
    )
    output.show(report, _show)


def _show(output: Output, report: "autostart.install.InstallReport") -> None:
    words = {"installed": "Installed", "updated": "Brought up to date", "unchanged": "Up to date"}
    status = report.status
    when = "at boot" if status.kind == "daemon" else "at login"
    output.answer(f"{words[report.outcome]}: the watchdog starts {when} (PID {status.job.pid}).")
    output.answer(f"{status.plist}\nin {status.domain}, since {report.reason}\n")
    show_outlook(output, status.outlook)
