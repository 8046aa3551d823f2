"""Take the watchdog away from launchd, whichever way it was installed."""

from mlx_stack.autostart.job import job_label
from mlx_stack.autostart.mac import JobKind, Mac, RootStepHandler, ask_for_rights, is_present
from mlx_stack.home import Home


def uninstall(
    home: Home, mac: Mac, *, system: bool = False, on_step: RootStepHandler = lambda _: None
) -> tuple[JobKind, ...]:
    """Remove the watchdog from launchd; the services stay as they are.

    Args:
        home: Where the stack is.
        mac: The machine.
        system: Only the LaunchDaemon; an agent stays.
        on_step: Told of each command that needs root, before it is run.

    Returns:
        What was there and is gone.

    Raises:
        LaunchdError: launchd does not let the job go.
        StackError: sudo gave no rights.
    """
    label = job_label(home, mac.user_home)
    removed: list[JobKind] = []
    if not system and mac.agent_installer(mac.session().uid).uninstall(label):
        removed.append("agent")
    daemon = mac.daemon_installer(home)
    if is_present(daemon, label):
        ask_for_rights(mac, on_step, mac.removal_steps(home, label))
        daemon.uninstall(label)
        removed.append("daemon")
    return tuple(removed)
