"""Whether this Mac's door for others is open, and shows this Mac's own authority."""

from mlx_procsup import locate
from mlx_stack.errors import StackError
from mlx_stack.gateway.endpoint import EVERY_ADDRESS, GATEWAY, LOOPBACK
from mlx_stack.nodes.trust import presented_ca
from mlx_stack.open_stack import OpenStack

HINT = "`mlx-stack logs gateway` says why; `mlx-stack restart` opens it when that is fixed."


def closed_because(opened: OpenStack) -> str | None:
    """Why other Macs can't come in, a sentence; None where they can, or none is to, or none runs.

    Raises:
        InvalidFileError: When the configuration is damaged.
    """
    home, config = opened.home, opened.config
    if not config.node_host or locate(home.state_dirs, GATEWAY).process is None:
        return None
    # imported where there is a door, as by the gateway
    from mlx_stack.nodes.identity import find_identity  # noqa: PLC0415

    host = LOOPBACK if config.node_host in EVERY_ADDRESS else config.node_host
    where = f"{config.node_host}, port {config.node_port}"
    try:
        shown = presented_ca(host, config.node_port)
    except (OSError, ValueError):
        return f"Other Macs can't reach this one: nothing answers with TLS on {where}."
    try:
        own = find_identity(home)
    except (StackError, OSError) as error:
        return f"Other Macs can't be paired with this one: {error}"
    if own is None or own.ca != shown:
        return f"What answers on {where} doesn't show this Mac's authority ({home.node_ca})."
    return None
