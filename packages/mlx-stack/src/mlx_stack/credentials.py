"""The gateway's key: made once, kept with mode 0600, handed on through the environment only."""

import json
import re
import secrets

from mlx_stack import atomic_file
from mlx_stack.errors import InvalidFileError
from mlx_stack.home import Home

_KEY_BYTES = 32
_KEY = re.compile(r"sk-[\w-]{43}")  # so many characters are 32 bytes in Base64
MASK = "********"
"""What stands where a secret would be shown."""
_HINT = (
    "Remove the file; the next `mlx-stack up` makes a new key, "
    "which clients need again (`mlx-stack env`)."
)


def read_gateway_key(home: Home) -> str | None:
    """The gateway's key, or None where none was made yet.

    Raises:
        InvalidFileError: The credentials file is damaged.
    """
    path = home.credentials
    try:
        document: object = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise InvalidFileError(path, "is not UTF-8 text", hint=_HINT) from error
    except json.JSONDecodeError as error:
        raise InvalidFileError(path, "is not valid JSON", line=error.lineno, hint=_HINT) from error
    except (ValueError, RecursionError) as error:  # a number without end, or nested without end
        raise InvalidFileError(path, "is not what was written there", hint=_HINT) from error
    match document:
        case {"schema_version": 1, "gateway_key": str(key)} if key and key.isascii():
            return key
        case _:
            raise InvalidFileError(path, "holds no `gateway_key`", hint=_HINT)


def ensure_gateway_key(home: Home) -> str:
    """The gateway's key; made and saved where there is none.

    Raises:
        InvalidFileError: The credentials file is damaged.
        OSError: It can't be written.
    """
    key = read_gateway_key(home)
    if key is None:
        key = f"sk-{secrets.token_urlsafe(_KEY_BYTES)}"
        home.create()
        document = {"schema_version": 1, "gateway_key": key}
        text = json.dumps(document, indent=2) + "\n"
        atomic_file.write_text(home.credentials, text, mode=atomic_file.PRIVATE)
    return key


def mask_keys(text: str, key: str | None) -> str:
    """`text` without any key that was ever made here, and without `key`."""
    if key is not None:
        text = text.replace(key, MASK)
    return _KEY.sub(MASK, text)
