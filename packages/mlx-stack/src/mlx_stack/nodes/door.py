"""The gateway's door for other Macs while it is open: its certificate is kept good."""

import logging
import os
import signal
import threading
from datetime import UTC, datetime

from mlx_stack.errors import StackError
from mlx_stack.home import Home

_LOOK_EVERY_S = 12 * 3600.0

_log = logging.getLogger("mlx_stack")


class NodeDoor:
    """What there is to do next to the door; nothing until it is opened."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Have a certificate, and keep it good from now on.

        Raises:
            StackError: When there is an authority that can't be used.
            OSError: When nothing can be written.
        """
        self._renew()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="node door", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=3)

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            try:
                if self._renew():
                    os.kill(os.getpid(), signal.SIGHUP)  # the server reads it again
            except (StackError, OSError) as error:
                _log.warning("the certificate for other Macs can't be renewed: %s", error)

    def _renew(self) -> bool:
        # imported where there is a door: a gateway starts without the library for certificates
        from mlx_stack.nodes.identity import ensure_identity  # noqa: PLC0415

        _, is_new = ensure_identity(self._home, datetime.now(UTC))
        if is_new:
            _log.info("the certificate for other Macs was renewed")
        return is_new
