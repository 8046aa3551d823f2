"""The watchdog's log, `logs/watchdog.log`: one line for each of its events."""

import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from mlx_procsup import WatchEvent
from mlx_stack.home import Home
from mlx_stack.services.service import WATCHDOG


def describe(event: WatchEvent) -> str:
    """One line of the watchdog's log, the time in local time."""
    at = datetime.fromtimestamp(event.at).astimezone()
    return f"{at:%Y-%m-%d %H:%M:%S}  {event.service or '-':<10} {event.what}: {event.reason}"


def note_in_log(home: Home, event: WatchEvent) -> None:
    """Append an event to the watchdog's log, unless the log is where we print anyway."""
    path = home.state_dirs.log_file(WATCHDOG)
    if prints_to(path):
        return
    with suppress(OSError), path.open("a", encoding="utf-8") as log:  # a full disk ends no watch
        log.write(describe(event) + "\n")


def prints_to(path: Path) -> bool:
    """Whether our standard output is this file."""
    try:
        return os.path.samestat(os.fstat(1), path.stat())
    except OSError:
        return False
