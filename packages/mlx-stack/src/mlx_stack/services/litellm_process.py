"""LiteLLM as a process that the gateway starts and stops.

Apart from `on_demand`, since it loads what most gateways never need: the catalog, models, psutil.
"""

import logging
import time
from collections.abc import Generator
from contextlib import contextmanager

from mlx_catalog import CatalogError
from mlx_procsup import (
    LockOwner,
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

READY_WITHIN_S = 120.0
_LOCK_WITHIN_S = 60.0

_log = logging.getLogger("mlx_stack")


def is_alive(home: Home) -> bool:
    """Whether its process runs."""
    return locate(home.state_dirs, LITELLM).own is not None


def start(home: Home, gateway_key: str) -> None:
    """Start it under the stack's lock, unless it runs, and wait until it answers.

    Raises:
        StackError: When it can't be started.
    """
    with _in_one_word():
        service = litellm_service(OpenStack(home), key=gateway_key)
        dirs = home.state_dirs
        assert service.spec.readiness is not None
        target = ProbeTarget(LITELLM, service.spec.readiness, service.spec.masked_command())
        if probe_service(target, dirs).state is ServiceState.HEALTHY:
            return
        ends = time.monotonic() + _LOCK_WITHIN_S
        with acquire_lock(
            home.lock, "gateway", on_wait=_note_wait, cancelled=lambda: time.monotonic() > ends
        ):
            stop_service(LITELLM, dirs, command=service.spec.masked_command())
            started = start_service(service.spec, dirs)
        wait_for_healthy(started, READY_WITHIN_S)


def stop(home: Home) -> None:
    """Stop it, unless it is always to run.

    Raises:
        StackError: When it can't be stopped.
    """
    with _in_one_word():
        if OpenStack(home).config.litellm is LiteLlmMode.ALWAYS:
            return
        with acquire_lock(home.lock, "gateway"):
            stop_service(LITELLM, home.state_dirs)


@contextmanager
def _in_one_word() -> Generator[None]:
    """Make one kind of error of all that can be expected to go wrong."""
    try:
        yield
    except (SupervisionError, CatalogError, OSError) as error:
        raise StackError(str(error)) from error


def _note_wait(holder: LockOwner | None) -> None:
    held_by = holder.describe() if holder else "another process"
    _log.info("LiteLLM starts when %s is done", held_by)
