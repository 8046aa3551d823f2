"""A tier's engine as a process that the gateway starts and ends.

Apart from `on_demand`, since it loads what a gateway that starts nothing never needs.
"""

import http.client
import json
import math
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, cast

from mlx_catalog import CatalogError
from mlx_procsup import (
    LockOwner,
    NotReadyError,
    ProcessIdentity,
    ProcessSpec,
    StartedProcess,
    SupervisionError,
    WaitCancelledError,
    WantedState,
    acquire_lock,
    adopt,
    is_alive,
    is_current,
    locate,
    readable_run,
    start_service,
    wait_for_healthy,
)
from mlx_procsup.service import clear_the_way
from mlx_procsup.usage import measure_usage
from mlx_stack.errors import StackError
from mlx_stack.gateway.endpoint import LOOPBACK
from mlx_stack.gateway.events import STOP, note_event, note_start
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.assembly import recorded_port, tier_service
from mlx_stack.services.down import stop_one
from mlx_stack.services.engine_door import asker, request
from mlx_stack.services.service import Service
from mlx_stack.services.sleeper import CannotStartError
from mlx_stack.services.stack_lock import OF_GATEWAY
from mlx_stack.stack import Tier

_LOCK_WITHIN_S = 60.0
_STOP_LOCK_WITHIN_S = 5.0
_RETRY_AFTER_S = 10.0
_PAUSED_RETRY_AFTER_S = 60.0
_STATUS_WITHIN_S = 2.0
_WATCH_EVERY_S = 0.01


class EngineProcess:
    """The engine of a tier, or of a model that has none.

    Args:
        name: Its service.
        find_tier: What it serves, read again for each start.
        called: Its name at the gateway, under which the ledger knows it.
    """

    def __init__(
        self, home: Home, name: str, find_tier: Callable[[OpenStack], Tier | None], called: str
    ) -> None:
        self._home = home
        self._dirs = home.state_dirs
        self._name = name
        self._find_tier = find_tier
        self._called = called
        self._identity: ProcessIdentity | None = None

    def is_alive(self) -> bool:
        """Whether the process that `start` last found or made lives."""
        return self._identity is not None and is_alive(self._identity)

    def is_running(self) -> bool:
        """Whether there is a process, whoever started it."""
        return locate(self._dirs, self._name).own is not None

    def ensure_wanted(self) -> None:
        """Return if a request may start it.

        Raises:
            CannotStartError: When `down` has stopped it, or it is put aside or given up.
        """
        record = readable_run(self._dirs, self._name)
        if record is None:
            return
        reason, retry_after_s = "", None
        if record.wanted is WantedState.STOPPED:
            reason = f"`down` stopped it; `mlx-stack up --tier {self._name}` starts it"
        elif record.shed_at is not None:
            reason, retry_after_s = "it is paused because memory is short", _PAUSED_RETRY_AFTER_S
        elif record.flapping:
            reason = f"it was given up after {len(record.restarts)} restarts"
        if reason:
            raise CannotStartError(reason, retry_after_s=retry_after_s, is_failure=False)

    def start(self, cancelled: threading.Event) -> None:
        """Start it under the stack's lock, unless it runs, and wait without it until it is ready.

        Raises:
            CannotStartError: When it can't be started, or may not.
        """
        self.ensure_wanted()
        with self._in_one_word():
            service = self._service()
            started = self._running(service.spec)
            is_new = started is None
            if started is None:
                with self._locked(cancelled):
                    self.ensure_wanted()
                    started = self._begin(service.spec)
            self._identity = started.identity
            try:
                ready = wait_for_healthy(
                    started, cancelled=cancelled.is_set, watch_every_s=_WATCH_EVERY_S
                )
            except NotReadyError:
                self._put_aside(started)
                self._service()  # a disk that was lost meanwhile says more than the log
                raise
            if is_new:  # who waits for the engine doesn't wait for the disk
                noted = (self._home, self._called, service.tier, ready.seconds)
                threading.Thread(target=note_start, args=noted).start()

    def stop(self) -> bool:
        """Whether it is gone now: not while it answers, or while others change the services.

        Raises:
            StackError: When it can't be stopped.
        """
        ends = time.monotonic() + _STOP_LOCK_WITHIN_S
        try:
            with acquire_lock(
                self._home.lock,
                OF_GATEWAY,
                on_wait=lambda _: None,
                cancelled=lambda: time.monotonic() > ends,
            ):
                record = readable_run(self._dirs, self._name)
                if record is None or record.wanted is not WantedState.RUNNING:
                    return True
                if self._is_busy():
                    return False
                stopped = stop_one(self._name, self._dirs, rests=True)
        except WaitCancelledError:
            return False
        except (SupervisionError, OSError) as error:
            raise StackError(str(error)) from error
        if stopped.error is not None:
            raise StackError(stopped.error)
        note_event(self._home, STOP, self._called)
        return True

    def held_bytes(self) -> int | None:
        """What it holds; 0 while it is to be started again, None where it is not to run."""
        found = locate(self._dirs, self._name)
        usage = measure_usage(found.own.pid, time.time()) if found.own is not None else None
        if usage is not None:
            return max(usage.memory_bytes, int(_metal_gb(self._status()) * 1e9))
        is_wanted = found.record is not None and found.record.wanted is WantedState.RUNNING
        return 0 if is_wanted else None

    def _service(self) -> Service:
        opened = OpenStack(self._home)
        tier = self._find_tier(opened)
        if tier is None:
            raise StackError("it is not defined any more")
        return tier_service(opened, tier)

    def _running(self, spec: ProcessSpec) -> StartedProcess | None:
        """The process that runs already, as the stack means it; nothing is written."""
        found = locate(self._dirs, self._name, spec.masked_command())
        record = found.record
        if found.own is None or found.problem is not None or record is None:
            return None
        if not is_current(spec, record):
            return None
        return StartedProcess(spec, found.own, self._dirs.log_file(self._name), record.log_offset)

    def _begin(self, spec: ProcessSpec) -> StartedProcess:
        record = readable_run(self._dirs, self._name)
        if is_current(spec, record):
            running = adopt(spec, self._dirs)
            if running is not None:
                return running
        clear_the_way(spec, self._dirs)
        return start_service(spec, self._dirs)

    def _put_aside(self, started: StartedProcess) -> None:
        """End what never became ready, so that the next request starts another."""
        with (
            suppress(SupervisionError, OSError),
            acquire_lock(self._home.lock, OF_GATEWAY, on_wait=lambda _: None),
        ):
            found = locate(self._dirs, self._name)
            record = found.record
            if (
                record is not None
                and record.identity == started.identity
                and record.wanted is WantedState.RUNNING
            ):
                stop_one(self._name, self._dirs, rests=True)

    def _is_busy(self) -> bool:
        """Whether it says that it works for someone: others may ask it, too."""
        said = self._status()
        return any(_number(said.get(name)) > 0 for name in ("num_running", "num_waiting"))

    def _status(self) -> dict[str, Any]:
        """What the engine says of itself; nothing where it doesn't answer."""
        port = recorded_port(self._dirs, self._name)
        if port is None:
            return {}
        try:
            status, text = request(
                *(f"{LOOPBACK}:{port}", "GET", "/v1/status"),
                ask=asker(self._dirs, self._name),
                timeout_s=_STATUS_WITHIN_S,
            )
            said: Any = json.loads(text) if status == http.client.OK else {}
        except (OSError, http.client.HTTPException, ValueError):
            return {}
        return cast("dict[str, Any]", said) if isinstance(said, dict) else {}

    @contextmanager
    def _locked(self, cancelled: threading.Event) -> Generator[None]:
        """The stack's lock, waited for as long as a client may be expected to wait.

        Raises:
            CannotStartError: When it was not to be had.
        """
        ends = time.monotonic() + _LOCK_WITHIN_S
        holders: list[LockOwner | None] = []
        try:
            lock = acquire_lock(
                self._home.lock,
                OF_GATEWAY,
                on_wait=holders.append,
                cancelled=lambda: cancelled.is_set() or time.monotonic() > ends,
            )
            with lock:
                yield
        except WaitCancelledError as error:
            if not holders or error.service:
                raise
            held_by = holders[0].describe() if holders[0] else "another command"
            raise CannotStartError(
                f"{held_by} is changing the services",
                retry_after_s=_RETRY_AFTER_S,
                is_failure=False,
            ) from error

    @contextmanager
    def _in_one_word(self) -> Generator[None]:
        """Make one kind of error of all that can be expected to go wrong."""
        try:
            yield
        except CannotStartError:
            raise
        except WaitCancelledError as error:
            raise CannotStartError("the gateway is stopping", is_failure=False) from error
        except NotReadyError as error:
            said = "\n".join(error.log_tail)
            raise CannotStartError(f"it could not be started: {error}", said=said) from error
        except StackError as error:
            hint = f" {error.hint}" if error.hint else ""
            raise CannotStartError(f"{error.message}{hint}", is_failure=False) from error
        except (SupervisionError, CatalogError, OSError) as error:
            raise CannotStartError(f"it could not be started: {error}") from error


def _metal_gb(status: dict[str, Any]) -> float:
    """What MLX holds of the GPU's memory, as the engine says."""
    metal: Any = status.get("metal")
    if not isinstance(metal, dict):
        return 0.0
    known = cast("dict[str, Any]", metal)
    return sum(_number(known.get(name)) for name in ("active_memory_gb", "cache_memory_gb"))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0
