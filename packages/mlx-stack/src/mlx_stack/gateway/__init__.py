"""LiteLLM's configuration."""

from typing import TYPE_CHECKING

from mlx_stack import modules_of

if TYPE_CHECKING:
    from mlx_stack.gateway import endpoint as endpoint
    from mlx_stack.gateway import names as names
else:
    __getattr__ = modules_of(__name__)
