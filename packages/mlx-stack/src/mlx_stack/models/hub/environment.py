"""What the environment says of the Hub, and of the way to it: read once, into a value.

Reading never fails, so that a command that stays on this machine doesn't die of a variable that it
has no use for. `HubEnvironment.ready` is what a command calls before it asks the Hub
(decision 0039).
"""

import ipaddress
import math
import os
import re
import ssl
import sys
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from mlx_stack import __version__
from mlx_stack.errors import UsageError
from mlx_stack.models.name import DEFAULT_ENDPOINT

DEFAULT_TIMEOUT_S = 10.0
_TRUE = frozenset({"1", "ON", "TRUE", "YES"})
_PROXY_SCHEMES = ("http", "socks5", "socks5h")
_PROXY_HINT = (
    "Set it to an http:// or socks5:// proxy, unset it, or name the Hub's host in NO_PROXY."
)
_SYSTEM = "the system's proxy setting"
_USER = re.compile(r"://[^/\s@]*@")


@dataclass(frozen=True, slots=True)
class Variable:
    """What a variable says."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HubEnvironment:
    """The Hub that the environment names, and how it is reached.

    Attributes:
        endpoint: Its address, without a slash at the end.
        token_path: The file that the token was read from; None where a variable holds it.
        cache: The folder of huggingface_hub's own cache of repositories.
        timeout_s: How long to wait for a connection, and for every byte.
        proxies: The proxy for addresses of each scheme; `all` is for those without one.
        certificate_file: The trusted certificates, in one file; None leaves it to the system.
        certificate_folder: The same, one file a certificate.
    """

    endpoint: str = DEFAULT_ENDPOINT
    token: str | None = None
    token_path: Path | None = None
    is_offline: bool = False
    cache: Path = field(default_factory=lambda: Path("~/.cache/huggingface/hub").expanduser())
    timeout_s: float = DEFAULT_TIMEOUT_S
    proxies: Mapping[str, Variable] = field(default_factory=dict[str, Variable])
    no_proxy: tuple[str, ...] = ()
    certificate_file: Variable | None = None
    certificate_folder: Variable | None = None
    problems: tuple[UsageError, ...] = ()

    @property
    def shown_endpoint(self) -> str:
        """The endpoint for people to read, without a user's name and password."""
        return _USER.sub("://", self.endpoint)

    def ready(self) -> "HubEnvironment":
        """This environment, known to make sense, with a token that was renewed where it had to be.

        Raises:
            UsageError: When a variable makes no sense; the message names it.
        """
        for problem in self.problems:
            raise problem
        self.proxy_of(self.endpoint)
        self.tls()
        if self.token is not None and not _is_private(self.endpoint):
            raise UsageError(
                f"HF_ENDPOINT is {self.shown_endpoint}: the token would go there unencrypted.",
                hint="Use https://, or unset HF_TOKEN (or `hf auth logout`) for this endpoint.",
            )
        if self.token is None or self.token_path is None:
            return self
        return replace(self, token=_renewed(self.token, self.token_path))

    def headers_of(self, url: str) -> dict[str, str]:
        """The headers of a request to `url`: the token goes to the endpoint's own origin only."""
        headers = {"User-Agent": f"mlx-stack/{__version__}"}
        if self.token is not None and origin_of(url) == origin_of(self.endpoint):
            headers["Authorization"] = f"Bearer {self.token}"
        return headers

    def proxy_setting(self, url: str) -> Variable | None:
        """What names the proxy that leads to `url`; None where it is reached directly."""
        scheme, host, port = origin_of(url)
        setting = self.proxies.get(scheme) or self.proxies.get("all")
        if setting is None or is_exempt(host, port, self.no_proxy):
            return None
        if setting.name == _SYSTEM and urllib.request.proxy_bypass(f"{host}:{port}"):
            return None
        return setting

    def proxy_of(self, url: str) -> str | None:
        """The address of the proxy that leads to `url`; None where it is reached directly.

        Raises:
            UsageError: When the proxy is of a kind that can't be used, or its address is none.
        """
        setting = self.proxy_setting(url)
        if setting is None:
            return None
        address = setting.value if "://" in setting.value else f"http://{setting.value}"
        kind = address.partition("://")[0].lower()
        if kind not in _PROXY_SCHEMES:
            message = f"{setting.name} names a {kind}:// proxy, which can't be used."
            raise UsageError(message, hint=_PROXY_HINT)
        if not _has_place(address):
            message = f"{setting.name} isn't the address of a proxy: {setting.value!r}."
            raise UsageError(message, hint=_PROXY_HINT)
        return address

    def tls(self) -> ssl.SSLContext:
        """Whose certificates are trusted: the environment's, else the system's.

        Raises:
            UsageError: When a variable names certificates that are not there.
        """
        file, folder = self.certificate_file, self.certificate_folder
        hint = "Correct it, or unset it to trust what the system trusts."
        for setting in filter(None, (file, folder)):
            try:
                os.stat(setting.value)  # noqa: PTH116 - OpenSSL doesn't name what it misses
            except OSError as error:
                message = f"{setting.name} names certificates that can't be read"
                raise UsageError(
                    f"{message}: {setting.value}: {error.strerror}.", hint=hint
                ) from error
        try:
            return _tls(file.value if file else None, folder.value if folder else None)
        except OSError as error:
            named = file or folder
            assert named is not None
            message = f"{named.name} names no certificates in PEM form: {named.value}."
            raise UsageError(message, hint=hint) from error


def read_environment(variables: Mapping[str, str] = os.environ) -> HubEnvironment:
    """What `variables` say of the Hub.

    Read as huggingface_hub reads them. Never fails: what makes no sense is in `problems`.
    """
    problems: list[UsageError] = []
    home = _hugging_face_home(variables)
    token, token_path = _read_token(variables, home, problems)
    offline = _first(variables, "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    no_proxy = variables.get("no_proxy") or variables.get("NO_PROXY") or ""
    return HubEnvironment(
        endpoint=_read_endpoint(variables, problems),
        token=token,
        token_path=token_path,
        is_offline=offline is not None and offline.value.upper() in _TRUE,
        cache=_path(
            variables.get("HF_HUB_CACHE") or variables.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
        ),
        timeout_s=_read_timeout(variables, problems),
        proxies=_read_proxies(variables),
        no_proxy=tuple(part for part in no_proxy.replace(",", " ").split() if part),
        certificate_file=_first(variables, "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        certificate_folder=_first(variables, "SSL_CERT_DIR"),
        problems=tuple(problems),
    )


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: credentials go to no other."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, (parts.hostname or "").lower(), port


def _is_private(url: str) -> bool:
    """Whether requests to `url` can't be read on the way: HTTPS, or this machine."""
    scheme, host, _ = origin_of(url)
    if scheme == "https" or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_web_address(url: str) -> bool:
    """Whether a connection can be made to `url`: HTTP or HTTPS, a host, a port that exists."""
    return url.partition(":")[0].lower() in {"http", "https"} and _has_place(url)


def _has_place(url: str) -> bool:
    try:
        _, host, _ = origin_of(url)
        host.encode("idna")
    except ValueError:
        return False
    return bool(host) and not any(map(str.isspace, url))


def is_exempt(host: str, port: int, rules: Iterable[str]) -> bool:
    """Whether a host is reached without a proxy.

    Args:
        host: A name or an address, without brackets.
        rules: As in `NO_PROXY`: hosts, domains (`example.org` and `.example.org` are the same),
            addresses and networks, `*`; each may have a port, and IPv6 may be in brackets.
    """
    return any(_matches(host.lower(), port, rule.lower()) for rule in rules)


def _matches(host: str, port: int, rule: str) -> bool:
    name, colon, rule_port = rule.rpartition(":")
    if not colon or not rule_port.isdecimal() or (":" in name and not name.endswith("]")):
        name, rule_port = rule, ""
    if rule_port and int(rule_port) != port:
        return False
    name = name.removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False)
    except ValueError:
        domain = name.removeprefix("*").removeprefix(".")
        return name == "*" or host == domain or (domain != "" and host.endswith(f".{domain}"))


def _read_endpoint(variables: Mapping[str, str], problems: list[UsageError]) -> str:
    endpoint = variables.get("HF_ENDPOINT", DEFAULT_ENDPOINT).strip().rstrip("/")
    if is_web_address(endpoint):
        return endpoint
    problems.append(
        UsageError(
            f"HF_ENDPOINT isn't a web address: {endpoint!r}.",
            hint=f"Unset it, or set it to one like {DEFAULT_ENDPOINT}.",
        )
    )
    return DEFAULT_ENDPOINT


def _read_timeout(variables: Mapping[str, str], problems: list[UsageError]) -> float:
    text = variables.get("HF_HUB_DOWNLOAD_TIMEOUT", "").strip()
    try:
        seconds = float(text or 0)
    except ValueError:
        seconds = math.nan
    if seconds >= 0 and math.isfinite(seconds):
        return seconds or DEFAULT_TIMEOUT_S
    problems.append(
        UsageError(
            f"HF_HUB_DOWNLOAD_TIMEOUT isn't a number of seconds: {text!r}.",
            hint="Unset it, or set it to one like 60.",
        )
    )
    return DEFAULT_TIMEOUT_S


def _hugging_face_home(variables: Mapping[str, str]) -> Path:
    caches = variables.get("XDG_CACHE_HOME") or "~/.cache"
    return _path(variables.get("HF_HOME") or f"{caches}/huggingface")


def _path(text: str) -> Path:
    # not `Path.expanduser`, which fails where there is no home
    return Path(os.path.expandvars(os.path.expanduser(text)))  # noqa: PTH111


def _read_token(
    variables: Mapping[str, str], home: Path, problems: list[UsageError]
) -> tuple[str | None, Path | None]:
    """The token, and the file that it was read from."""
    path = _path(variables.get("HF_TOKEN_PATH") or f"{home}/token")
    setting = _first(variables, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
    token, where = (setting.value, setting.name) if setting is not None else ("", "")
    if not token:
        where = str(path)
        try:
            token = path.read_text(encoding="utf-8", errors="replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None, None
        except OSError as error:
            message = f"The token in {path} can't be read: {error.strerror}."
            problems.append(UsageError(message, hint="Correct its permissions, or set HF_TOKEN."))
            return None, None
    if not token:
        return None, None
    if not all("!" <= letter <= "~" for letter in token):
        hint = "Copy it again from the Hub, or run `hf auth login`."
        problems.append(
            UsageError(
                f"The token in {where} contains characters that no token contains.", hint=hint
            )
        )
        return None, None
    return token, None if setting is not None else path


def _renewed(token: str, path: Path) -> str:
    """The token that a login in the browser left in `path`, which runs out after some hours."""
    try:
        if "refresh_token" not in path.with_name("stored_tokens").read_text(encoding="utf-8"):
            return token
        from huggingface_hub import constants, get_token
    except (OSError, ValueError):
        return (
            token  # there is nothing to renew it by, or a variable makes no sense to that library
        )
    return (get_token() or token) if Path(constants.HF_TOKEN_PATH) == path else token


def _read_proxies(variables: Mapping[str, str]) -> dict[str, Variable]:
    """The proxies by scheme; on macOS the system's where no variable names any."""
    named = {
        scheme: setting
        for scheme in ("http", "https", "all")
        if (setting := _first(variables, f"{scheme}_proxy", f"{scheme.upper()}_PROXY")) is not None
    }
    if named or sys.platform != "darwin" or variables is not os.environ:
        return named
    system = urllib.request.getproxies()
    return {name: Variable(_SYSTEM, system[name]) for name in ("http", "https") if name in system}


def _first(variables: Mapping[str, str], *names: str) -> Variable | None:
    """The first of these variables that says something."""
    settings = (Variable(name, variables.get(name, "").strip()) for name in names)
    return next((setting for setting in settings if setting.value), None)


@cache
def _tls(file: str | None, folder: str | None) -> ssl.SSLContext:
    if file is None and folder is None and sys.platform == "darwin":
        import truststore

        return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if file is not None and Path(file).is_dir():
        file, folder = None, file
    context = ssl.create_default_context(cafile=file, capath=folder)
    if file is not None or folder is not None:
        # authorities of proxies that read TLS often lack what RFC 5280 demands of their form, which
        # Python insists on since 3.13, unlike browsers, curl and uv; this decides nothing of trust
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
