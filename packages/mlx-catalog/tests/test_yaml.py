import json

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_catalog import _yaml

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
    assert _yaml.read(json.dumps(value, ensure_ascii=False)) == value


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(texts, documents, max_size=4))
def test_what_pyyaml_writes_is_read_back_as_it_was(value: dict[str, object]):
    written = yaml.safe_dump(value, allow_unicode=True)
    if "&id" not in written:
        assert _yaml.read(written) == value


def test_words_of_yaml_1_1_stay_words():
    text = "a: yes\nb: off\nc: 2026-02-27\nd: 1_000\ne: 0x1F\nf: 012\ng: 1:30\nh: .inf\ni: 1e999"
    assert _yaml.read(text) == {
        "a": "yes",
        "b": "off",
        "c": "2026-02-27",
        "d": "1_000",
        "e": "0x1F",
        "f": 12,
        "g": "1:30",
        "h": ".inf",
        "i": "1e999",
    }


def test_every_key_and_item_has_its_line():
    text = "a: 1\nb:\n  c: [1,\n    2]\n  d: >-\n    folded\n"
    assert _yaml.lines(text) == {
        (): 1,
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 3,
        ("b", "c", 0): 3,
        ("b", "c", 1): 4,
        ("b", "d"): 5,
    }
