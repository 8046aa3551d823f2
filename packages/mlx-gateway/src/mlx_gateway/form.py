"""A multipart form with one file, as OpenAI's clients send a sound; made anew for an engine.

Nothing of the client's own form goes on but values that were read: no file name, no header.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from mlx_gateway.fields import Fields, invalid

MOST_PARTS = 32
LONGEST_FIELD_BYTES = 2**16
FORM = "multipart/form-data"
_FILE = "file"
_NAME = re.compile(r"[A-Za-z0-9_\[\]]+")


@dataclass(frozen=True, slots=True)
class Form:
    """What a form holds.

    Attributes:
        fields: Its values, each a string; those of a list, whose name ends in `[]`, with commas.
        file: The content of its file, a part of the body; empty where it has none.
    """

    fields: Fields
    file: memoryview


def is_form(content_type: str) -> bool:
    """Whether a body of this type is a form."""
    return content_type.partition(";")[0].strip().lower() == FORM


def read_form(body: bytes, content_type: str) -> Form:
    """The form in a request's body.

    Raises:
        ApiError: When it is damaged, has too many or too long fields, or one of them twice.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise invalid("The form's Content-Type has no boundary.")
    parts = _Parts()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": parts.begin,
                "on_header_field": parts.name_header,
                "on_header_value": parts.value_header,
                "on_part_data": parts.add,
                "on_part_end": parts.end,
                "on_end": parts.finish,
            },
        )
        parser.write(body)
    except FormParserError as error:
        raise invalid("The form is damaged.") from error
    if not parts.is_whole:
        raise invalid("The form is damaged: it ends early.")
    raw = {name: msgspec.json.encode(value) for name, value in parts.fields.items()}
    begin, end = parts.file or (0, 0)
    return Form(Fields(raw, len(body)), memoryview(body)[begin:end])


def encode_form(fields: Mapping[str, str], file: memoryview) -> tuple[str, bytes]:
    """The content type and the body of a form with these values and this file.

    Raises:
        ApiError: When the name of a field could end its header.
    """
    for name in fields:
        if not _NAME.fullmatch(name):
            raise invalid(f"A form's field can't be called {name[:64]!r}.")
    boundary = secrets.token_hex(16)
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    head += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{_FILE}"; filename="sound"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = b"".join((head.encode(), file, f"\r\n--{boundary}--\r\n".encode()))
    return f"{FORM}; boundary={boundary}", body


class _Parts:
    """What the parser found: values, and where the file begins and ends in the body."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.file: tuple[int, int] | None = None
        self.is_whole = False
        self._count = 0
        self._headers: dict[bytes, bytes] = {}
        self._header = b""
        self._begin = self._end = 0
        self._body = b""

    def begin(self) -> None:
        self._count += 1
        if self._count > MOST_PARTS:
            raise invalid(f"The form has more than {MOST_PARTS} fields.")
        self._headers, self._begin, self._end = {}, 0, 0

    def name_header(self, data: bytes, start: int, end: int) -> None:
        self._header = data[start:end].lower()

    def value_header(self, data: bytes, start: int, end: int) -> None:
        self._headers[self._header] = data[start:end]

    def add(self, data: bytes, start: int, end: int) -> None:
        # the body is parsed in one go, so that its pieces lie side by side
        self._begin = self._begin or start
        self._end, self._body = end, data

    def end(self) -> None:
        from python_multipart.multipart import parse_options_header

        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name == _FILE:
            if self.file is not None:
                raise invalid("The form has more than one file.", param=_FILE)
            self.file = self._begin, self._end
            return
        if self._end - self._begin > LONGEST_FIELD_BYTES:
            raise invalid(f"`{name[:64]}` is longer than {LONGEST_FIELD_BYTES:,} bytes.")
        if name in self.fields and not name.endswith("[]"):
            raise invalid(f"The form has `{name[:64]}` twice.", param=name[:64])
        try:
            value = self._body[self._begin : self._end].decode()
        except UnicodeDecodeError as error:
            raise invalid(f"`{name[:64]}` isn't UTF-8.", param=name[:64]) from error
        # of a list, each value has a part of its own
        self.fields[name] = f"{self.fields[name]},{value}" if name in self.fields else value

    def finish(self) -> None:
        self.is_whole = True
