"""Brings several services up together, in parallel as far as memory allows."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import psutil

from mlx_procsup.admission import Need, admit
from mlx_procsup.defaults import READY_TIMEOUT_S
from mlx_procsup.located import locate
from mlx_procsup.service import StartPlan, StartResult, bring_up
from mlx_procsup.spec import StateDirs
from mlx_procsup.usage import measure_usage

_LOOK_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class WaitsForMemory:
    """A service isn't started until the others have taken their memory."""

    name: str


@dataclass(frozen=True, slots=True)
class Loading:
    """The progress of a service that isn't ready yet.

    Attributes:
        seconds: Since its start.
        memory_bytes: The memory that it holds; 0 before it has a process.
        needs_bytes: The memory that it will hold once loaded; 0 if that doesn't matter.
    """

    name: str
    seconds: float
    memory_bytes: int
    needs_bytes: int


def start_all(
    plans: Sequence[StartPlan],
    dirs: StateDirs,
    *,
    timeout_s: float = READY_TIMEOUT_S,
    on_event: Callable[[StartResult | WaitsForMemory], None] = lambda _: None,
    on_loading: Callable[[Loading], None] | None = None,
    read_available_bytes: Callable[[], int] = lambda: psutil.virtual_memory().available,
) -> list[StartResult]:
    """Bring services up in parallel; a failure doesn't affect the others.

    If memory is short, the first plan goes first. A load that progresses may exceed its timeout. If
    the caller is interrupted, ready services stay and loading ones are stopped.

    Args:
        on_event: Called with each result as soon as it is known, and once for each service that has
            to wait; always from the calling thread.
        on_loading: Called with the progress of each service that isn't ready, a few times a second.
        read_available_bytes: Returns how much memory is available.

    Returns:
        One result per plan, in the order of the plans.
    """
    cancelled = threading.Event()
    held: set[str] = set()
    waiting = list(plans)
    running: dict[Future[StartResult], StartPlan] = {}
    began: dict[str, float] = {}
    results: dict[str, StartResult] = {}

    with ThreadPoolExecutor(max_workers=max(1, len(plans))) as pool:
        try:
            while waiting or running:
                admitted = _admitted(waiting, list(running.values()), dirs, read_available_bytes)
                for plan in [plan for plan in waiting if plan.spec.name in admitted]:
                    waiting.remove(plan)
                    began[plan.spec.name] = time.monotonic()
                    running[pool.submit(bring_up, plan, dirs, timeout_s, cancelled)] = plan
                for plan in waiting:
                    if plan.spec.name not in held:
                        held.add(plan.spec.name)
                        on_event(WaitsForMemory(plan.spec.name))
                if on_loading is not None:
                    for plan in running.values():
                        need, seconds = _need(plan, dirs), time.monotonic() - began[plan.spec.name]
                        on_loading(Loading(need.name, seconds, need.holds_bytes, need.needs_bytes))
                pause_s = _LOOK_EVERY_S if waiting or on_loading is not None else None
                done, _ = wait(running, timeout=pause_s, return_when=FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    results[running.pop(future).spec.name] = result
                    on_event(result)
        except BaseException:
            cancelled.set()
            raise
    return [results[plan.spec.name] for plan in plans]


def _admitted(
    waiting: Sequence[StartPlan],
    running: Sequence[StartPlan],
    dirs: StateDirs,
    read_available_bytes: Callable[[], int],
) -> list[str]:
    if not waiting:
        return []
    if not any(plan.needs_bytes for plan in waiting):
        return [plan.spec.name for plan in waiting]
    wanted, loading = ([_need(plan, dirs) for plan in plans] for plans in (waiting, running))
    return admit(wanted, loading, read_available_bytes())


def _need(plan: StartPlan, dirs: StateDirs) -> Need:
    process = locate(dirs, plan.spec.name, plan.spec.masked_command()).process
    usage = measure_usage(process.pid, time.time()) if process is not None else None
    return Need(plan.spec.name, plan.needs_bytes, usage.memory_bytes if usage else 0)
