"""The gateway's key: made once, kept with mode 0600, handed on through the environment only."""

import re
import secrets
from typing import Annotated

import msgspec

from mlx_stack import atomic_file, json_file
from mlx_stack.home import Home

_KEY_BYTES = 32
_KEY = re.compile(r"sk-[\w-]{43}")  # so many characters are 32 bytes in Base64
MASK = "********"
"""What is shown in place of a secret."""
_HINT = (
    "Remove the file; the next `mlx-stack up` makes a new key, "
    "which clients need again (`mlx-stack env`)."
)


class _Credentials(msgspec.Struct, frozen=True, kw_only=True):
    schema_version: int = 1
    gateway_key: Annotated[str, msgspec.Meta(pattern=r"\A[!-~]+\Z")]


def read_gateway_key(home: Home) -> str | None:
    """The gateway's key, or None where none was made yet.

    Raises:
        InvalidFileError: When the credentials file is damaged.
    """
    credentials = json_file.read(home.credentials, _Credentials, hint=_HINT)
    return credentials.gateway_key if credentials is not None else None


def ensure_gateway_key(home: Home) -> str:
    """The gateway's key; made and saved where there is none.

    Raises:
        InvalidFileError: When the credentials file is damaged.
        OSError: When it can't be written.
    """
    key = read_gateway_key(home)
    if key is None:
        key = f"sk-{secrets.token_urlsafe(_KEY_BYTES)}"
        home.create()
        credentials = _Credentials(gateway_key=key)
        json_file.write(home.credentials, credentials, mode=atomic_file.PRIVATE)
    return key


def mask_keys(text: str, key: str | None) -> str:
    """`text` without any key that was ever made here, and without `key`."""
    if key is not None:
        text = text.replace(key, MASK)
    return _KEY.sub(MASK, text)
