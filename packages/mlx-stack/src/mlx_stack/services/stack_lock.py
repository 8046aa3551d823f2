"""The lock of everything that changes running services, as commands take it."""

import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from mlx_procsup import LockHeldError, acquire_lock
from mlx_stack.home import Home

OF_GATEWAY = "gateway"
"""What the holder is called while the gateway starts or ends something, which takes seconds."""
_GATEWAY_WITHIN_S = 30.0
_LOOK_EVERY_S = 0.05


@contextmanager
def stack_lock(home: Home, command: str) -> Generator[None]:
    """Hold the stack's lock; the gateway is waited for, another command is not.

    Raises:
        LockHeldError: When another command changes the services.
    """
    ends = time.monotonic() + _GATEWAY_WITHIN_S
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(acquire_lock(home.lock, command))
                break
            except LockHeldError as error:
                is_gateways = error.owner is not None and error.owner.doing == OF_GATEWAY
                if not is_gateways or time.monotonic() > ends:
                    raise
            time.sleep(_LOOK_EVERY_S)
        yield
