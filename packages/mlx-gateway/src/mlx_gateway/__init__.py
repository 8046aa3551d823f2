"""One front door for local LLM engines: it routes, queues, falls back, and relays bytes.

`Gateway` is the ASGI application, `load_settings` reads `gateway.yaml`, `serve` runs it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_MODULE_OF = {
    "Activator": "activation",
    "ConfigError": "errors",
    "EngineTimeouts": "liveness",
    "Gateway": "app",
    "GatewayOptions": "options",
    "GatewayError": "errors",
    "GatewaySettings": "settings",
    "Hosts": "access",
    "InFlight": "in_flight",
    "KeyRing": "keys",
    "Ledger": "ledger",
    "LedgerError": "ledger",
    "ModelSettings": "settings",
    "Mounted": "in_flight",
    "ApiError": "errors",
    "Upstream": "settings",
    "load_settings": "settings",
    "parse_settings": "settings",
    "serve": "server",
}

if TYPE_CHECKING:
    from mlx_gateway.access import Hosts as Hosts
    from mlx_gateway.activation import Activator as Activator
    from mlx_gateway.app import Gateway as Gateway
    from mlx_gateway.errors import ApiError as ApiError
    from mlx_gateway.errors import ConfigError as ConfigError
    from mlx_gateway.errors import GatewayError as GatewayError
    from mlx_gateway.in_flight import InFlight as InFlight
    from mlx_gateway.in_flight import Mounted as Mounted
    from mlx_gateway.keys import KeyRing as KeyRing
    from mlx_gateway.ledger import Ledger as Ledger
    from mlx_gateway.ledger import LedgerError as LedgerError
    from mlx_gateway.liveness import EngineTimeouts as EngineTimeouts
    from mlx_gateway.options import GatewayOptions as GatewayOptions
    from mlx_gateway.server import serve as serve
    from mlx_gateway.settings import GatewaySettings as GatewaySettings
    from mlx_gateway.settings import ModelSettings as ModelSettings
    from mlx_gateway.settings import Upstream as Upstream
    from mlx_gateway.settings import load_settings as load_settings
    from mlx_gateway.settings import parse_settings as parse_settings


def __getattr__(name: str) -> object:
    """A public name, imported when it is first asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_MODULE_OF)
