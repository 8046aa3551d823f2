"""The gateway's door for other Macs while it is open: its certificate kept good, and announced."""

import logging
import os
import signal
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mlx_gateway.access import machine_name
from mlx_gateway.settings import TlsSettings
from mlx_stack import __version__
from mlx_stack.errors import StackError
from mlx_stack.home import Home

if TYPE_CHECKING:
    from mlx_stack.nodes.bonjour import Advertiser
    from mlx_stack.open_stack import OpenStack

_LOOK_EVERY_S = 60.0
_MOST_WARNINGS = 16

_log = logging.getLogger("mlx_stack")


def prepare(opened: "OpenStack") -> None:
    """Have this Mac's authority before its gateway is started, if other Macs may come in.

    Nothing where that fails: the gateway tries again, and logs why.
    """
    if opened.config.node_host:
        from mlx_stack.nodes.identity import ensure_identity  # noqa: PLC0415 - as below

        with suppress(StackError, OSError):
            ensure_identity(opened.home, datetime.now(UTC))


class NodeDoor:
    """What there is to do next to the door; nothing until it is opened."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._fingerprint: str | None = None
        self._announced: str | None = None
        self._advertiser: Advertiser | None = None
        self._warned: set[str] = set()

    def open(self, tls: TlsSettings) -> None:
        """Have a certificate, keep it good from now on, and let other Macs discover this one.

        What can't be done is logged and tried again every minute: this Mac's own gateway needs none
        of it.
        """
        self._renew()
        self._thread = threading.Thread(
            target=self._run, args=(tls,), name="node door", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop, and say so."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=3)

    def _run(self, tls: TlsSettings) -> None:
        try:
            self._announce(tls)
            while not self._stop.wait(_LOOK_EVERY_S):
                if self._renew():
                    os.kill(os.getpid(), signal.SIGHUP)  # the server reads it again
                self._announce(tls)
        finally:
            if self._advertiser is not None:
                self._advertiser.close()

    def _renew(self) -> bool:
        """Have a certificate; whether it is a new one."""
        # imported where there is a door: a gateway starts without the library for certificates
        from mlx_stack.nodes.identity import ensure_identity  # noqa: PLC0415

        try:
            identity, is_new = ensure_identity(self._home, datetime.now(UTC))
        except Exception as error:  # noqa: BLE001 - nothing may end the thread
            self._warn("the certificate for other Macs can't be made or renewed", error)
            return False
        if is_new:
            _log.info("the certificate for other Macs was renewed")
        self._fingerprint = identity.fingerprint
        return is_new

    def _announce(self, tls: TlsSettings) -> None:
        if self._fingerprint is None:
            return
        try:
            if self._announced != self._fingerprint:
                if self._advertiser is not None:
                    self._advertiser.close()
                self._advertiser = _advertiser(tls, self._fingerprint)
                self._announced = self._fingerprint
            assert self._advertiser is not None  # made above
            self._advertiser.refresh()
        except Exception as error:  # noqa: BLE001 - nothing may end the thread
            self._warn("other Macs can't discover this one", error)

    def _warn(self, what: str, error: Exception) -> None:
        """Log what went wrong, once."""
        text = f"{what}: {error or type(error).__name__}"
        if text not in self._warned:
            self._warned = {*self._warned, text} if len(self._warned) < _MOST_WARNINGS else {text}
            _log.warning("%s", text)


def _advertiser(tls: TlsSettings, fingerprint: str) -> "Advertiser":
    from mlx_stack.nodes.bonjour import Advertiser, Own  # noqa: PLC0415 - as above

    return Advertiser(Own(machine_name(), tls.host, tls.port, __version__, fingerprint))
