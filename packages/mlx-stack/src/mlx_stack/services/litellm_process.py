"""LiteLLM as a process that the gateway starts and stops.

Apart from `on_demand`, since it loads what most gateways never need: the catalog, models, psutil.
"""

import threading
import time

from mlx_catalog import CatalogError
from mlx_procsup import (
    LockHeldError,
    ProbeTarget,
    ServiceState,
    SupervisionError,
    acquire_lock,
    locate,
    probe_service,
    start_service,
    stop_service,
    wait_for_healthy,
)
from mlx_stack.config import LiteLlmMode
from mlx_stack.errors import StackError
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.service import LITELLM, litellm_service
from mlx_stack.services.sleeper import CannotStartError
from mlx_stack.services.stack_lock import OF_GATEWAY

READY_WITHIN_S = 120.0
_LOCK_WITHIN_S = 60.0


class LiteLlmProcess:
    """LiteLLM's process.

    Args:
        gateway_key: The gateway's key, which implies LiteLLM's.
    """

    def __init__(self, home: Home, gateway_key: str) -> None:
        self._home = home
        self._key = gateway_key

    def is_alive(self) -> bool:
        """Whether it runs."""
        return locate(self._home.state_dirs, LITELLM).own is not None

    def is_running(self) -> bool:
        """Whether it runs, whoever started it."""
        return self.is_alive()

    def ensure_wanted(self) -> None:
        """Return: whatever needs it may start it."""

    def start(self, cancelled: threading.Event) -> None:
        """Start it under the stack's lock, unless it runs, and wait until it answers.

        Raises:
            CannotStartError: When it can't be started.
        """
        try:
            self._start(cancelled)
        except (StackError, SupervisionError, CatalogError, OSError) as error:
            raise CannotStartError(str(error)) from error

    def stop(self) -> bool:
        """Whether it is gone now: not where it is always to run, or while others change services.

        Raises:
            StackError: When it can't be stopped.
        """
        if OpenStack(self._home).config.litellm is LiteLlmMode.ALWAYS:
            return False
        try:
            with acquire_lock(self._home.lock, OF_GATEWAY):
                stop_service(LITELLM, self._home.state_dirs)
        except LockHeldError:
            return False
        except (SupervisionError, OSError) as error:
            raise StackError(str(error)) from error
        return True

    def held_bytes(self) -> int | None:
        """Nothing that the engines' budget knows of."""
        return None

    def _start(self, cancelled: threading.Event) -> None:
        service = litellm_service(OpenStack(self._home), key=self._key)
        dirs = self._home.state_dirs
        assert service.spec.readiness is not None
        target = ProbeTarget(LITELLM, service.spec.readiness, service.spec.masked_command())
        if probe_service(target, dirs).state is ServiceState.HEALTHY:
            return
        ends = time.monotonic() + _LOCK_WITHIN_S
        lock = acquire_lock(
            self._home.lock,
            OF_GATEWAY,
            on_wait=lambda _: None,
            cancelled=lambda: cancelled.is_set() or time.monotonic() > ends,
        )
        with lock:
            stop_service(LITELLM, dirs, command=service.spec.masked_command())
            started = start_service(service.spec, dirs)
        wait_for_healthy(started, READY_WITHIN_S, cancelled=cancelled.is_set)
