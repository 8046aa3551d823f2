"""The program that runs as the service `gateway`: mlx-gateway, set up for this stack.

It is started as `python -m mlx_stack.gateway_process`, finds the state folder in
`MLX_STACK_HOME` and the key of its clients in `MLX_GATEWAY_KEY`.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial

from mlx_gateway.access import KEY_VARIABLE, Hosts
from mlx_gateway.app import Gateway
from mlx_gateway.errors import ConfigError, PortInUseError
from mlx_gateway.keys import KeyRing
from mlx_gateway.ledger import Ledger
from mlx_gateway.options import GatewayOptions
from mlx_gateway.server import serve
from mlx_gateway.settings import GatewaySettings
from mlx_procsup import Ask, LastLook, StateDirs, read_last_look, readable_run
from mlx_stack import exit_codes
from mlx_stack.engines import guard
from mlx_stack.errors import StackError
from mlx_stack.gateway import litellm
from mlx_stack.home import Home, find_home
from mlx_stack.nodes import mount
from mlx_stack.nodes.door import NodeDoor
from mlx_stack.nodes.known import KnownNodes
from mlx_stack.page.answer import PATH
from mlx_stack.page.mount import PageMount
from mlx_stack.services.engine_door import asker
from mlx_stack.services.on_demand import OnDemand


def main(environment: Mapping[str, str] = os.environ) -> int:
    """Serve until stopped; an exit code of the table in `exit_codes`."""
    key = environment.get(KEY_VARIABLE, "")
    if not key:
        sys.stderr.write(f"error: {KEY_VARIABLE} is not set\n")
        return exit_codes.USAGE
    logging.basicConfig(
        stream=sys.stdout,
        format="%(asctime)s %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        level=logging.INFO,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    home = find_home(environment)
    door = NodeDoor(home)

    def make(settings: GatewaySettings, version: str) -> Gateway:
        if settings.tls is not None:
            door.open(settings.tls)
        return _gateway(home, key, settings, version)

    try:
        serve(make, home.gateway_settings)
    except (ConfigError, PortInUseError, StackError) as error:
        sys.stderr.write(f"error: {error}\n")
        return exit_codes.FAILED
    finally:
        door.close()
    return exit_codes.DONE


def _gateway(home: Home, key: str, settings: GatewaySettings, version: str) -> Gateway:
    keys = KeyRing(key, home.client_keys)
    nodes = KnownNodes(home)
    on_demand = OnDemand(home, key, lambda: gateway.settings)
    gateway = Gateway(
        settings,
        GatewayOptions(
            keys=keys,
            hosts=Hosts.of_this_machine(
                {settings.host, *([settings.tls.host] if settings.tls is not None else [])}
            ),
            activator=on_demand,
            headers_for=lambda root: _headers(gateway.settings, key, nodes, root),
            tls_for=nodes.trust,
            ask_for=lambda root: _ask(home, gateway.settings, nodes, on_demand.service_of, root),
            is_wedged=WedgedEngines(
                home.state_dirs, lambda: gateway.settings, on_demand.service_of
            ),
            wake=nodes.wake,
            ledger=Ledger(home.ledger),
            mounts={
                PATH: PageMount(home, key, keys, lambda: gateway),
                mount.PATH: mount.NodeMount(home, keys),
            },
            remote_images_by="`mlx-stack config set remote-images true`, then `mlx-stack up`",
            version=version,
        ),
    )
    return gateway


def _headers(settings: GatewaySettings, key: str, nodes: KnownNodes, root: str) -> dict[str, str]:
    """What LiteLLM or a node must be shown."""
    if not settings.is_cloud(root):
        node = nodes.at(root)
        return {} if node is None else {"authorization": f"Bearer {node.key}"}
    return {"authorization": f"Bearer {litellm.master_key(key)}"}


def _ask(
    home: Home,
    settings: GatewaySettings,
    nodes: KnownNodes,
    service_of: Callable[[str], str],
    root: str,
) -> Ask | None:
    """What proves us to the engine at `root`, and it to us; None for what has a key of ours."""
    if settings.is_cloud(root) or nodes.at(root) is not None:
        return None
    name = next(iter(_services_of(settings, service_of, root)), None)
    return partial(guard.ask, "") if name is None else asker(home.state_dirs, name)


def _services_of(
    settings: GatewaySettings, service_of: Callable[[str], str], root: str
) -> list[str]:
    """The services of the upstream at a root."""
    return [
        service_of(name)
        for name, model in settings.models.items()
        if root in (upstream.root for upstream in model.upstreams if upstream.node is None)
    ]


class WedgedEngines:
    """Whether the watchdog found an engine wedged, read again when it has looked again.

    Args:
        dirs: Where the watchdog and the services note how they are.
        settings: The settings in force, whenever it is called.
        service_of: The service of a model.
    """

    def __init__(
        self,
        dirs: StateDirs,
        settings: Callable[[], GatewaySettings],
        service_of: Callable[[str], str] = lambda name: name,
    ) -> None:
        self._dirs = dirs
        self._settings = settings
        self._service_of = service_of
        self._read_at: tuple[int, int] | None = None
        self._look: LastLook | None = None

    def __call__(self, root: str) -> bool:
        """Whether the engine at a root is."""
        try:
            stat = self._dirs.last_look_file.stat()
        except OSError:
            return False
        if (stat.st_ino, stat.st_mtime_ns) != self._read_at:
            self._read_at = stat.st_ino, stat.st_mtime_ns
            self._look = read_last_look(self._dirs)
        look = self._look
        return look is not None and any(
            name in look.wedged and self._is_wedged(look, name)
            for name in _services_of(self._settings(), self._service_of, root)
        )

    def _is_wedged(self, look: LastLook, name: str) -> bool:
        record = readable_run(self._dirs, name)
        pid = record.identity.pid if record is not None and record.identity is not None else None
        return look.wedge_of(name, pid, time.time()) is not None


if __name__ == "__main__":
    sys.exit(main())
