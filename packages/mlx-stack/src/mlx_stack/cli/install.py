"""`mlx-stack install` and `uninstall`."""

from functools import partial

import click

import mlx_launchd
import mlx_stack
from mlx_stack import autostart
from mlx_stack.cli.frame.context import Context, confirm_or_stop, examples, with_context, wrapped
from mlx_stack.cli.frame.output import Output
from mlx_stack.errors import MissingError, UsageError
from mlx_stack.format import format_bytes

_SIGNS = {
    "ok": ("✓", "green"),
    "prevents": ("✗", "red"),
    "unknown": ("?", "yellow"),
    "warning": ("!", "yellow"),
}
_ANSWERS = {
    True: "After a power cut, the stack comes back by itself.",
    False: "After a power cut, the stack does not come back by itself.",
    None: "It isn't certain that the stack comes back by itself after a power cut.",
}


@click.command("install")
@click.option(
    "--system", is_flag=True, help="Install a LaunchDaemon, which runs without a login; needs sudo."
)
@click.option(
    "--status", "only_status", is_flag=True, help="Show what is installed and whether it's running."
)
@with_context()
@examples("mlx-stack install", "mlx-stack install --system")
def command(context: Context, *, system: bool, only_status: bool) -> None:
    """Run the watchdog at every login, or with --system at every boot.

    The watchdog starts the stack and keeps it running. Run this again after an upgrade to update an
    installed watchdog. This also shows whether the stack would come back after a power cut, based
    on FileVault, automatic login and the power settings.
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
@click.option("--system", is_flag=True, help="Only remove the LaunchDaemon of `install --system`.")
@click.option(
    "--status", "only_status", is_flag=True, help="Show what is installed; remove nothing."
)
@click.option("--all", "everything", is_flag=True, help="Remove everything but the program itself.")
@click.option("--models", is_flag=True, help="With --all: delete the downloaded models, too.")
@click.option("--yes", "-y", "is_confirmed", is_flag=True, help="With --all: don't ask.")
@with_context()
@examples("mlx-stack uninstall", "mlx-stack uninstall --all")
def uninstall(
    context: Context,
    *,
    system: bool,
    only_status: bool,
    everything: bool,
    models: bool,
    is_confirmed: bool,
) -> None:
    """Remove the watchdog from launchd, however it was installed.

    The services keep running: `mlx-stack down` stops them. With --all, the services are stopped,
    connected clients get their own configuration back, and the state folder is deleted. Downloaded
    models are kept unless you say otherwise.
    """
    if everything:
        if system or only_status:
            raise UsageError("--all can't be combined with --system or --status.")
        _uninstall_all(context, with_models=models, is_confirmed=is_confirmed)
        return
    if models or is_confirmed:
        raise UsageError("--models and --yes need --all.")
    output, mac = context.output, autostart.mac.this_mac()
    if only_status:
        output.show(autostart.status.read_install_status(context.home, mac), _show_status)
        return

    def show(output: Output, done: "autostart.install.Uninstalled") -> None:
        if done.removed:
            output.answer("Uninstalled: launchd no longer starts the watchdog.")
            output.say("The services keep running; `mlx-stack down` stops them.")
        else:
            as_what = " as a LaunchDaemon" if system else ""
            output.answer(f"The watchdog was not installed{as_what}.")

    done = autostart.install.uninstall(
        context.home, mac, system=system, on_step=lambda step: _say_root_step(output, step)
    )
    output.show(done, show)


def _uninstall_all(context: Context, *, with_models: bool, is_confirmed: bool) -> None:
    output, operation = context.output, mlx_stack.uninstall
    found = operation.find_footprint(context.opened)
    if not is_confirmed:
        if not context.may_ask:
            raise UsageError("Removing everything has to be confirmed.", hint="Add --yes.")
        steps = ["stops the services"]
        if found.clients:
            steps.append(f"restores {_count(len(found.clients), 'connected client')}")
        confirm_or_stop(
            f"This {', '.join(steps)} and deletes {context.home.root} except for the models. "
            "Continue?",
            default=False,
        )
        if found.models and not with_models:
            what = _count(len(found.models), "downloaded model")
            size = format_bytes(found.models_bytes)
            question = f"Delete {what} ({size}) in {found.model_dir}, too?"
            with_models = click.confirm(wrapped(question), default=False, err=True)
    try:
        mac = autostart.mac.this_mac()
    except MissingError:  # without launchd, nothing can be registered there
        mac = None
    done = operation.uninstall_all(
        context.opened,
        mac,
        with_models=with_models,
        on_step=partial(_say_root_step, output),
    )
    output.show(done, _show_removed)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _show_removed(output: Output, done: "mlx_stack.uninstall.RemovedAll") -> None:
    stopped = [each for each in done.services.services if each.outcome in ("stopped", "forced")]
    lines = (
        (bool(done.jobs), "The watchdog is no longer registered with launchd."),
        (bool(stopped), f"Stopped {_count(len(stopped), 'service')}."),
        (bool(done.clients), f"Restored the configuration of {', '.join(done.clients)}."),
        (bool(done.models), f"Deleted {_count(len(done.models), 'model')}."),
    )
    for is_true, line in lines:
        if is_true:
            output.item("✓", line, colour="green")
    output.answer("Nothing of the stack is left." if not done.kept else "Still there:")
    for path in done.kept:
        output.text(f"  {path}")
    output.say("To remove the program too: `uv tool uninstall mlx-stack`, or as you installed it.")


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
