"""`mlx-stack status --watch`: the same report again and again."""

import sys
import time
from typing import NoReturn

from mlx_stack.cli.frame.context import Context

_EVERY_S = 2.0


def show_again_and_again(context: Context) -> NoReturn:
    """Redraw the status on a terminal, or write one report after the other into a pipe.

    Ends when the user interrupts it, or when there is no stack any more.
    """
    from mlx_stack.hardware import known_hardware
    from mlx_stack.open_stack import OpenStack
    from mlx_stack.services.status import StatusReport, read_status

    hardware = known_hardware(context.home)

    def look() -> StatusReport:
        return read_status(OpenStack(context.home), hardware=hardware)

    if context.output.json:
        while True:
            context.output.document(look().to_document())
            time.sleep(_EVERY_S)
    from rich.console import Group
    from rich.live import Live

    from mlx_stack.cli.views.status import render

    def draw() -> Group:
        return Group(*render(look(), context.output.width))

    if not sys.stdout.isatty():
        while True:
            context.output.answer(draw())
            context.output.text("")
            time.sleep(_EVERY_S)
    with Live(draw(), console=context.output.answers, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(_EVERY_S)
            live.update(draw(), refresh=True)
