"""The programs that can be connected, by name."""

from mlx_stack.clients.by_hand import CLIENTS_BY_HAND
from mlx_stack.clients.client import Client
from mlx_stack.clients.with_files import CLIENTS_WITH_FILES
from mlx_stack.errors import UsageError

CLIENTS: tuple[Client, ...] = (*CLIENTS_WITH_FILES, *CLIENTS_BY_HAND)


def require_client(name: str) -> Client:
    """The client of that name, however it is spelled (`Claude Code`, `claude_code`).

    Raises:
        UsageError: When there is no such client.
    """
    wanted = name.lower().replace(" ", "-").replace("_", "-")
    for client in CLIENTS:
        if client.name == wanted:
            return client
    known = ", ".join(client.name for client in CLIENTS)
    raise UsageError(f"Unknown client {name!r}.", hint=f"Available: {known}.")
