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
        description="One endpoint for local LLM engines, with routing, queues and fallbacks.",
    )
    parser.add_argument("--version", action="version", version=f"mlx-gateway {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    serve_command = commands.add_parser(
        "serve",
        help="answer requests until stopped",
        description=f"Answer requests until stopped. The environment variable {KEY_VARIABLE} "
        "contains the admin's key. SIGHUP reloads the file.",
    )
    serve_command.add_argument(
        "--config",
        type=Path,
        required=True,
        metavar="FILE",
        help="gateway.yaml: the models, their upstreams and fallbacks",
    )
    serve_command.add_argument("--host", help="address to listen on; overrides the file")
    serve_command.add_argument("--port", type=int, help="port to listen on; overrides the file")
    serve_command.add_argument(
        "--keys",
        type=Path,
        metavar="FILE",
        help="clients' keys (keys.json), in addition to the admin's",
    )
    serve_command.add_argument(
        "--ledger", type=Path, metavar="FILE", help="record every request in this SQLite file"
    )
    options = parser.parse_args(arguments)
    key = os.environ.get(KEY_VARIABLE, "")
    if len(key) < _SHORTEST_KEY:
        print(f"error: {KEY_VARIABLE} must contain a key of at least {_SHORTEST_KEY} characters",
              file=sys.stderr)  # fmt: skip
        return _USAGE
    logging.basicConfig(
        format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S", level=logging.INFO
    )
    try:
        _serve(options, key)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return _USAGE
    except PortInUseError as error:
        print(f"error: {error}", file=sys.stderr)
        return _FAILED
    return 0


def _serve(options: argparse.Namespace, key: str) -> None:
    from mlx_gateway.access import Hosts
    from mlx_gateway.app import Gateway
    from mlx_gateway.keys import KeyRing
    from mlx_gateway.ledger import Ledger
    from mlx_gateway.options import GatewayOptions
    from mlx_gateway.server import serve
    from mlx_gateway.settings import GatewaySettings

    def make(settings: GatewaySettings, version: str) -> Gateway:
        given = GatewayOptions(
            keys=KeyRing(key, options.keys),
            hosts=Hosts.of_this_machine({options.host or settings.host}),
            ledger=None if options.ledger is None else Ledger(options.ledger),
            version=version,
        )
        return Gateway(settings, given)

    gc.freeze()
    serve(make, options.config, host=options.host, port=options.port)


if __name__ == "__main__":
    sys.exit(main())
