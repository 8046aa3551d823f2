"""How scripts that start processes run: SIGTERM and Ctrl-C end what they started, then them."""

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import psutil

_WITHIN_S = 60
"""A command of mlx-stack stops its engines first."""


def run_script(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` and exit with its code, or with that of the signal that ended it.

    Processes that it started are ended first: `subprocess.run` would kill a command that is about
    to stop its engines. What commands have left running is for a `finally` in `main`.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    sys.exit(main())


def _end(number: int, _frame: FrameType | None) -> None:
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.default_int_handler)  # one more ends it at once
    children = psutil.Process().children()
    for child in children:
        child.terminate()
    psutil.wait_procs(children, timeout=_WITHIN_S)
    sys.exit(128 + number)  # no other exception is sure to end an event loop
