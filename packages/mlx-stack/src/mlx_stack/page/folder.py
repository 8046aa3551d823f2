"""The state folder for a process that runs for days: read again where one of its files changed."""

from contextlib import suppress
from pathlib import Path
from threading import Lock

from mlx_hwprobe import HardwareProfile
from mlx_stack.config import Config
from mlx_stack.errors import StackError
from mlx_stack.hardware import known_hardware
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack


class HomeFiles:
    """What the files say now; thread-safe."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._lock = Lock()
        self._signature: object = None
        self._opened = OpenStack(home)
        self._hardware: HardwareProfile | None = None
        self._config = Config()

    def opened(self) -> OpenStack:
        """The folder as it is now; the same object as long as nothing has changed."""
        home = self.home
        files = (home.stack, home.config, home.profile, home.catalog, home.credentials)
        signature = tuple(map(stamp, (*files, *sorted(home.catalog.glob("*.yaml")))))
        with self._lock:
            if signature != self._signature:
                self._signature = signature
                self._opened, self._hardware = OpenStack(home), None
            return self._opened

    def config(self) -> Config:
        """The configuration; while its file is damaged, as it was before."""
        opened = self.opened()
        with suppress(StackError):
            self._config = opened.config
        return self._config

    def hardware(self) -> HardwareProfile:
        """The machine.

        Raises:
            InvalidFileError: When the saved profile is damaged.
            HwprobeError: When nothing is saved, and detection failed.
        """
        self.opened()
        found = self._hardware or known_hardware(self.home)
        self._hardware = found
        return found


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file or folder does; None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
