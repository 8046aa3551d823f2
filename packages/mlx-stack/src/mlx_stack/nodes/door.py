"""The gateway's door for other Macs while it is open: its certificate kept good, and announced."""

import logging
import os
import signal
import socket
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mlx_gateway.settings import TlsSettings
from mlx_stack import __version__
from mlx_stack.errors import StackError
from mlx_stack.home import Home

if TYPE_CHECKING:
    from mlx_stack.nodes.bonjour import Advertiser

_LOOK_EVERY_S = 60.0
_RENEW_EVERY_S = 12 * 3600.0

_log = logging.getLogger("mlx_stack")


class NodeDoor:
    """What there is to do next to the door; nothing until it is opened."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self, tls: TlsSettings) -> None:
        """Have a certificate, keep it good from now on, and let other Macs discover this one.

        Raises:
            StackError: When there is an authority that can't be used.
            OSError: When nothing can be written.
        """
        fingerprint, _ = self._renewed()
        self._thread = threading.Thread(
            target=self._run, args=(tls, fingerprint), name="node door", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop, and say so."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=3)

    def _run(self, tls: TlsSettings, fingerprint: str) -> None:
        advertiser = _advertiser(tls, fingerprint)
        renewed_at = time.monotonic()
        try:
            advertiser.refresh()
            while not self._stop.wait(_LOOK_EVERY_S):
                advertiser.refresh()
                if time.monotonic() - renewed_at >= _RENEW_EVERY_S:
                    renewed_at = time.monotonic()
                    self._renew()
        finally:
            advertiser.close()

    def _renew(self) -> None:
        try:
            _, is_new = self._renewed()
        except (StackError, OSError) as error:
            _log.warning("the certificate for other Macs can't be renewed: %s", error)
            return
        if is_new:
            os.kill(os.getpid(), signal.SIGHUP)  # the server reads it again

    def _renewed(self) -> tuple[str, bool]:
        # imported where there is a door: a gateway starts without the library for certificates
        from mlx_stack.nodes.identity import ensure_identity  # noqa: PLC0415

        identity, is_new = ensure_identity(self._home, datetime.now(UTC))
        if is_new:
            _log.info("the certificate for other Macs was renewed")
        return identity.fingerprint, is_new


def _advertiser(tls: TlsSettings, fingerprint: str) -> "Advertiser":
    from mlx_stack.nodes.bonjour import Advertiser, Own  # noqa: PLC0415 - as above

    name = socket.gethostname().partition(".")[0].lower() or "mac"
    return Advertiser(Own(name, tls.host, tls.port, __version__, fingerprint))
