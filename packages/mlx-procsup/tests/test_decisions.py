"""The pure decisions: states, restarts, hangs, time to load, memory."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_procsup.admission import Need, admit
from mlx_procsup.hang import HangRule, Observation
from mlx_procsup.pressure import (
    Pressure,
    PressureHistory,
    Sheddable,
    ShedRule,
    decide_shedding,
    pressure_of_share,
    read_pressure,
)
from mlx_procsup.progress import LoadSample, LoadTimeout, progressed
from mlx_procsup.restart import Action, History, RestartPolicy, decide
from mlx_procsup.state import ServiceState, classify

POLICY = RestartPolicy(delay_s=5, max_restarts=5, window_s=600, stable_s=120)
HANG = HangRule(polls=3, cpu_share=0.005, start_grace_s=60)


@pytest.mark.parametrize(
    ("has_pid_file", "alive", "answered_ok", "response_s", "state"),
    [
        (False, False, None, None, "stopped"),
        (True, False, None, None, "crashed"),
        (True, True, None, None, "healthy"),
        (True, True, True, 2.0, "healthy"),
        (True, True, True, 2.01, "degraded"),
        (True, True, True, 5.0, "degraded"),
        (True, True, True, 5.01, "down"),
        (True, True, False, 0.1, "down"),
        (True, True, False, None, "down"),
    ],
)
def test_a_state_follows_from_what_was_seen(
    has_pid_file: bool, alive: bool, answered_ok: bool | None, response_s: float | None, state: str
) -> None:
    seen = classify(
        has_pid_file=has_pid_file, alive=alive, answered_ok=answered_ok, response_s=response_s
    )
    assert seen.value == state


def test_pauses_double_and_end_at_the_longest() -> None:
    pauses = [POLICY.backoff_s(n) for n in range(9)]
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert POLICY.backoff_s(10_000) == 300


@given(st.integers(0, 20), st.floats(0.1, 120))
def test_a_policy_sees_its_own_restarts_as_flapping(max_restarts: int, delay_s: float) -> None:
    policy = RestartPolicy.of(max_restarts, delay_s)
    history, now, restarts = History(), 1000.0, 0
    while True:
        history, decision = decide(history, look(now, "crashed"), policy, HANG)
        if decision.action is Action.GIVE_UP:
            break
        if decision.action is Action.RESTART:
            history, restarts = history.restarted(now), restarts + 1
        now = max(now, decision.due_at)
    assert restarts == max_restarts


def test_only_a_stable_period_resets_the_pauses() -> None:
    history = History().restarted(10).restarted(30)
    history, _ = decide(history, look(40, "healthy"), POLICY, HANG)
    assert decide(history, look(159, "healthy"), POLICY, HANG)[0].attempts == 2
    assert decide(history, look(160, "healthy"), POLICY, HANG)[0].attempts == 0
    broken, _ = decide(history, look(90, "crashed"), POLICY, HANG)
    interrupted, _ = decide(broken, look(100, "healthy"), POLICY, HANG)
    assert decide(interrupted, look(160, "healthy"), POLICY, HANG)[0].attempts == 2


def test_restarts_outside_the_window_are_forgotten() -> None:
    history = History(restarts=(0.0, 100.0, 650.0), attempts=3)
    assert decide(history, look(700, "healthy"), POLICY, HANG)[0].restarts == (650.0,)


def look(at: float, state: str, **fields: object) -> Observation:
    return Observation(at=at, state=ServiceState(state), is_wanted=True, **fields)  # type: ignore[arg-type]


def acts(*looks: Observation) -> list[str]:
    history, actions = History(), []
    for seen in looks:
        history, decision = decide(history, seen, POLICY, HANG)
        actions.append(decision.action.value)
    return actions


def test_a_crash_is_restarted_after_the_delay() -> None:
    assert acts(look(0, "healthy"), look(30, "crashed"), look(35, "crashed")) == [
        "nothing",
        "wait",
        "restart",
    ]


def test_what_is_not_wanted_stays_as_it_is() -> None:
    crashed = replace(look(30, "crashed"), is_wanted=False)
    assert decide(History(), crashed, POLICY, HANG)[1].action is Action.NOTHING


def test_a_hung_service_is_restarted_after_several_polls() -> None:
    polls = [look(at, "down", cpu_s=100.0, uptime_s=1000 + at) for at in (0, 30, 60, 65)]
    assert acts(*polls) == ["nothing", "nothing", "wait", "restart"]


def test_a_long_prefill_is_not_shot() -> None:
    polls = [look(at, "down", cpu_s=at * 0.9, uptime_s=1000 + at) for at in range(0, 3000, 30)]
    assert set(acts(*polls)) == {"nothing"}


def test_a_service_that_hangs_after_a_long_prefill_is_restarted_as_soon_as_any_other() -> None:
    worked = [look(at, "down", cpu_s=at * 0.9, uptime_s=1000 + at) for at in range(0, 3000, 30)]
    hung = [look(at, "down", cpu_s=2700.0, uptime_s=1000 + at) for at in (3000, 3030, 3060, 3065)]
    assert acts(*worked, *hung)[-4:] == ["nothing", "nothing", "wait", "restart"]


def test_a_service_that_is_still_loading_is_not_hung() -> None:
    polls = [look(at, "down", cpu_s=1.0, uptime_s=at) for at in (1, 11, 21, 31, 59)]
    assert set(acts(*polls)) == {"nothing"}


def test_a_machine_that_slept_gives_every_service_another_chance() -> None:
    history = History()
    for at in (0, 30):
        history, _ = decide(history, look(at, "down", cpu_s=1.0, uptime_s=900), POLICY, HANG)
    history, decision = decide(
        replace(history, down=()), look(60, "down", cpu_s=1.0, uptime_s=900), POLICY, HANG
    )
    assert decision.action is Action.NOTHING


def test_what_should_run_and_never_did_is_started_and_counts_as_no_restart() -> None:
    never = [look(at, "stopped", was_started=False) for at in (0, 4, 5)]
    assert acts(*never) == ["wait", "wait", "start"]
    no_restarts = RestartPolicy(delay_s=5, max_restarts=0)
    history, _ = decide(History(), never[0], no_restarts, HANG)
    assert decide(history, never[2], no_restarts, HANG)[1].action is Action.START


def test_flapping_stays_flagged_for_ever() -> None:
    history, now = History(), 0.0
    actions: list[Action] = []
    for _ in range(200):
        history, decision = decide(history, look(now, "crashed"), POLICY, HANG)
        actions.append(decision.action)
        if decision.action is Action.RESTART:
            history = history.restarted(now)
        now += 5.0
    assert actions.count(Action.RESTART) == 5
    assert actions[-1] is Action.GIVE_UP
    history, decision = decide(history, look(now + 1e6, "crashed"), POLICY, HANG)
    assert decision.action is Action.GIVE_UP


def test_a_service_beyond_its_memory_is_recycled() -> None:
    grown = look(0, "healthy", memory_bytes=3 << 30, max_memory_bytes=2 << 30)
    assert acts(grown) == ["recycle"]
    assert acts(replace(grown, memory_bytes=2 << 30)) == ["nothing"]
    assert acts(replace(grown, max_memory_bytes=None)) == ["nothing"]


EVENTS = st.lists(st.tuples(st.sampled_from(list(ServiceState)), st.floats(0.1, 400)), max_size=60)


@given(EVENTS)
def test_restarts_never_come_sooner_than_their_pause(
    events: list[tuple[ServiceState, float]],
) -> None:
    history, now = History(), 0.0
    restarts: list[float] = []
    for state, step_s in events:
        now += step_s
        seen = Observation(at=now, state=state, is_wanted=True, cpu_s=1.0, uptime_s=1e6)
        history, decision = decide(history, seen, POLICY, HANG)
        assert decision.action is not Action.WAIT or decision.due_at > now
        if decision.action is Action.RESTART:
            restarts.append(now)
            history = history.restarted(now)
    assert all(later - earlier >= POLICY.delay_s for earlier, later in pairwise(restarts))
    for end in restarts:
        assert len([at for at in restarts if end - POLICY.window_s < at <= end]) <= 5


def sample(at_s: float, **fields: object) -> LoadSample:
    base = LoadSample(at_s, log_bytes=0, cpu_s=0, memory_bytes=0, answers_http=False)
    return replace(base, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("later", "what"),
    [
        (sample(10), None),
        (sample(10, log_bytes=1), "log"),
        (sample(10, log_bytes=1, answers_http=True), None),
        (sample(10, cpu_s=1.0), "CPU"),
        (sample(10, cpu_s=0.9), None),
        (sample(10, memory_bytes=4 << 20), "memory"),
        (sample(10, memory_bytes=1 << 20), None),
    ],
)
def test_progress_is_what_visibly_grows(later: LoadSample, what: str | None) -> None:
    assert progressed(sample(0), later) == what


def test_waiting_ends_at_the_timeout_the_standstill_or_the_limit() -> None:
    timeout = LoadTimeout(timeout_s=120, window_s=30, limit_s=1200)
    still = (sample(100), sample(130))
    loading = (sample(100), sample(130, memory_bytes=1 << 30))
    assert not timeout.is_over(still, 119)
    assert timeout.is_over(still, 130)
    assert not timeout.is_over(loading, 130)
    assert timeout.is_over(loading, 1200)
    assert timeout.is_over((), 120)


def test_the_usual_time_to_load_scales_with_the_timeout() -> None:
    assert LoadTimeout.of(120) == LoadTimeout(120, 30, 1200)
    assert LoadTimeout.of(4) == LoadTimeout(4, 2, 40)


GB = 1 << 30


@pytest.mark.parametrize(
    ("waiting", "loading", "available", "admitted"),
    [
        ([("a", 4), ("b", 4)], [], 10, ["a", "b"]),
        ([("a", 8), ("b", 4)], [], 10, ["a"]),
        ([("a", 8), ("b", 4), ("c", 2)], [], 10, ["a", "c"]),
        ([("a", 12), ("b", 4)], [], 10, ["b"]),
        ([("a", 12)], [], 10, ["a"]),
        ([("a", 12)], [("x", 4, 1)], 10, []),
        ([("a", 7)], [("x", 4, 1)], 10, ["a"]),
        ([("a", 0)], [("x", 40, 1)], 10, ["a"]),
        ([], [], 10, []),
    ],
)
def test_only_what_fits_into_memory_loads_side_by_side(
    waiting: list[tuple[str, int]],
    loading: list[tuple[str, int, int]],
    available: int,
    admitted: list[str],
) -> None:
    names = admit(
        [Need(name, need * GB) for name, need in waiting],
        [Need(name, need * GB, held * GB) for name, need, held in loading],
        available * GB,
    )
    assert names == admitted


@given(
    st.lists(st.integers(0, 20), max_size=8),
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=4),
    st.integers(0, 40),
)
def test_admission_never_promises_the_same_memory_twice_and_never_stalls(
    needs: list[int], loads: list[tuple[int, int]], available: int
) -> None:
    waiting = [Need(str(n), need) for n, need in enumerate(needs)]
    loading = [Need("x", need, held) for need, held in loads]
    names = admit(waiting, loading, available)
    promised = sum(need.needs_bytes for need in waiting if need.name in names)
    claimed = sum(max(0, one.needs_bytes - one.holds_bytes) for one in loading)
    assert promised <= max(0, available - claimed) or (len(names) == 1 and not loading)
    assert names or loading or not waiting


TIERS = [Sheddable("big", 3, shed=False), Sheddable("small", 1, shed=False)]
RULE = ShedRule(critical_polls=2, calm_s=300)


def test_the_least_important_service_makes_room_and_comes_back_when_it_is_calm() -> None:
    case, shed, _ = decide_shedding(PressureHistory(), Pressure.CRITICAL, TIERS, RULE, 0)
    assert shed is None
    case, shed, _ = decide_shedding(case, Pressure.CRITICAL, TIERS, RULE, 30)
    assert shed == "small"
    left = [TIERS[0], replace(TIERS[1], shed=True)]
    case, shed, _ = decide_shedding(case, Pressure.CRITICAL, left, RULE, 60)
    case, shed, _ = decide_shedding(case, Pressure.CRITICAL, left, RULE, 90)
    assert shed is None  # the last one stays
    case, _, restore = decide_shedding(case, Pressure.NORMAL, left, RULE, 120)
    case, _, restore = decide_shedding(case, Pressure.WARNING, left, RULE, 400)
    case, _, restore = decide_shedding(case, Pressure.NORMAL, left, RULE, 500)
    assert restore is None
    case, _, restore = decide_shedding(case, Pressure.NORMAL, left, RULE, 800)
    assert restore == "small"


def test_one_that_works_for_someone_makes_room_only_when_nobody_is_idle_for_long() -> None:
    small_works = [TIERS[0], replace(TIERS[1], is_busy=True)]
    case = PressureHistory(critical_polls=1)
    _, shed, _ = decide_shedding(case, Pressure.CRITICAL, small_works, RULE, 30)
    assert shed == "big"
    all_work = [replace(each, is_busy=True) for each in TIERS]
    shed_at: list[str | None] = []
    for now in (30, 60, 90):
        case, shed, _ = decide_shedding(case, Pressure.CRITICAL, all_work, RULE, now)
        shed_at.append(shed)
    assert shed_at == [None, None, "small"]


def test_pressure_is_read_from_what_is_available() -> None:
    assert pressure_of_share(0.5) is Pressure.NORMAL
    assert pressure_of_share(0.09) is Pressure.WARNING
    assert pressure_of_share(0.03) is Pressure.CRITICAL
    assert read_pressure() in Pressure


def silent(seconds: int, **fields: object) -> str:
    """What a service that had answered is said to be after so long without an answer."""
    history, _ = decide(History(), look(0, "healthy"), POLICY, HANG)
    reason = ""
    for now in range(30, seconds + 31, 30):
        seen = replace(look(now, "down"), uptime_s=1000.0 + now, **fields)  # type: ignore[arg-type]
        history, decision = decide(history, seen, POLICY, HANG)
        reason = decision.reason
    return reason


def test_a_silence_is_over_after_its_time_whatever_the_processor_does() -> None:
    history, _ = decide(History(), look(0, "healthy"), POLICY, HANG)
    reasons: list[str] = []
    for now in range(30, 300, 30):
        seen = replace(look(now, "down"), uptime_s=1000.0, cpu_s=float(now), silence_s=180.0)
        history, decision = decide(history, seen, POLICY, HANG)
        reasons.append(decision.reason)
    assert set(reasons[:6]) == {"fine"}
    assert reasons[6].startswith("no answer for 180 s")


def test_what_works_in_silence_needs_no_processor_time() -> None:
    assert silent(150, silence_s=600.0, works_in_silence=True) == "fine"
    assert silent(150, silence_s=600.0).startswith("no answer in 3 polls")
    assert silent(640, silence_s=600.0, works_in_silence=True).startswith("no answer for 6")


def test_a_load_has_not_answered_yet_and_gets_no_silence() -> None:
    history = History()
    for now in range(30, 1000, 30):
        seen = replace(look(now, "down"), uptime_s=float(now), cpu_s=float(now), silence_s=180.0)
        history, decision = decide(history, seen, POLICY, HANG)
        assert decision.reason == "fine"
