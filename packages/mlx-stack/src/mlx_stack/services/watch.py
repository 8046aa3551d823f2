"""The watchdog of a stack: what it watches, how it learns of changes, and where it notes them."""

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypedDict

from mlx_catalog import CatalogError
from mlx_gateway.residency import Resident, decide_relief
from mlx_hwprobe import HardwareProfile, HwprobeError
from mlx_procsup import (
    DeliveryCheck,
    ExitedEarlyError,
    Loading,
    LockOwner,
    ProcessSpec,
    RestartPolicy,
    RotationRule,
    Sheddable,
    Supervised,
    SupervisionError,
    WaitsForMemory,
    WantedState,
    Watchdog,
    WatchEvent,
    WatchSettings,
    acquire_lock,
    locate,
    pid_running_as,
    readable_run,
    run_as,
    start_detached,
)
from mlx_procsup.defaults import LOOK_INTERVAL_S, MAX_RESTARTS, RESTART_DELAY_S
from mlx_stack import exit_codes
from mlx_stack.child_environment import inherited_environment
from mlx_stack.credentials import ensure_gateway_key
from mlx_stack.engines.environment import EngineName
from mlx_stack.engines.vllm_mlx import reads_in_silence
from mlx_stack.errors import StackError
from mlx_stack.gateway.events import note_watch
from mlx_stack.hardware import known_hardware
from mlx_stack.home import HOME_VARIABLE, Home
from mlx_stack.models.disk.local import find_local
from mlx_stack.models.find import local_model_of
from mlx_stack.models.own_code import ensure_no_code
from mlx_stack.models.serving import serving_of, shape_of_tier
from mlx_stack.models.shelf import planned_bytes
from mlx_stack.open_stack import OpenStack
from mlx_stack.services import panic_reports, panics
from mlx_stack.services.assembly import Assembly, assemble, guest_names
from mlx_stack.services.delivery import SILENCE_S, EngineDelivery, predict_sound, predictor
from mlx_stack.services.keep_awake import kept_awake
from mlx_stack.services.proof import proof_of
from mlx_stack.services.service import GATEWAY, WATCHDOG, Listens, Service, ServiceEvent
from mlx_stack.services.up import refuse_open_home, start_services
from mlx_stack.services.watch_log import note_in_log
from mlx_stack.stack import Tier

_MB = 1 << 20
_WRITTEN_WITHIN_S = 600.0
"""So long after a report of a panic has appeared, more of it may be written."""
_EXHAUSTION = re.compile(rb"\[metal::malloc\] Resource limit \(\d{1,12}\) exceeded")
"""What MLX says when Metal has no more buffers to give: those that leaked come back with the end of
the process only."""


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """How to watch.

    Attributes:
        max_restarts: More restarts than these in a short time mean flapping.
        restart_delay_s: The pause before the first restart; it doubles with each that follows.
        up: Start the stack first, except what `down` stopped.
    """

    interval_s: float = LOOK_INTERVAL_S
    max_restarts: int = MAX_RESTARTS
    restart_delay_s: float = RESTART_DELAY_S
    up: bool = False

    def arguments(self) -> tuple[str, ...]:
        """The command-line options that mean the same."""
        words = (
            *("--interval", f"{self.interval_s:g}"),
            *("--max-restarts", str(self.max_restarts)),
            *("--restart-delay", f"{self.restart_delay_s:g}"),
        )
        return (*words, "--up") if self.up else words


@dataclass(frozen=True, slots=True)
class BackgroundWatch:
    """A watchdog in the background.

    Attributes:
        is_new: Whether it was started just now.
    """

    pid: int
    is_new: bool

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {"outcome": "started" if self.is_new else "already-running", "pid": self.pid}


def watch(
    opened: OpenStack,
    options: WatchOptions,
    *,
    on_event: Callable[[WatchEvent], None],
) -> None:
    """Keep the stack running until interrupted.

    Every event goes to `on_event` and into the watchdog's log.

    Raises:
        AlreadyRunningError: Another watchdog watches this stack.
        StackError: No stack is defined, a file is damaged, or the engines are not installed.
    """
    _ = opened.stack  # without one there is nothing to watch
    home, config = opened.home, opened.config
    refuse_open_home(home)
    dirs = home.state_dirs

    def note(event: WatchEvent) -> None:
        note_in_log(home, event)
        note_watch(home, event.what, event.service, event.since)
        on_event(event)

    source = _StackSource(home, panic_reports.folder_of(opened.variables), note)

    def give_up(stalled_s: float) -> None:
        note(
            _event(None, "held-up", f"hasn't checked for {stalled_s:.0f} s: exits to be restarted")
        )
        os._exit(exit_codes.FAILED)  # whatever holds the loop up would hold up a tidy end as well

    def note_awake(words: str) -> None:
        note(_event(None, "noticed", words))

    with run_as(WATCHDOG, dirs), kept_awake(home, os.getpid(), note_awake):
        if options.up:
            _start_stack(home, source, note)
        names = ", ".join(service.spec.name for service in source.load()) or "nothing yet"
        settings = WatchSettings(
            lock=home.lock,
            interval_s=options.interval_s,
            restart=RestartPolicy.of(options.max_restarts, options.restart_delay_s),
            rotation=RotationRule(config.log_max_size_mb * 10**6, config.log_max_files),
            choose_shed=choose_shed,
        )
        try:
            note(_event(None, "noticed", f"watching {names} every {options.interval_s:g} s"))
            watchdog = Watchdog(dirs, settings, source.load, note)
            watchdog.run(threading.Event().wait, on_stall=give_up)
        finally:
            note(_event(None, "noticed", "watchdog stopped; services keep running"))


def start_daemon(opened: OpenStack, options: WatchOptions) -> BackgroundWatch:
    """Start the watchdog in the background, once.

    Raises:
        StackError: No stack is defined, a file is damaged, or it ended at once; the hint says why.
        SupervisionError: It could not be started.
    """
    _ = opened.stack  # without one there is nothing to watch
    home = opened.home
    dirs = home.state_dirs
    running = locate(dirs, WATCHDOG)
    if running.own is not None:
        return BackgroundWatch(running.own.pid, is_new=False)
    home.create()
    spec = ProcessSpec(
        name=WATCHDOG,
        command=(sys.executable, "-P", "-m", "mlx_stack", "watch", *options.arguments()),
        env={**inherited_environment(opened.variables), HOME_VARIABLE: str(home.root)},
        cwd=home.root,
    )
    try:
        return BackgroundWatch(start_detached(spec, dirs), is_new=True)
    except ExitedEarlyError as error:
        present = pid_running_as(WATCHDOG, dirs)
        if present is not None:  # another one was quicker, or its run file is lost
            return BackgroundWatch(present, is_new=False)
        said = " ".join(error.log_tail[-3:]) or "nothing"
        raise StackError(str(error), hint=f"Its last log line: {said}") from error


class _StackSource:
    """The services to watch, read again when one of their files has changed."""

    def __init__(self, home: Home, reports: Path, note: Callable[[WatchEvent], None]) -> None:
        self._home = home
        self._reports = reports
        self._reports_read: float | None = None
        self._note = note
        self._model_dir = home.models
        self._signature: object = None
        self._missing: tuple[Tier, ...] = ()
        self._services: tuple[Supervised, ...] = ()

    def load(self) -> tuple[Supervised, ...]:
        """The services as they are defined now; the last good ones while a file is damaged."""
        self._take_new_panics()
        signature = self._sign()
        if signature == self._signature:
            return self._services
        before = self._services
        self._signature = signature
        try:
            key = ensure_gateway_key(self._home)
            opened = OpenStack(self._home)
            assembly = assemble(opened, gateway_key=key)
        except (StackError, CatalogError, OSError) as error:
            self._note(_event(None, "held-up", f"the stack can't be read: {error}"))
            return before
        self._model_dir = assembly.config.model_dir
        self._missing = tuple(t for t in assembly.stack.tiers if t.name in assembly.missing)
        self._services = supervised(opened, assembly)
        if before and self._services != before:
            names = ", ".join(service.spec.name for service in self._services)
            self._note(_event(None, "noticed", f"the stack has changed: {names}"))
        return self._services

    def take_panics(self) -> None:
        """Note the panics that new reports tell of; for who holds the lock."""
        changed_at = panic_reports.changed_at(self._reports)
        for panic in panics.take(self._home, self._reports, time.time()):
            self._note(_event(panic.tier, "panic", panic.describe()))
        self._reports_read = changed_at

    def _take_new_panics(self) -> None:
        """Do so where a report may have come, before anything is restarted.

        Whoever holds the lock now has done it, too; what is damaged is said by who needs it.
        """
        changed_at = panic_reports.changed_at(self._reports)
        is_settled = changed_at is None or time.time() - changed_at > _WRITTEN_WITHIN_S
        if is_settled and changed_at == self._reports_read:
            return
        with (
            suppress(SupervisionError, StackError, OSError),
            acquire_lock(self._home.lock, "watch"),
        ):
            self.take_panics()

    def _sign(self) -> tuple[object, ...]:
        home = self._home
        files = (
            *(home.stack, home.config, home.credentials, home.catalog, home.panics),
            self._model_dir,
            *sorted(home.catalog.glob("*.yaml")),
            *(home.engines / engine for engine in EngineName),  # a switch links again in its folder
        )
        arrived = (tier.name for tier in self._missing if self._is_there(tier))
        return (*map(_signature_of, files), *arrived, guest_names(home.state_dirs))

    def _is_there(self, tier: Tier) -> bool:
        """Whether a model that was missing is on this disk by now, and whole."""
        with suppress(StackError, OSError):
            model = find_local(self._model_dir, tier.source, tier.quant)
            if model is not None and model.is_whole:
                ensure_no_code(model.path, tier)
                return True
        return False


def supervised(opened: OpenStack, assembly: Assembly) -> tuple[Supervised, ...]:
    """The services as the watchdog watches them: by what they deliver, where they are engines."""
    tiers = assembly.stack.tiers
    count = len(tiers)
    # as the gateway sees it: models without a tier, then lazy tiers, then those that `up` starts
    importance = {
        tier.name: count - rank + (0 if tier.lazy else count) for rank, tier in enumerate(tiers)
    }
    pinned = {tier.name for tier in tiers if tier.pinned}
    limit_bytes = assembly.config.gateway_max_memory_mb * _MB
    hardware = _hardware(opened.home)
    return tuple(
        Supervised(
            service.spec,
            importance=0
            if service in assembly.guests
            else importance.get(service.name, 2 * count + 1),
            max_memory_bytes=limit_bytes if service.name == GATEWAY else None,
            sheddable=service.name != GATEWAY and service.name not in pinned,
            **_delivery(opened, service, hardware),
        )
        for service in assembly.watched
    )


def choose_shed(running: Sequence[Sheddable], may_be_busy: bool) -> str | None:
    """Which engine makes room when memory is short: the decision of the gateway (0089)."""
    residents = [
        Resident(
            name=each.name,
            claim_bytes=1,
            since=0.0,
            used_at=0.0,
            is_busy=each.is_busy,
            importance=each.importance,
        )
        for each in running
    ]
    return decide_relief(residents, may_be_busy=may_be_busy)


class _Delivery(TypedDict, total=False):
    delivery: DeliveryCheck
    silence_s: float
    works_in_silence: bool
    planned_bytes: int | None
    exhaustion: re.Pattern[bytes]


def _delivery(opened: OpenStack, service: Service, hardware: HardwareProfile | None) -> _Delivery:
    """How to learn what an engine delivers; nothing for what is none."""
    tier, readiness = service.tier, service.spec.readiness
    model = None if tier is None else local_model_of(opened, tier)
    if tier is None or readiness is None or model is None:
        return {}
    shape = shape_of_tier(opened.catalog, tier, model.path)
    predict_s = (
        predict_sound if tier.role.is_of_sound else predictor(shape, hardware, tier.context_tokens)
    )
    check = EngineDelivery(
        readiness,
        tier.model,
        proof_of(tier.role),
        batches=tier.is_on_mlx_lm or "--continuous-batching" in service.spec.command,
        predict=predict_s,
        asks_when_idle=opened.config.idle_check,
    )
    is_silent = reads_in_silence(tier, serving_of(opened.catalog, tier, model.path))
    return {
        "delivery": check,
        "silence_s": SILENCE_S + (predict_s(None) if is_silent else 0),
        "works_in_silence": is_silent,
        "planned_bytes": planned_bytes(opened, tier, model.path),
        "exhaustion": _EXHAUSTION,
    }


def _hardware(home: Home) -> HardwareProfile | None:
    try:
        return known_hardware(home)
    except (StackError, HwprobeError):
        return None


def _start_stack(home: Home, source: "_StackSource", note: Callable[[WatchEvent], None]) -> None:
    """`up`, but for what `down` stopped: a restart of the watchdog must not undo it."""
    left_alone: list[str] = []

    def is_wanted(name: str) -> bool:
        record = readable_run(home.state_dirs, name)
        wanted = record is None or record.wanted is not WantedState.STOPPED
        if not wanted and name not in left_alone:
            left_alone.append(name)
        return wanted

    def note_start(outcome: ServiceEvent) -> None:
        if isinstance(outcome, Loading | Listens):
            return
        if isinstance(outcome, WaitsForMemory):
            note(_event(outcome.name, "held-up", "waits for memory until the others are loaded"))
            return
        took = f", ready after {outcome.seconds:.1f} s" if outcome.outcome == "started" else ""
        words = outcome.error or f"PID {outcome.pid}{took}"
        note(_event(outcome.name, outcome.outcome, words.splitlines()[0]))

    def note_wait(owner: LockOwner | None) -> None:
        note(_event(None, "held-up", f"waits for {owner.describe() if owner else 'a command'}"))

    with acquire_lock(home.lock, "watch --up", on_wait=note_wait):
        source.take_panics()
        assembly = assemble(OpenStack(home), gateway_key=ensure_gateway_key(home))
        start_services(home, assembly, is_wanted=is_wanted, on_event=note_start)
    for name in left_alone:
        note(_event(name, "stopped", "`down` stopped it; `mlx-stack up` starts it"))


def _event(service: str | None, what: str, reason: str) -> WatchEvent:
    return WatchEvent(datetime.now().astimezone().timestamp(), service, what, reason)


def _signature_of(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
