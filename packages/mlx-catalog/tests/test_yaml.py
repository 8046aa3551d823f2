import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_catalog import yaml12

texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**18) + 1, 10**18 - 1)
    | texts
    | st.floats(-1e12, 1e12)
)
documents = st.recursive(
    scalars,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(texts, children, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(documents)
def test_what_json_can_say_is_read_back_as_it_was(value: object):
    assert yaml12.read(json.dumps(value, ensure_ascii=False)) == value


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(texts, documents, max_size=4))
def test_what_pyyaml_writes_is_read_back_as_it_was(value: dict[str, object]):
    written = yaml.safe_dump(value, allow_unicode=True)
    if "&id" not in written:
        assert yaml12.read(written) == value


def test_words_and_numbers_of_yaml_1_1_stay_text():
    text = "a: yes\nb: off\nc: 2026-02-27\nd: 1_000\ne: 0x1F\nf: 012\ng: 1:30\nh: .inf\ni: 1e999"
    assert yaml12.read(text) == {
        "a": "yes",
        "b": "off",
        "c": "2026-02-27",
        "d": "1_000",
        "e": "0x1F",
        "f": "012",
        "g": "1:30",
        "h": ".inf",
        "i": "1e999",
    }


@settings(max_examples=200, deadline=None)
@given(documents)
def test_what_is_written_is_read_back_as_it_was(value: object):
    assert yaml12.read(yaml12.write(value)) == value


@pytest.mark.parametrize("text", ["12e4", "1.5", "-0", "TRUE", "~", "0800", "no", "12:30", ""])
def test_text_that_looks_like_something_else_stays_text(text: str):
    assert yaml12.read(yaml12.write({"key": text})) == {"key": text}


def test_a_value_that_stands_twice_is_written_twice():
    shared = ["a"]
    assert yaml12.read(yaml12.write({"b": shared, "c": shared})) == {"b": ["a"], "c": ["a"]}


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 1),
        (("a",), 1),
        (("b",), 2),
        (("b", "c"), 3),
        (("b", "c", 0), 3),
        (("b", "c", 1), 4),
        (("b", "d"), 5),
        (("b", "c", 7), 3),
        (("b", "missing", "further"), 2),
        (("missing",), 1),
    ],
)
def test_a_key_path_has_its_line_and_what_is_missing_that_of_its_parent(
    path: tuple[str | int, ...], line: int
):
    text = "a: 1\nb:\n  c: [1,\n    2]\n  d: >-\n    folded\n"
    assert yaml12.locate(text, path) == line


@pytest.mark.parametrize("text", ["[" * 100_000, "a: {b: " * 500, "- " * 5000 + "1"])
def test_what_is_nested_without_end_is_refused(text: str):
    with pytest.raises(yaml12.YamlError):
        yaml12.read(text)
