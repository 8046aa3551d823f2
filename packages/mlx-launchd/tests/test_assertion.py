"""When the machine is kept awake."""

from hypothesis import given
from hypothesis import strategies as st

from mlx_launchd import KeepAwake, ServingHistory, caffeinate_command, should_hold


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100)), max_size=20), st.floats(0, 300))
def test_the_policies_never_and_always_ignore_requests(
    looks: list[tuple[bool, float]], linger_s: float
) -> None:
    history, now_s = ServingHistory(), 0.0
    for serving, passed_s in looks:
        now_s += passed_s
        history = history.seen(serving=serving, now_s=now_s)
    assert should_hold(KeepAwake.ALWAYS, history, now_s=now_s, linger_s=linger_s)
    assert not should_hold(KeepAwake.NEVER, history, now_s=now_s, linger_s=linger_s)


def test_serving_holds_from_the_first_request_until_a_while_after_the_last() -> None:
    def holds(history: ServingHistory, now_s: float) -> bool:
        return should_hold(KeepAwake.SERVING, history, now_s=now_s, linger_s=60)

    history = ServingHistory()
    assert not holds(history, 0)
    history = history.seen(serving=True, now_s=10)
    assert holds(history, 10)
    history = history.seen(serving=False, now_s=40)
    assert holds(history, 70)
    assert not holds(history, 71)


def test_the_assertion_ends_with_the_process_it_is_held_for() -> None:
    assert caffeinate_command(4711) == ("caffeinate", "-i", "-s", "-w", "4711")
