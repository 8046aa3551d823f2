"""The JSON Schema of an entry, which editors complete and check YAML with."""

from typing import Any

import msgspec

from mlx_catalog.schema import CatalogEntry

SCHEMA_ID = "urn:mlx-catalog:entry"


def entry_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that an entry's YAML, read as JSON, must meet."""
    schema = msgspec.json.schema(CatalogEntry)
    named = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **schema}
    return msgspec.json.decode(msgspec.json.encode(named))
