"""`mlx-stack watch`."""

import click

from mlx_procsup.defaults import LOOK_INTERVAL_S, MAX_RESTARTS, RESTART_DELAY_S
from mlx_stack import exit_codes
from mlx_stack.cli.frame.context import json_lines_option, json_option, open_context, quiet_option
from mlx_stack.cli.frame.output import Output
from mlx_stack.errors import UsageError


@click.command("watch")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.1),
    default=LOOK_INTERVAL_S,
    show_default=True,
    metavar="SECONDS",
    help="The time between two looks at the services.",
)
@click.option(
    "--max-restarts",
    type=click.IntRange(min=0),
    default=MAX_RESTARTS,
    show_default=True,
    metavar="N",
    help="More restarts than this in a short time mean flapping: it gives up until you act.",
)
@click.option(
    "--restart-delay",
    "restart_delay_s",
    type=click.FloatRange(min=0),
    default=RESTART_DELAY_S,
    show_default=True,
    metavar="SECONDS",
    help="The pause before a restart; it doubles with each that follows.",
)
@click.option("--daemon", is_flag=True, help="Watch in the background.")
@click.option("--up", "start_first", is_flag=True, help="Start first what `down` did not stop.")
@json_option
@json_lines_option
@quiet_option
def command(
    interval_s: float,
    max_restarts: int,
    restart_delay_s: float,
    *,
    daemon: bool,
    start_first: bool,
    json: bool,
    json_lines: bool,
    quiet: bool,
) -> int:
    """Restart services that crash or hang, until interrupted.

    What `down` stopped stays stopped. Every decision is printed and kept in the watchdog's log
    (`mlx-stack logs watchdog`). `--json` is for `--daemon`, `--json-lines` for watching.
    """
    from mlx_stack.services.watch import WatchOptions

    context = open_context(json=json, quiet=quiet)
    options = WatchOptions(interval_s, max_restarts, restart_delay_s, start_first)
    if json and not daemon:
        raise UsageError("A watch has no end to report.", hint="Use --json-lines.")
    if daemon:
        from mlx_stack.services.watch import start_daemon

        pid, is_new = start_daemon(context.opened, options)
        _report_daemon(context.output, pid, is_new=is_new)
        return exit_codes.DONE
    from mlx_procsup import WatchEvent
    from mlx_stack.cli.frame.endless import until_interrupted
    from mlx_stack.services.watch import describe, watch

    def show(event: WatchEvent) -> None:
        if json_lines:
            from dataclasses import asdict

            context.output.event(asdict(event))
        else:
            context.output.text(describe(event))

    with until_interrupted():
        watch(context.opened, options, on_event=show)
    return exit_codes.DONE


def _report_daemon(output: Output, pid: int, *, is_new: bool) -> None:
    outcome = "started" if is_new else "already-running"
    if output.json:
        output.document({"outcome": outcome, "pid": pid})
    elif is_new:
        output.text(f"The watchdog runs in the background, PID {pid}.")
        output.say("`mlx-stack logs watchdog --follow` shows what it does.")
    else:
        output.text(f"A watchdog runs already, PID {pid}.")
