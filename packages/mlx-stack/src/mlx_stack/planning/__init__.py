"""What fits and how fast, and the stack that is made of it."""

from typing import TYPE_CHECKING

from mlx_stack import modules_of

if TYPE_CHECKING:
    from mlx_stack.planning import estimate as estimate
    from mlx_stack.planning import group as group
    from mlx_stack.planning import init as init
    from mlx_stack.planning import listings as listings
    from mlx_stack.planning import recommend as recommend
    from mlx_stack.planning import room as room
    from mlx_stack.planning import show as show
else:
    __getattr__ = modules_of(__name__)
