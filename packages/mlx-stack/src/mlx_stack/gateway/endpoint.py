"""Where the gateway answers, and what clients need to know of it."""

from dataclasses import dataclass

from mlx_procsup import locate
from mlx_stack.credentials import read_gateway_key
from mlx_stack.errors import StackError
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack

GATEWAY = "gateway"
"""The name of the gateway's service."""
LOOPBACK = "127.0.0.1"
LIVENESS_PATH = "/health/liveliness"
_LOOPBACK_NAMES = frozenset({LOOPBACK, "localhost", "::1"})
EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, never bound here


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible (and Anthropic-compatible) API on this machine.

    Attributes:
        root_url: Such as `http://127.0.0.1:4000`; Anthropic's clients add `/v1/messages`.
        key: What clients must give; None where no key was made yet.
    """

    root_url: str
    key: str | None

    @property
    def base_url(self) -> str:
        """What OpenAI's clients call the base URL: the root and `/v1`."""
        return f"{self.root_url}/v1"

    def environment(self) -> dict[str, str | None]:
        """The variables that clients read.

        `ANTHROPIC_AUTH_TOKEN` rather than `ANTHROPIC_API_KEY`: Claude Code complains about both and
        asks before it uses the latter.
        """
        return {
            "OPENAI_BASE_URL": self.base_url,
            "OPENAI_API_KEY": self.key,
            "ANTHROPIC_BASE_URL": self.root_url,
            "ANTHROPIC_AUTH_TOKEN": self.key,
        }

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {"env": self.environment()}


def gateway_url(host: str, port: int) -> str:
    """Where this machine reaches a gateway that binds `host`, without `/v1`.

    A gateway that binds every address is reached on loopback, one that binds a single address only
    there.
    """
    if host in EVERY_ADDRESS:
        host = LOOPBACK
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_exposed(host: str) -> bool:
    """Whether a gateway that binds `host` can be reached from other machines."""
    return host not in _LOOPBACK_NAMES


def running_url(home: Home) -> str | None:
    """Where the gateway that runs answers, without `/v1`; None if none runs or it doesn't say.

    Its command line ends with it. The configuration may say something else since it was started.
    """
    found = locate(home.state_dirs, GATEWAY)
    command = found.record.command if found.process is not None and found.record else ()
    return command[-1] if command and command[-1].startswith("http://") else None


def gateway_endpoint(opened: OpenStack) -> Endpoint:
    """The gateway's key and address: of the one that runs, else as it is configured. Reads only.

    Raises:
        InvalidFileError: The configuration or the credentials are damaged.
    """
    config = opened.config
    url = running_url(opened.home) or gateway_url(config.gateway_host, config.litellm_port)
    return Endpoint(url, read_gateway_key(opened.home))


def require_key(endpoint: Endpoint) -> str:
    """The endpoint's key.

    Raises:
        StackError: None was made yet.
    """
    if endpoint.key is None:
        raise StackError(
            "The gateway has no key yet.", hint="`mlx-stack up` makes one and starts the gateway."
        )
    return endpoint.key
