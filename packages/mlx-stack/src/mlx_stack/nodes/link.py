"""Whether what goes to a node may go there unencrypted: the key, every prompt, every answer."""

import ipaddress
import socket
from urllib.parse import urlsplit

from mlx_stack.errors import StackError, UsageError

_HINT = (
    "If no one else can listen on this link (a cable, a network of your own), add "
    "--private-link. Otherwise pair the Macs (`mlx-stack nodes pair` there, `nodes add HOST "
    "--code` here), use an https:// address, or an SSH tunnel: "
    "`ssh -N -L 4001:127.0.0.1:4000 HOST`, then `nodes add http://127.0.0.1:4001`."
)


TLS_PORT = 4443
"""Where other Macs reach a gateway by TLS, unless `node-port` says otherwise."""


def node_url(text: str, *, is_paired: bool = False) -> str:
    """The root of a node's gateway, as it is kept: no path, no slash at the end.

    `studio.local:4000` and `http://studio.local:4000/v1` mean the same. An IPv6 address alone needs
    no brackets.

    Args:
        is_paired: It has an authority of its own: it is TLS, on another port.

    Raises:
        UsageError: When it is no URL of a gateway.
    """
    text = text.strip()
    if _is_ipv6(text):
        text = f"[{text}]"
    scheme = "https" if is_paired else "http"
    try:
        parts = urlsplit(text if "://" in text else f"{scheme}://{text}")
    except ValueError:
        parts = urlsplit("")
    try:
        port = parts.port
    except ValueError:
        port = -1
    is_plain = not (parts.query or parts.fragment or parts.username or parts.password)
    path = parts.path.rstrip("/").removesuffix("/v1")
    is_host = _is_host(parts.hostname or "")
    if parts.scheme not in ("http", "https") or not is_host or path or not is_plain:
        raise UsageError(
            f"{text!r} is not the address of a gateway.",
            hint="For example http://studio.local:4000.",
        )
    if port == -1:
        raise UsageError(
            f"{text!r} has no valid port.", hint="For example http://studio.local:4000."
        )
    assert parts.hostname is not None  # as checked above
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if is_paired and parts.scheme != "https":
        raise UsageError(
            f"{text!r} is an address without TLS.", hint="For example studio.local, or https://…"
        )
    if port is None and (is_paired or parts.scheme == "http"):
        port = TLS_PORT if is_paired else 4000
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}"


def _is_host(name: str) -> bool:
    """Whether it can be looked up: no label is empty or too long."""
    if ":" in name:
        return True  # an address, as `urlsplit` has checked
    try:
        is_word = bool(name) and name.isprintable() and not any(map(str.isspace, name))
        return is_word and bool(name.encode("idna"))
    except UnicodeError:
        return False


def _is_ipv6(text: str) -> bool:
    """Whether a text is an IPv6 address alone, which a URL has in brackets."""
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def require_private(url: str, *, is_said_to_be_private: bool) -> None:
    """Return if what is sent to `url` is encrypted, or can't be heard by others.

    Raises:
        UsageError: When it would cross a network in clear text, and nobody said that this is fine.
        StackError: When the name has no address.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" or is_said_to_be_private:
        return
    assert parts.hostname is not None  # as `node_url` made it
    if not all(is_unrouted(address) for address in _addresses(parts.hostname)):
        raise UsageError(
            f"The link to {parts.hostname} is not encrypted: others on the network could read the "
            "key and every prompt.",
            hint=_HINT,
        )


def is_unrouted(address: str) -> bool:
    """Whether an address never leaves this machine, or the cable between two."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return parsed.is_loopback or parsed.is_link_local


def _addresses(host: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise StackError(
            f"There is no address for {host!r}.", hint="Is the name right, and the Mac awake?"
        ) from error
    return [str(each[4][0]) for each in found]
