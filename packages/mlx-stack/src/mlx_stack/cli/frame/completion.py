"""What the shell offers after TAB: tiers, services, models and configuration keys.

A completion never fails and never talks: where a file is damaged, nothing is offered.
"""

from collections.abc import Callable, Iterable

import click

from mlx_stack.cli.frame.errors import translate
from mlx_stack.home import Home, find_home

type Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def _completer(candidates: Callable[[Home], Iterable[str]]) -> Completer:
    def complete(
        _context: click.Context, _parameter: click.Parameter, incomplete: str
    ) -> list[str]:
        try:
            return [name for name in candidates(find_home()) if name.startswith(incomplete)]
        except Exception as error:
            if translate(error) is None:
                raise
            return []

    return complete


def _tiers(home: Home) -> Iterable[str]:
    from mlx_stack.stack import load_stack

    return [tier.name for tier in load_stack(home.stack).tiers]


def _services(home: Home) -> Iterable[str]:
    return sorted(path.stem for path in home.logs.glob("*.log"))


def _models(home: Home) -> Iterable[str]:
    from mlx_catalog import load_catalog

    return [entry.id for entry in load_catalog(home.catalog)]


def _local_models(home: Home) -> Iterable[str]:
    from mlx_stack.models.local import list_models

    return [model.name for model in list_models(home).models]


def _keys(_home: Home) -> Iterable[str]:
    from mlx_stack.config import CONFIG_KEYS

    return list(CONFIG_KEYS)


def _clients(_home: Home) -> Iterable[str]:
    from mlx_stack.clients.registry import CLIENTS

    return [client.name for client in CLIENTS]


complete_tiers = _completer(_tiers)
complete_services = _completer(_services)
complete_models = _completer(_models)
complete_local_models = _completer(_local_models)
complete_keys = _completer(_keys)
complete_clients = _completer(_clients)
