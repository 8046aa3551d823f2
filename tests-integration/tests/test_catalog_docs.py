"""The catalog's pages are true: the example is a tested file, and the schema that of the code."""

import json
import re
from pathlib import Path
from typing import get_args

import jsonschema
import msgspec
import pytest

from mlx_catalog import load_entries
from mlx_catalog.catalog import SHIPPED_MODELS
from mlx_catalog.json_schema import entry_schema
from mlx_catalog.schema import (
    Architecture,
    Capabilities,
    CatalogEntry,
    Geometry,
    RecurrentKind,
    Source,
    ThinkingControl,
)
from stack_testkit.program import Program

pytestmark = pytest.mark.story

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "how-to" / "examples" / "smollm2-135m.yaml"


def test_the_example_of_the_page_is_the_file():
    page = (DOCS / "how-to" / "add-a-model.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(id: .*?)```", page, flags=re.DOTALL)
    assert shown == EXAMPLE.read_text(encoding="utf-8")


def test_the_example_is_a_valid_entry():
    (entry,) = load_entries(EXAMPLE)
    assert entry.geometry.growing_kv_elements_per_token == 30 * 2 * 3 * 64


def test_the_example_works_as_the_page_says(program: Program):
    program.home.catalog.mkdir(parents=True)
    (program.home.catalog / EXAMPLE.name).write_bytes(EXAMPLE.read_bytes())
    listed = program.run(
        "models", "--catalog", "--family", "smollm2", "--hardware", "m1:8:8", "--json"
    )
    (model,) = listed.document["models"]
    assert model["id"] == "smollm2-135m"
    assert model["estimate"]["fits"] is True
    estimated = program.run("estimate", "smollm2-135m", "--hardware", "m1:8:8", "--json")
    assert estimated.document["fits"] is True


def test_every_key_is_in_the_reference():
    page = (DOCS / "reference" / "catalog-entry.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_0-9]+)`", page))
    for kind in (CatalogEntry, Geometry, Source, Capabilities):
        assert set(kind.__struct_fields__) <= named, kind


def test_every_choice_is_in_the_reference():
    page = (DOCS / "reference" / "catalog-entry.md").read_text(encoding="utf-8")
    for choices in (Architecture, RecurrentKind, ThinkingControl):
        assert [each for each in get_args(choices) if f"`{each}`" not in page] == []


def test_every_shipped_entry_meets_the_json_schema_for_editors():
    validator = jsonschema.Draft202012Validator(entry_schema())
    for entry in load_entries(SHIPPED_MODELS):
        document = json.loads(json.dumps(_plain(entry)))
        assert list(validator.iter_errors(document)) == [], entry.id


def test_the_json_schema_refuses_what_validation_refuses():
    validator = jsonschema.Draft202012Validator(entry_schema())
    (entry,) = load_entries(EXAMPLE)
    for damage in ({"params_b": "lots"}, {"famly": "x"}, {"architecture": "rnn"}, {"id": "A B"}):
        assert list(validator.iter_errors({**_plain(entry), **damage})), damage


def _plain(entry: CatalogEntry) -> dict[str, object]:
    return msgspec.to_builtins(entry, builtin_types=())
