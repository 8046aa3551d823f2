"""Packages whose modules are imported when they are first used.

A command names what it calls as `services.up.up`. With `from mlx_stack.services.up import up` its
`--help` would first wait for psutil, httpx and the catalog.
"""

import importlib
from collections.abc import Callable
from types import ModuleType


def modules_of(package: str) -> Callable[[str], ModuleType]:
    """The `__getattr__` of a package that imports its modules one by one, as they are asked for."""

    def import_module(name: str) -> ModuleType:
        full_name = f"{package}.{name}"
        if not name.startswith("_"):
            try:
                return importlib.import_module(full_name)
            except ModuleNotFoundError as error:
                if error.name != full_name:
                    raise
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return import_module
