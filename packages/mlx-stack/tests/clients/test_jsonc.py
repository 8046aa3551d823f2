"""Editing JSON with comments changes what it is told to and nothing else."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_stack.clients.jsonc import DocumentError, delete_value, parse, set_value

SETTINGS = """\
// Settings of an editor
{
  "theme": "One", // the light one
  /* points */ "font_size": 15,
  "languages": {"Python": {"tab_size": 4,},},
}
"""

keys = st.text(min_size=1, max_size=6)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(keys, values, max_size=4)


def test_comments_and_trailing_commas_are_understood() -> None:
    assert parse(SETTINGS) == {
        "theme": "One",
        "font_size": 15,
        "languages": {"Python": {"tab_size": 4}},
    }


def test_a_new_value_leaves_every_other_character_alone() -> None:
    changed = set_value(SETTINGS, ("models", "mlx"), {"url": "http://127.0.0.1"})

    for line in SETTINGS.splitlines()[:-1]:
        assert line in changed
    assert parse(changed) == {
        **dict(parse(SETTINGS)),  # pyright: ignore[reportArgumentType, reportCallIssue]
        "models": {"mlx": {"url": "http://127.0.0.1"}},
    }


def test_a_value_that_is_taken_away_again_leaves_the_comments() -> None:
    changed = delete_value(set_value(SETTINGS, ("models", "mlx"), 1), ("models", "mlx"))

    assert parse(changed) == parse(SETTINGS)
    assert "// the light one" in changed
    assert "/* points */" in changed


@pytest.mark.parametrize(
    "text", ["", "{}", "{ // nothing yet\n}", '{"a": 1}', '{"a": 1,} // end\n']
)
def test_setting_and_deleting_works_from_any_beginning(text: str) -> None:
    changed = set_value(text, ("p", "q"), [1])

    assert parse(changed) == {**parse(text), "p": {"q": [1]}}  # pyright: ignore[reportGeneralTypeIssues]
    assert parse(delete_value(changed, ("p", "q"))) == parse(text)


@given(documents, st.lists(keys, min_size=1, max_size=3), values)
def test_any_value_can_be_set_anywhere(
    document: dict[str, object], path: list[str], value: object
) -> None:
    place: object = document
    for key in path[:-1]:
        place = place.get(key, {}) if isinstance(place, dict) else None
    text = json.dumps(document, indent=2)
    if not isinstance(place, dict):
        with pytest.raises(DocumentError):
            set_value(text, tuple(path), value)
        return

    found: object = parse(set_value(text, tuple(path), value))

    for key in path:
        assert isinstance(found, dict)
        found = found[key]
    assert found == value


@pytest.mark.parametrize("text", [r'{"\u12": 1}', '{"a": NaN}', "[,]", '{"a": 1} /* no end'])
def test_what_no_reader_takes_is_refused(text: str) -> None:
    with pytest.raises(DocumentError):
        parse(text)


@given(st.text(alphabet='{}[]:,"/*\n ab1', max_size=30))
def test_damaged_text_is_refused_with_a_line(text: str) -> None:
    line = _refused_at(text)

    assert line is None or 1 <= line <= text.count("\n") + 1


def _refused_at(text: str) -> int | None:
    try:
        parse(text)
    except DocumentError as error:
        found = re.match(r"line (\d+): ", str(error))
        assert found is not None
        return int(found[1])
    return None
