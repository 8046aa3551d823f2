"""A request's JSON, read once: its top-level fields, values as the bytes that came."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast

import msgspec

from mlx_gateway.errors import ApiError

_NULL = b"null"
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Fields:
    """The top-level fields of a JSON object.

    A value is decoded when it is asked for, and what is not touched goes on byte for byte.

    Attributes:
        size_bytes: The size of the document that they were read from.
    """

    def __init__(self, raw: dict[str, bytes], size_bytes: int) -> None:
        self._raw = raw
        self.size_bytes = size_bytes

    def __contains__(self, name: str) -> bool:
        return name in self._raw

    def raw(self, name: str) -> bytes:
        """The bytes of a value; empty where the field is missing."""
        return self._raw.get(name, b"")

    def get(self, name: str) -> Any:
        """A value, decoded; None where the field is missing."""
        raw = self._raw.get(name)
        return None if raw is None else msgspec.json.decode(raw)

    def text(self, name: str) -> str | None:
        """A value that must be text; None where the field is missing.

        Raises:
            ApiError: When it is something else.
        """
        value = self.get(name)
        if value is not None and not isinstance(value, str):
            raise invalid(f"`{name}` must be a string.", param=name)
        return value

    def flag(self, name: str) -> bool:
        """A value that must be true or false; false where the field is missing.

        Raises:
            ApiError: When it is something else.
        """
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise invalid(f"`{name}` must be true or false.", param=name)
        return bool(value)

    def without(self, *names: str) -> "Fields":
        """The fields but for these."""
        kept = {name: raw for name, raw in self._raw.items() if name not in names}
        return Fields(kept, self.size_bytes)

    def only(self, *names: str) -> "Fields":
        """None but these fields."""
        return Fields({name: self._raw[name] for name in names if name in self}, self.size_bytes)

    def with_values(self, **values: object) -> "Fields":
        """The fields with these values, which replace what stood there."""
        changed = {name: msgspec.json.encode(value) for name, value in values.items()}
        return Fields({**self._raw, **changed}, self.size_bytes)

    def with_raw(self, name: str, raw: bytes) -> "Fields":
        """The fields with a value that is JSON already, which replaces what stood there."""
        return Fields({**self._raw, name: raw}, self.size_bytes)

    def decoded(self) -> dict[str, Any]:
        """Every value, decoded."""
        return {name: self.get(name) for name in self._raw}

    def encode(self) -> bytes:
        """The JSON document."""
        return object_of(self._raw)


def read_fields(body: bytes) -> Fields:
    """The fields of a request's body; those that are null are left out.

    Raises:
        ApiError: When it is not a JSON object, or holds text that no model can read.
    """
    if not body.strip():
        raise invalid("The request has no body; it must be a JSON object.")
    body = body.removeprefix(b"\xef\xbb\xbf")
    try:
        raw = _decode_fields(body)
        msgspec.json.decode(body)  # the line above looks at values only as far as it must
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if isinstance(error, msgspec.ValidationError) and "range" not in str(error):
            raise invalid("The request's body must be a JSON object.") from error
        raise invalid(f"The request's body is not valid JSON: {_reason(error, body)}.") from error
    values = {name: bytes(value) for name, value in raw.items()}
    return Fields({k: v for k, v in values.items() if v != _NULL}, len(body))


def object_of(raw: Mapping[str, bytes]) -> bytes:
    """A JSON object of values that are JSON already."""
    parts = (msgspec.json.encode(name) + b":" + value for name, value in raw.items())
    return b"{" + b",".join(parts) + b"}"


def object_in(value: object) -> dict[str, Any]:
    """`value` if it is a JSON object; else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def list_in(value: object) -> list[Any]:
    """`value` if it is a JSON array; else an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def invalid(message: str, *, param: str | None = None) -> ApiError:
    """The answer to a request that breaks its API's rules."""
    return ApiError(HTTPStatus.BAD_REQUEST, message, param=param)


def _reason(error: Exception, body: bytes) -> str:
    """Why a body can't be read; msgspec calls half of an escaped character a truncated input."""
    if "truncated" in str(error) and _ESCAPED_SURROGATE.search(body):
        return "it ends early, or contains half of an escaped character (a lone surrogate)"
    return str(error)
