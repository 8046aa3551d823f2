"""The documented shapes of `--json`, and whether an answer has one of them exactly."""

import json
from functools import cache
from importlib.resources import files
from typing import Any, cast

from jsonschema import Draft202012Validator, ValidationError
from referencing import Registry, Resource

_FOLDER = files("mlx_stack") / "schemas"


def schema_names() -> list[str]:
    """The names of all schemas, such as `status` and `models-catalog`."""
    return sorted(entry.name.removesuffix(".json") for entry in _FOLDER.iterdir())


def load_schema(name: str) -> dict[str, Any]:
    """The schema as it is published: answers may grow fields that it doesn't know."""
    return json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def differences(document: object, name: str) -> list[str]:
    """Where `document` isn't what the schema says; a field that it doesn't name is one too."""
    # the library's stubs leave its validators half typed
    validator = cast("Any", Draft202012Validator(_closed(load_schema(name)), registry=_registry()))
    errors: list[ValidationError] = list(validator.iter_errors(document))
    return [f"{error.json_path}: {error.message}" for error in errors]


@cache
def _registry() -> Registry[Any]:
    pairs = [(f"{name}.json", _closed(load_schema(name))) for name in schema_names()]
    return Registry[Any]().with_resources(
        (name, Resource[Any].from_contents(schema)) for name, schema in pairs
    )


def _closed(schema: Any) -> Any:
    """The schema, with every object refusing fields that it doesn't name."""
    if isinstance(schema, list):
        return [_closed(part) for part in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    parts = {key: _closed(part) for key, part in cast("dict[str, Any]", schema).items()}
    if "properties" in parts and "required" in parts:
        parts.setdefault("additionalProperties", False)
    return parts
