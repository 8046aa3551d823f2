"""The gateway's key: made once, kept with mode 0600, handed on through the environment only."""

import errno
import os
import re
import secrets
from pathlib import Path
from typing import Annotated

import msgspec

from mlx_stack import atomic_file, json_file
from mlx_stack.home import Home

_KEY_BYTES = 32
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP})
"""What a file system without hard links says."""
MASK = "********"
"""What is shown in place of a secret."""
SECRET_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]+-----.*?(-----END [A-Z ]+-----|\Z)", re.DOTALL), MASK),
    (re.compile(r"(://)[^/\s@]+@"), rf"\1{MASK}@"),
    (re.compile(r"(?i)\b(bearer|authorization:\s*\w+)(\s+)[\w.~+/=-]{8,}"), rf"\1\2{MASK}"),
    (
        re.compile(
            r"(?i)((?:api[-_]?key|[-_]key|\btoken|[-_]token|secret|password|passwd)['\"]?\s*[:=]\s*['\"]?)"
            r"[^\s'\",;&}]{8,}"
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"\b(?:sk|pk|hf|gh[a-z]|github_pat|glpat|xox[a-z]|AKIA)[-_]?[\w-]{16,}"), MASK),
)
"""What looks like a secret, or stands where one belongs, each with its replacement."""
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
        _save_first(home.credentials, _Credentials(gateway_key=key))
        key = read_gateway_key(home) or key  # another process may have been quicker
    return key


def _save_first(path: Path, credentials: _Credentials) -> None:
    """Write the file unless there is one by now; it appears whole, and only once."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        json_file.write(temporary, credentials, mode=atomic_file.PRIVATE)
        os.link(temporary, path)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        json_file.write(path, credentials, mode=atomic_file.PRIVATE)
    finally:
        temporary.unlink(missing_ok=True)


def mask_keys(text: str, key: str | None) -> str:
    """`text` without `key`, nor what looks like a key or stands where one belongs."""
    if key is not None:
        text = text.replace(key, MASK)
    for shape, replacement in SECRET_SHAPES:
        text = shape.sub(replacement, text)
    return text
