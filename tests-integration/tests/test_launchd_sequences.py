"""Whatever is done to a Mac in whatever order, a loaded job has its plist, and a plist its job."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stack_testkit.launchd_world import LABEL, World
from stack_testkit.simulated_processes import Behaviour

pytestmark = pytest.mark.story

fault = st.builds(
    lambda verb_and_code, times, anyway: {
        "verb": verb_and_code[0],
        "code": verb_and_code[1],
        "text": f"{verb_and_code[0]} failed: {verb_and_code[1]}",
        "times": times,
        # A command that worked although it said 5 or 36 was seen; one that was denied and did
        # the deed was not.
        "does_it_anyway": anyway and verb_and_code[1] in (5, 36),
    },
    st.sampled_from(
        [("bootstrap", code) for code in (1, 2, 5, 17, 37, 119, 122, 125, 141)]
        + [("bootout", code) for code in (1, 5, 36, 125, 141)]
        + [("enable", 1), ("kickstart", 113), ("print", 141), ("print", 1)]
    ),
    st.integers(1, 3),
    st.booleans(),
).filter(lambda f: f["verb"] != "print" or f["times"] == 1)

operations = st.one_of(
    st.tuples(st.just("install"), st.integers(1, 3)),
    st.tuples(st.just("install"), st.integers(1, 3)),
    st.tuples(st.just("uninstall")),
    st.tuples(st.just("crash")),
    st.tuples(st.just("wait"), st.floats(0, 30)),
    st.tuples(
        st.just("program_becomes"),
        st.sampled_from(
            [
                Behaviour(),
                Behaviour(ends_after_s=0.3, exit_code=1),
                Behaviour(ends_after_s=2.0, exit_code=78),
                Behaviour(ignores_sigterm=True),
                Behaviour(unkillable=True),
            ]
        ),
    ),
    st.tuples(st.just("log_out")),
    st.tuples(st.just("log_in")),
    st.tuples(st.just("loaded_elsewhere")),
    st.tuples(
        st.just("change"),
        st.fixed_dictionaries(
            {
                "faults": st.lists(fault, max_size=2),
                "ghost_s": st.sampled_from([0.0, 0.4, 2.5, 60.0]),
                "teardown_s": st.sampled_from([0.0, 0.6, 4.0]),
                "bootout_code": st.sampled_from([0, 36]),
                "loaded_code": st.sampled_from([5, 37, 17]),
                "login_items_off": st.sampled_from([[], [], [LABEL]]),
                "overrides": st.sampled_from([{}, {"501": {LABEL: True}}]),
                "macos": st.sampled_from(["11.7", "14.2", "15.7.9", "26.5.1", "27.0"]),
            }
        ),
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(operations, min_size=1, max_size=12))
def test_any_sequence_ends_as_asked_or_with_a_clear_error(
    sequence: list[tuple[Any, ...]],
) -> None:
    with TemporaryDirectory() as folder:
        world = World(Path(folder))
        for name, *arguments in sequence:
            world.do(name, *arguments)
