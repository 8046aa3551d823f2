"""`mlx-gateway serve --config gateway.yaml`: the gateway alone."""

import argparse
import gc
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mlx_gateway import __version__
from mlx_gateway.access import KEY_VARIABLE
from mlx_gateway.errors import ConfigError, PortInUseError

_USAGE = 2
_FAILED = 1
_SHORTEST_KEY = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code: 2 for wrong usage or settings, 1 for a port in use."""
    parser = argparse.ArgumentParser(
        prog="mlx-gateway",
        description="One front door for local LLM engines: routes, queues and falls back.",
    )
    parser.add_argument("--version", action="version", version=f"mlx-gateway {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    serve_command = commands.add_parser(
        "serve",
        help="answer requests until stopped",
        description=f"Answer requests until stopped. Clients give the key in {KEY_VARIABLE}; "
        "SIGHUP reads the settings again.",
    )
    serve_command.add_argument("--config", type=Path, required=True, metavar="FILE")
    serve_command.add_argument("--host", help="listen there rather than where the file says")
    serve_command.add_argument("--port", type=int, help="the same for the port")
    options = parser.parse_args(arguments)
    key = os.environ.get(KEY_VARIABLE, "")
    if len(key) < _SHORTEST_KEY:
        print(f"error: {KEY_VARIABLE} must hold a key of {_SHORTEST_KEY} characters or more",
              file=sys.stderr)  # fmt: skip
        return _USAGE
    logging.basicConfig(
        format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S", level=logging.INFO
    )
    try:
        _serve(options.config, key, options.host, options.port)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return _USAGE
    except PortInUseError as error:
        print(f"error: {error}", file=sys.stderr)
        return _FAILED
    return 0


def _serve(config: Path, key: str, host: str | None, port: int | None) -> None:
    from mlx_gateway.access import Hosts, KeyRing
    from mlx_gateway.app import Gateway, GatewayOptions
    from mlx_gateway.server import serve
    from mlx_gateway.settings import GatewaySettings

    def make(settings: GatewaySettings, version: str) -> Gateway:
        own = {host or settings.host}
        hosts = Hosts.of_this_machine(own)
        keys = KeyRing({"admin": key})
        return Gateway(settings, GatewayOptions(keys=keys, hosts=hosts, version=version))

    gc.freeze()
    serve(make, config, host=host, port=port)


if __name__ == "__main__":
    sys.exit(main())
