"""Process supervision without a daemon: PID files, readiness, restarts, logs and locks."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlx_procsup.delivery import AnswerKind as AnswerKind
    from mlx_procsup.delivery import DeliveryHistory as DeliveryHistory
    from mlx_procsup.delivery import DeliveryRule as DeliveryRule
    from mlx_procsup.delivery import RequestInFlight as RequestInFlight
    from mlx_procsup.delivery import TokenAnswer as TokenAnswer
    from mlx_procsup.delivery import Unreadable as Unreadable
    from mlx_procsup.delivery import Work as Work
    from mlx_procsup.delivery_watch import DeliveryCheck as DeliveryCheck
    from mlx_procsup.errors import AlreadyRunningError as AlreadyRunningError
    from mlx_procsup.errors import CommandNotFoundError as CommandNotFoundError
    from mlx_procsup.errors import ExitedEarlyError as ExitedEarlyError
    from mlx_procsup.errors import NotReadyError as NotReadyError
    from mlx_procsup.errors import PortTakenError as PortTakenError
    from mlx_procsup.errors import ReadinessTimeoutError as ReadinessTimeoutError
    from mlx_procsup.errors import StartFailedError as StartFailedError
    from mlx_procsup.errors import StateFileError as StateFileError
    from mlx_procsup.errors import StopFailedError as StopFailedError
    from mlx_procsup.errors import SupervisionError as SupervisionError
    from mlx_procsup.errors import WaitCancelledError as WaitCancelledError
    from mlx_procsup.hang import HangRule as HangRule
    from mlx_procsup.identity import ProcessIdentity as ProcessIdentity
    from mlx_procsup.identity import identify as identify
    from mlx_procsup.identity import is_alive as is_alive
    from mlx_procsup.located import Located as Located
    from mlx_procsup.located import locate as locate
    from mlx_procsup.lock import LockHeldError as LockHeldError
    from mlx_procsup.lock import LockOwner as LockOwner
    from mlx_procsup.lock import LockUnsupportedError as LockUnsupportedError
    from mlx_procsup.lock import acquire_lock as acquire_lock
    from mlx_procsup.logfiles import LogInfo as LogInfo
    from mlx_procsup.logfiles import all_lines as all_lines
    from mlx_procsup.logfiles import follow as follow
    from mlx_procsup.logfiles import list_logs as list_logs
    from mlx_procsup.logfiles import plain as plain
    from mlx_procsup.logfiles import tail_lines as tail_lines
    from mlx_procsup.logfiles import tail_with_archive as tail_with_archive
    from mlx_procsup.looks import LastLook as LastLook
    from mlx_procsup.looks import Wedge as Wedge
    from mlx_procsup.looks import read_last_look as read_last_look
    from mlx_procsup.presence import pid_running_as as pid_running_as
    from mlx_procsup.presence import run_as as run_as
    from mlx_procsup.presence import start_detached as start_detached
    from mlx_procsup.pressure import Pressure as Pressure
    from mlx_procsup.pressure import Sheddable as Sheddable
    from mlx_procsup.pressure import ShedRule as ShedRule
    from mlx_procsup.pressure import read_pressure as read_pressure
    from mlx_procsup.probe import ProbeTarget as ProbeTarget
    from mlx_procsup.probe import ServiceStatus as ServiceStatus
    from mlx_procsup.probe import probe_all as probe_all
    from mlx_procsup.probe import probe_service as probe_service
    from mlx_procsup.probe import target_of as target_of
    from mlx_procsup.progress import LoadTimeout as LoadTimeout
    from mlx_procsup.readiness import Readiness as Readiness
    from mlx_procsup.readiness import wait_for_healthy as wait_for_healthy
    from mlx_procsup.restart import RestartPolicy as RestartPolicy
    from mlx_procsup.rotate import Rotation as Rotation
    from mlx_procsup.rotate import RotationRule as RotationRule
    from mlx_procsup.rotate import rewrite_log as rewrite_log
    from mlx_procsup.rotate import rotate_log as rotate_log
    from mlx_procsup.service import ShutdownResult as ShutdownResult
    from mlx_procsup.service import StartOutcome as StartOutcome
    from mlx_procsup.service import StartPlan as StartPlan
    from mlx_procsup.service import StartResult as StartResult
    from mlx_procsup.service import StopOutcome as StopOutcome
    from mlx_procsup.service import adopt as adopt
    from mlx_procsup.service import bring_up as bring_up
    from mlx_procsup.service import is_current as is_current
    from mlx_procsup.service import start_service as start_service
    from mlx_procsup.service import stop_service as stop_service
    from mlx_procsup.spawn import StartedProcess as StartedProcess
    from mlx_procsup.spec import Ask as Ask
    from mlx_procsup.spec import HttpReadiness as HttpReadiness
    from mlx_procsup.spec import ProcessSpec as ProcessSpec
    from mlx_procsup.spec import Question as Question
    from mlx_procsup.spec import StateDirs as StateDirs
    from mlx_procsup.state import ServiceState as ServiceState
    from mlx_procsup.statefiles import Restart as Restart
    from mlx_procsup.statefiles import RunRecord as RunRecord
    from mlx_procsup.statefiles import WantedState as WantedState
    from mlx_procsup.statefiles import read_pid as read_pid
    from mlx_procsup.statefiles import read_run as read_run
    from mlx_procsup.statefiles import readable_run as readable_run
    from mlx_procsup.statefiles import secret_of as secret_of
    from mlx_procsup.statefiles import set_wanted as set_wanted
    from mlx_procsup.statefiles import write_run as write_run
    from mlx_procsup.supervisor import Loading as Loading
    from mlx_procsup.supervisor import WaitsForMemory as WaitsForMemory
    from mlx_procsup.supervisor import start_all as start_all
    from mlx_procsup.upkeep import UpkeepRule as UpkeepRule
    from mlx_procsup.watchdog import MachineReader as MachineReader
    from mlx_procsup.watchdog import Supervised as Supervised
    from mlx_procsup.watchdog import Watchdog as Watchdog
    from mlx_procsup.watchdog import WatchEvent as WatchEvent
    from mlx_procsup.watchdog import WatchSettings as WatchSettings

__version__ = "0.1.0"

_NAMES_IN = {
    "delivery": (
        "AnswerKind DeliveryHistory DeliveryRule RequestInFlight TokenAnswer Unreadable Work"
    ),
    "delivery_watch": "DeliveryCheck",
    "errors": (
        "AlreadyRunningError CommandNotFoundError ExitedEarlyError NotReadyError PortTakenError "
        "ReadinessTimeoutError StartFailedError StateFileError StopFailedError SupervisionError "
        "WaitCancelledError"
    ),
    "hang": "HangRule",
    "identity": "ProcessIdentity identify is_alive",
    "located": "Located locate",
    "lock": "LockHeldError LockOwner LockUnsupportedError acquire_lock",
    "logfiles": "LogInfo all_lines follow list_logs plain tail_lines tail_with_archive",
    "looks": "LastLook Wedge read_last_look",
    "presence": "pid_running_as run_as start_detached",
    "pressure": "Pressure Sheddable ShedRule read_pressure",
    "probe": "ProbeTarget ServiceStatus probe_all probe_service target_of",
    "progress": "LoadTimeout",
    "readiness": "Readiness wait_for_healthy",
    "restart": "RestartPolicy",
    "rotate": "Rotation RotationRule rewrite_log rotate_log",
    "service": (
        "ShutdownResult StartOutcome StartPlan StartResult StopOutcome adopt bring_up "
        "is_current start_service stop_service"
    ),
    "spawn": "StartedProcess",
    "spec": "Ask HttpReadiness ProcessSpec Question StateDirs",
    "state": "ServiceState",
    "statefiles": (
        "Restart RunRecord WantedState read_pid read_run readable_run secret_of set_wanted "
        "write_run"
    ),
    "supervisor": "Loading WaitsForMemory start_all",
    "upkeep": "UpkeepRule",
    "watchdog": "MachineReader Supervised Watchdog WatchEvent WatchSettings",
}
_MODULE_OF = {name: module for module, names in _NAMES_IN.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: psutil costs a tenth of a second."""
    if name == "__all__":
        return __dir__()
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return ["__version__", *_MODULE_OF]
