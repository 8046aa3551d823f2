"""The gateway's and LiteLLM's settings, and where they answer."""

from typing import TYPE_CHECKING

from mlx_stack import modules_of

if TYPE_CHECKING:
    from mlx_stack.gateway import endpoint as endpoint
    from mlx_stack.gateway import events as events
    from mlx_stack.gateway import keys as keys
else:
    __getattr__ = modules_of(__name__)
