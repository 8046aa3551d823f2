"""Watches whether services deliver: decides which to ask when, and remembers what is known."""

import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from mlx_procsup.delivery import (
    AnswerKind,
    DeliveryFinding,
    DeliveryHistory,
    DeliveryRule,
    TokenAnswer,
    Unreadable,
    Work,
    answered,
    look,
    next_look_s,
)

_LOOK_WITHIN_S = 3.0


class DeliveryCheck(Protocol):
    """How to find out whether one service delivers."""

    @property
    def asks_when_idle(self) -> bool:
        """Whether it may be asked for a token although nothing is suspicious."""
        ...

    def look(self) -> Work | Unreadable:
        """What the service reports about its work."""
        ...

    def ask(self, wait_s: float) -> TokenAnswer:
        """The result of asking it for one token."""
        ...

    def predict_s(self, size: int | None, /) -> float:
        """The longest time that reading a prompt of so many tokens may take; None is any length."""
        ...


@dataclass(slots=True)
class _Watched:
    check: DeliveryCheck
    pid: int
    history: DeliveryHistory
    due_at: float
    answers: bool = True
    asked: "queue.SimpleQueue[TokenAnswer] | None" = None
    wedged_at: float = 0.0


class DeliveryWatch:
    """What is known of the delivery of each service.

    Args:
        on_note: Called with a service's name and something to report about it.
    """

    def __init__(self, rule: DeliveryRule, on_note: Callable[[str, str], None]) -> None:
        self._rule = rule
        self._on_note = on_note
        self._watched: dict[str, _Watched] = {}

    def set(
        self, name: str, check: DeliveryCheck | None, pid: int | None, now: float, *, answers: bool
    ) -> None:
        """Note which process a service is now, and whether it answers at all.

        A service that has never answered is still loading, and isn't looked at.
        """
        watched = self._watched.get(name)
        if check is None or pid is None:
            self._watched.pop(name, None)
        elif watched is not None and watched.pid == pid:
            watched.check, watched.answers = check, answers
        elif answers:
            self._watched[name] = _Watched(check, pid, DeliveryHistory(), now)
        else:
            self._watched.pop(name, None)

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget every other service."""
        for name in self._watched.keys() - set(names):
            del self._watched[name]

    def forgive(self) -> None:
        """Hold nothing that happened until now against any service."""
        for watched in self._watched.values():
            watched.history = watched.history.forgiven()

    def due_at(self) -> float | None:
        """When to look again; None for never."""
        return min((each.due_at for each in self._watched.values() if each.answers), default=None)

    def wedged(self, name: str) -> tuple[str, float] | None:
        """Why and since when (on `look`'s clock) a service is wedged; None if it isn't."""
        watched = self._watched.get(name)
        if watched is None or watched.history.wedged is None:
            return None
        return watched.history.wedged, watched.wedged_at

    def history(self, name: str) -> DeliveryHistory | None:
        """What is remembered of a service; None if it isn't up, or isn't looked at."""
        watched = self._watched.get(name)
        return None if watched is None else watched.history

    def is_busy(self, name: str) -> bool:
        """Whether a service had requests when it was last looked at."""
        history = self.history(name)
        return history is not None and history.is_busy

    def look(self, now: float, *, early: bool = False) -> frozenset[str]:
        """Look at the services that are due; the names of those that became wedged or recovered.

        This takes at most a few seconds, whatever the services do.

        Args:
            early: Look at all services, even if they are not due.
        """
        due = {
            name: each
            for name, each in self._watched.items()
            if each.answers and (early or each.due_at <= now + 0.05)
        }
        before = {name: each.history.wedged is not None for name, each in due.items()}
        for name, watched in due.items():
            self._take_answer(name, watched, now)
        said = _look_at_all({name: watched.check for name, watched in due.items()})
        busy = sum(each.history.is_busy for each in self._watched.values())
        for name, watched in due.items():
            rule = self._rule if watched.check.asks_when_idle else self._no_idle_asking
            history, finding = look(
                watched.history, said[name], now, rule, watched.check.predict_s, sharing=busy or 1
            )
            self._follow(name, watched, history, finding, now)
            watched.due_at = now + next_look_s(watched.history, now, rule)
            if watched.history.asked_at is not None:
                ends_at = watched.history.asked_at + watched.history.asked_for_s
                watched.due_at = min(watched.due_at, max(ends_at, now + 0.1))
        return frozenset(
            name
            for name, each in due.items()
            if (each.history.wedged is not None) is not before[name]
        )

    @property
    def _no_idle_asking(self) -> DeliveryRule:
        return replace(self._rule, ask_every_s=None)

    def _take_answer(self, name: str, watched: _Watched, now: float) -> None:
        """The answer to the question that is under way, if it is there or its time is over."""
        history = watched.history
        if watched.asked is None:
            return
        try:
            answer = watched.asked.get_nowait()
        except queue.Empty:
            if history.asked_at is not None and now < history.asked_at + history.asked_for_s:
                return
            answer = TokenAnswer(AnswerKind.NOTHING)
        watched.asked = None
        if history.asked_at is not None:
            self._follow(name, watched, *answered(history, answer, now, self._rule), now)

    def _follow(
        self,
        name: str,
        watched: _Watched,
        history: DeliveryHistory,
        finding: DeliveryFinding,
        now: float,
    ) -> None:
        if history.wedged is not None and watched.history.wedged is None:
            asked_at = watched.history.asked_at
            stopped_at = now - history.still_s
            watched.wedged_at = stopped_at if asked_at is None else min(stopped_at, asked_at)
        watched.history = history
        if finding.note:
            self._on_note(name, finding.note)
        if finding.ask_for_s is not None:
            watched.asked = _asking(watched.check, finding.ask_for_s)
        elif history.asked_at is None:
            watched.asked = None


def _asking(check: DeliveryCheck, wait_s: float) -> "queue.SimpleQueue[TokenAnswer]":
    """Ask in a thread of its own, which never keeps the program from ending."""
    answers: queue.SimpleQueue[TokenAnswer] = queue.SimpleQueue()

    def ask() -> None:
        answers.put(check.ask(wait_s))

    threading.Thread(target=ask, name="ask-one-token", daemon=True).start()
    return answers


def _look_at_all(checks: dict[str, DeliveryCheck]) -> dict[str, Work | Unreadable]:
    """What each says, all asked at once; one that doesn't say it in time tells nothing."""
    if not checks:
        return {}
    said: dict[str, Work | Unreadable] = {}

    def ask(name: str, check: DeliveryCheck) -> None:
        said[name] = check.look()

    threads = [
        threading.Thread(target=ask, args=each, name="look", daemon=True) for each in checks.items()
    ]
    for thread in threads:
        thread.start()
    ends_at = time.monotonic() + _LOOK_WITHIN_S
    for thread in threads:
        thread.join(max(ends_at - time.monotonic(), 0.0))
    late = Unreadable(f"no answer within {_LOOK_WITHIN_S:g} s")
    return {name: said.get(name, late) for name in checks}
