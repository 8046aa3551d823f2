"""Process supervision without a daemon: PID files, readiness, restarts, logs and locks."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlx_procsup.errors import (
        AlreadyRunningError,
        CommandNotFoundError,
        ExitedEarlyError,
        NotReadyError,
        PortTakenError,
        ReadinessTimeoutError,
        StartFailedError,
        StateFileError,
        StopFailedError,
        SupervisionError,
        WaitCancelledError,
    )
    from mlx_procsup.identity import ProcessIdentity, identify, is_alive
    from mlx_procsup.judgement import HangRule
    from mlx_procsup.located import Located, locate
    from mlx_procsup.lock import LockHeldError, LockOwner, acquire_lock
    from mlx_procsup.logfiles import LogInfo, all_lines, follow, list_logs, plain, tail_with_archive
    from mlx_procsup.presence import present_as, present_pid, start_detached
    from mlx_procsup.pressure import Pressure, ShedRule, read_pressure
    from mlx_procsup.probe import ProbeTarget, ServiceStatus, probe_all, probe_service, target_of
    from mlx_procsup.progress import Patience
    from mlx_procsup.readiness import Readiness, wait_for_healthy
    from mlx_procsup.restart import RestartPolicy
    from mlx_procsup.rotate import Rotation, RotationRule, rotate_log
    from mlx_procsup.spawn import StartedProcess, adopt, is_current, start_service
    from mlx_procsup.spec import HttpReadiness, ProcessSpec, StateDirs
    from mlx_procsup.state import ServiceState
    from mlx_procsup.statefiles import (
        Restart,
        RunRecord,
        WantedState,
        read_pid,
        read_run,
        set_wanted,
        write_run,
    )
    from mlx_procsup.supervisor import StartOutcome, StartPlan, StartResult, bring_up, start_all
    from mlx_procsup.terminate import ShutdownResult, StopOutcome, stop_service
    from mlx_procsup.watch_settings import Decision, Machine, Supervised, WatchSettings
    from mlx_procsup.watchdog import Watchdog

__version__ = "0.1.0"

_MODULE_OF = {
    "AlreadyRunningError": "errors",
    "CommandNotFoundError": "errors",
    "Decision": "watch_settings",
    "ExitedEarlyError": "errors",
    "HangRule": "judgement",
    "HttpReadiness": "spec",
    "Located": "located",
    "LockHeldError": "lock",
    "LockOwner": "lock",
    "LogInfo": "logfiles",
    "Machine": "watch_settings",
    "NotReadyError": "errors",
    "Patience": "progress",
    "PortTakenError": "errors",
    "Pressure": "pressure",
    "ProbeTarget": "probe",
    "ProcessIdentity": "identity",
    "ProcessSpec": "spec",
    "Readiness": "readiness",
    "ReadinessTimeoutError": "errors",
    "Restart": "statefiles",
    "RestartPolicy": "restart",
    "Rotation": "rotate",
    "RotationRule": "rotate",
    "RunRecord": "statefiles",
    "ServiceState": "state",
    "ServiceStatus": "probe",
    "ShedRule": "pressure",
    "ShutdownResult": "terminate",
    "StartFailedError": "errors",
    "StartOutcome": "supervisor",
    "StartPlan": "supervisor",
    "StartResult": "supervisor",
    "StartedProcess": "spawn",
    "StateDirs": "spec",
    "StateFileError": "errors",
    "StopFailedError": "errors",
    "StopOutcome": "terminate",
    "Supervised": "watch_settings",
    "SupervisionError": "errors",
    "WaitCancelledError": "errors",
    "WantedState": "statefiles",
    "WatchSettings": "watch_settings",
    "Watchdog": "watchdog",
    "acquire_lock": "lock",
    "adopt": "spawn",
    "all_lines": "logfiles",
    "bring_up": "supervisor",
    "follow": "logfiles",
    "identify": "identity",
    "is_alive": "identity",
    "is_current": "spawn",
    "list_logs": "logfiles",
    "locate": "located",
    "plain": "logfiles",
    "present_as": "presence",
    "present_pid": "presence",
    "probe_all": "probe",
    "probe_service": "probe",
    "read_pid": "statefiles",
    "read_pressure": "pressure",
    "read_run": "statefiles",
    "rotate_log": "rotate",
    "set_wanted": "statefiles",
    "start_all": "supervisor",
    "start_detached": "presence",
    "start_service": "spawn",
    "stop_service": "terminate",
    "tail_with_archive": "logfiles",
    "target_of": "probe",
    "wait_for_healthy": "readiness",
    "write_run": "statefiles",
}

__all__ = [
    "AlreadyRunningError",
    "CommandNotFoundError",
    "Decision",
    "ExitedEarlyError",
    "HangRule",
    "HttpReadiness",
    "Located",
    "LockHeldError",
    "LockOwner",
    "LogInfo",
    "Machine",
    "NotReadyError",
    "Patience",
    "PortTakenError",
    "Pressure",
    "ProbeTarget",
    "ProcessIdentity",
    "ProcessSpec",
    "Readiness",
    "ReadinessTimeoutError",
    "Restart",
    "RestartPolicy",
    "Rotation",
    "RotationRule",
    "RunRecord",
    "ServiceState",
    "ServiceStatus",
    "ShedRule",
    "ShutdownResult",
    "StartFailedError",
    "StartOutcome",
    "StartPlan",
    "StartResult",
    "StartedProcess",
    "StateDirs",
    "StateFileError",
    "StopFailedError",
    "StopOutcome",
    "Supervised",
    "SupervisionError",
    "WaitCancelledError",
    "WantedState",
    "WatchSettings",
    "Watchdog",
    "__version__",
    "acquire_lock",
    "adopt",
    "all_lines",
    "bring_up",
    "follow",
    "identify",
    "is_alive",
    "is_current",
    "list_logs",
    "locate",
    "plain",
    "present_as",
    "present_pid",
    "probe_all",
    "probe_service",
    "read_pid",
    "read_pressure",
    "read_run",
    "rotate_log",
    "set_wanted",
    "start_all",
    "start_detached",
    "start_service",
    "stop_service",
    "tail_with_archive",
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


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
