"""An always-on local LLM server for Apple Silicon: several models, one endpoint."""

import importlib

__version__ = "0.1.0"

TYPE_CHECKING = False  # as in `typing`, which takes longer to import than `--version` may

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


def modules_of(package: str) -> "Callable[[str], ModuleType]":
    """The `__getattr__` of a package that imports its modules one by one, as they are asked for.

    A command names what it calls as `services.up.up`. With `from mlx_stack.services.up import up`
    its `--help` would first wait for psutil, httpx and the catalog.
    """

    def import_module(name: str) -> "ModuleType":
        full_name = f"{package}.{name}"
        if not name.startswith("_"):
            try:
                return importlib.import_module(full_name)
            except ModuleNotFoundError as error:
                if error.name != full_name:
                    raise
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return import_module


if TYPE_CHECKING:
    from mlx_stack import ask as ask
    from mlx_stack import config as config
    from mlx_stack import demo as demo
    from mlx_stack import hardware as hardware
    from mlx_stack import home as home
    from mlx_stack import open_stack as open_stack
    from mlx_stack import overview as overview
    from mlx_stack import setup as setup
    from mlx_stack import stack as stack
    from mlx_stack import uninstall as uninstall
    from mlx_stack import upgrade as upgrade
    from mlx_stack import usage as usage
else:
    __getattr__ = modules_of(__name__)
