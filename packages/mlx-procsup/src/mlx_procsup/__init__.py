"""Process supervision without a daemon: PID files, readiness, restarts, logs and locks."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlx_procsup.errors import (
        AlreadyRunningError,
        CommandNotFoundError,
        ExitedEarlyError,
        NotReadyError,
        ReadinessTimeoutError,
        StartFailedError,
        StateFileError,
        StopFailedError,
        SupervisionError,
    )
    from mlx_procsup.identity import ProcessIdentity, identify, is_alive
    from mlx_procsup.locate import Located, locate
    from mlx_procsup.lock import LockHeldError, LockOwner, acquire_lock
    from mlx_procsup.probe import (
        ProbeTarget,
        ServiceStatus,
        probe_all,
        probe_service,
        target_of,
    )
    from mlx_procsup.progress import Patience
    from mlx_procsup.readiness import Readiness, wait_for_healthy
    from mlx_procsup.spawn import StartedProcess, start_service
    from mlx_procsup.spec import HttpReadiness, ProcessSpec, StateDirs
    from mlx_procsup.state import ServiceState
    from mlx_procsup.statefiles import (
        RunRecord,
        WantedState,
        read_pid,
        read_run,
        set_wanted,
        write_run,
    )
    from mlx_procsup.terminate import ShutdownResult, StopOutcome, stop_service

__version__ = "0.1.0"

_MODULE_OF = {
    "AlreadyRunningError": "errors",
    "CommandNotFoundError": "errors",
    "ExitedEarlyError": "errors",
    "HttpReadiness": "spec",
    "Located": "locate",
    "LockHeldError": "lock",
    "LockOwner": "lock",
    "NotReadyError": "errors",
    "Patience": "progress",
    "ProbeTarget": "probe",
    "ProcessIdentity": "identity",
    "ProcessSpec": "spec",
    "Readiness": "readiness",
    "ReadinessTimeoutError": "errors",
    "RunRecord": "statefiles",
    "ServiceState": "state",
    "ServiceStatus": "probe",
    "ShutdownResult": "terminate",
    "StartFailedError": "errors",
    "StartedProcess": "spawn",
    "StateDirs": "spec",
    "StateFileError": "errors",
    "StopFailedError": "errors",
    "StopOutcome": "terminate",
    "SupervisionError": "errors",
    "WantedState": "statefiles",
    "acquire_lock": "lock",
    "identify": "identity",
    "is_alive": "identity",
    "locate": "locate",
    "probe_all": "probe",
    "probe_service": "probe",
    "read_pid": "statefiles",
    "read_run": "statefiles",
    "set_wanted": "statefiles",
    "start_service": "spawn",
    "stop_service": "terminate",
    "target_of": "probe",
    "wait_for_healthy": "readiness",
    "write_run": "statefiles",
}

__all__ = [
    "AlreadyRunningError",
    "CommandNotFoundError",
    "ExitedEarlyError",
    "HttpReadiness",
    "Located",
    "LockHeldError",
    "LockOwner",
    "NotReadyError",
    "Patience",
    "ProbeTarget",
    "ProcessIdentity",
    "ProcessSpec",
    "Readiness",
    "ReadinessTimeoutError",
    "RunRecord",
    "ServiceState",
    "ServiceStatus",
    "ShutdownResult",
    "StartFailedError",
    "StartedProcess",
    "StateDirs",
    "StateFileError",
    "StopFailedError",
    "StopOutcome",
    "SupervisionError",
    "WantedState",
    "acquire_lock",
    "identify",
    "is_alive",
    "locate",
    "probe_all",
    "probe_service",
    "read_pid",
    "read_run",
    "set_wanted",
    "start_service",
    "stop_service",
    "target_of",
    "wait_for_healthy",
    "write_run",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: psutil costs a tenth of a second."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
