"""`mlx-stack watch`."""

import click

import mlx_procsup
from mlx_procsup.defaults import LOOK_INTERVAL_S, MAX_RESTARTS, RESTART_DELAY_S
from mlx_stack import exit_codes, services
from mlx_stack.cli.frame.context import Context, examples, until_interrupted, with_context
from mlx_stack.cli.frame.options import Seconds
from mlx_stack.cli.frame.output import Output


@click.command("watch")
@click.option(
    "--interval",
    "interval_s",
    type=Seconds(min=0.1),
    default=LOOK_INTERVAL_S,
    show_default=True,
    metavar="SECONDS",
    help="Seconds between checks.",
)
@click.option(
    "--max-restarts",
    type=click.IntRange(min=0),
    default=MAX_RESTARTS,
    show_default=True,
    metavar="N",
    help="Give up on a service after this many restarts in a short time.",
)
@click.option(
    "--restart-delay",
    "restart_delay_s",
    type=Seconds(min=0),
    default=RESTART_DELAY_S,
    show_default=True,
    metavar="SECONDS",
    help="Seconds before a restart; doubles with each restart.",
)
@click.option("--daemon", is_flag=True, help="Watch in the background.")
@click.option(
    "--up", "start_first", is_flag=True, help="First start everything that `down` didn't stop."
)
@with_context(json_lines=True)
@examples("mlx-stack watch --daemon", "mlx-stack watch --interval 10")
def command(
    context: Context,
    interval_s: float,
    max_restarts: int,
    restart_delay_s: float,
    *,
    daemon: bool,
    start_first: bool,
) -> int:
    """Restart services that crash, hang or produce no output, until interrupted.

    Services that `down` stopped stay stopped. Every decision is printed and kept in the watchdog's
    log (`mlx-stack logs watchdog`). `--json` is for `--daemon`, `--json-lines` for watching.
    """
    output = context.output
    options = services.watch.WatchOptions(interval_s, max_restarts, restart_delay_s, start_first)
    if daemon:
        output.show(services.watch.start_daemon(context.opened, options), _show_daemon)
        return exit_codes.DONE
    output.refuse_document("A watch without --daemon")
    with until_interrupted():
        services.watch.watch(
            context.opened, options, on_event=lambda event: output.event(event, _show_event)
        )
    return exit_codes.DONE


def _show_event(output: Output, event: "mlx_procsup.WatchEvent") -> None:
    output.text(services.watch_log.describe(event))


def _show_daemon(output: Output, daemon: "services.watch.BackgroundWatch") -> None:
    if daemon.is_new:
        output.text(f"The watchdog is running in the background, PID {daemon.pid}.")
        output.say("`mlx-stack logs watchdog --follow` shows what it does.")
    else:
        output.text(f"A watchdog is already running, PID {daemon.pid}.")
