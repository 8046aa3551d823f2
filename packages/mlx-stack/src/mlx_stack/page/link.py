"""The page's address with a token that opens it once, made by `mlx-stack dashboard`."""

import hashlib
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlx_stack.errors import StackError
from mlx_stack.gateway.endpoint import gateway_url
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack

LASTS_S = 120
"""How long a token may lie around before somebody uses it."""
_TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class OneTimeLink:
    """Where the page is.

    Attributes:
        url: With the token, in the part that a browser sends to nobody.
    """

    url: str

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {"url": self.url, "lasts_s": LASTS_S}


def make_link(opened: OpenStack) -> OneTimeLink:
    """The page's address, good once and for two minutes.

    Raises:
        StackError: When the page is switched off.
        InvalidFileError: When the configuration is damaged.
    """
    config, home = opened.config, opened.home
    if not config.dashboard:
        raise StackError(
            "The page is switched off.", hint="`mlx-stack config set dashboard true` shows it."
        )
    home.create()
    folder = _folder(home)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in folder.iterdir():
        if _is_over(path):
            path.unlink(missing_ok=True)
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    _path(home, token).touch(mode=0o600)
    root = gateway_url(config.gateway_host, config.litellm_port)
    return OneTimeLink(f"{root}/ui/#token={token}")


def spend_token(home: Home, token: str) -> bool:
    """Whether the token was good; from now on it is not."""
    path = _path(home, token)
    is_over = _is_over(path)
    with suppress(OSError):
        path.unlink()  # of several that try, one succeeds
        return not is_over
    return False


def _folder(home: Home) -> Path:
    return home.page / "tokens"


def _path(home: Home, token: str) -> Path:
    """Named by its digest: who can list the folder learns no token."""
    return _folder(home) / hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _is_over(path: Path) -> bool:
    try:
        age_s = time.time() - path.stat().st_mtime
    except OSError:
        return True
    return not 0 <= age_s + 1 <= LASTS_S
