"""Other Macs that take part: which there are, what each says of itself, how it is reached."""

from typing import TYPE_CHECKING

from mlx_stack import modules_of

if TYPE_CHECKING:
    from mlx_stack.nodes import check as check
    from mlx_stack.nodes import copy_model as copy_model
    from mlx_stack.nodes import discover as discover
    from mlx_stack.nodes import file as file
    from mlx_stack.nodes import group_check as group_check
    from mlx_stack.nodes import manage as manage
    from mlx_stack.nodes import own_door as own_door
    from mlx_stack.nodes import pair as pair
else:
    __getattr__ = modules_of(__name__)
