"""Names of tools that every engine takes."""

import re

from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway.protocols.tool_names import engine_name


@given(st.text(min_size=1, max_size=200), st.text(max_size=100))
def test_every_name_becomes_one_that_engines_take(name: str, namespace: str) -> None:
    short = engine_name(name, namespace)

    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", short)
    assert engine_name(name, namespace) == short


@given(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True))
def test_a_name_that_engines_take_stays(name: str) -> None:
    assert engine_name(name) == name


@given(st.sets(st.text("ab.", min_size=60, max_size=90), min_size=2, max_size=5))
def test_different_tools_keep_different_names(names: set[str]) -> None:
    assert len({engine_name(name) for name in names}) == len(names)


def test_a_tool_of_a_namespace_names_it() -> None:
    assert engine_name("magic", "mcp__srv") == "mcp__srv__magic"
