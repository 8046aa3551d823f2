"""`mlx-stack install`."""

from typing import TYPE_CHECKING

import click

from mlx_stack.cli.frame.context import Context, json_option, open_context, quiet_option

if TYPE_CHECKING:
    from mlx_stack.autostart.install import InstallReport


@click.command("install")
@click.option("--system", is_flag=True, help="As a LaunchDaemon, which needs no login; takes sudo.")
@click.option(
    "--status", "only_status", is_flag=True, help="Tell what is installed and how it does."
)
@json_option
@quiet_option
def command(*, system: bool, only_status: bool, json: bool, quiet: bool) -> None:
    """Run the watchdog at every login, or with --system at every boot.

    It starts the stack and keeps it up. Run it again after an upgrade: an installed watchdog is
    brought up to date. What is said of a power cut looks at FileVault, automatic login, and the
    power settings.
    """
    from mlx_stack.autostart.install import install
    from mlx_stack.autostart.mac import this_mac
    from mlx_stack.autostart.status import read_install_status
    from mlx_stack.cli.views.launchd import show_status, step_teller

    context = open_context(json=json, quiet=quiet)
    mac = this_mac()
    if only_status:
        show_status(context.output, read_install_status(context.home, mac), json=json)
        return

    report = install(context.opened, mac, system=system, on_step=step_teller(context.output))
    if json:
        context.output.document(report.to_document())
    else:
        _show_report(context, report)


def _show_report(context: Context, report: "InstallReport") -> None:
    from mlx_stack.cli.views.launchd import show_outlook

    words = {"installed": "Installed", "updated": "Brought up to date", "unchanged": "Up to date"}
    output, status = context.output, report.status
    when = "at boot" if status.kind == "daemon" else "at login"
    output.answer(f"{words[report.outcome]}: the watchdog starts {when} (PID {status.job.pid}).")
    output.answer(f"{status.plist}\nin {status.domain}, since {report.reason}\n")
    show_outlook(output, status.outlook)
