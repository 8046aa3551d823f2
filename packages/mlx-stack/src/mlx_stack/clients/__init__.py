"""Configuration of the programs that talk to the gateway."""

from typing import TYPE_CHECKING

from mlx_stack import modules_of

if TYPE_CHECKING:
    from mlx_stack.clients import connect as connect
    from mlx_stack.clients import registry as registry
else:
    __getattr__ = modules_of(__name__)
