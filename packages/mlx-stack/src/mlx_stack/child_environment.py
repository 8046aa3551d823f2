"""What processes that we start may see of our environment: one list for all of them.

Tokens, cloud credentials, PYTHONPATH and everything else that isn't named here stay behind.
"""

import os
from collections.abc import Mapping

_INHERITED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ"),
        *("LANG", "LC_ALL", "LC_CTYPE"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    }
)


def inherited_environment(
    environment: Mapping[str, str] = os.environ, *, also: frozenset[str] = frozenset()
) -> dict[str, str]:
    """The part of the caller's environment that child processes see; `also` names more of it."""
    names = _INHERITED | also
    return {name: value for name, value in environment.items() if name in names}
