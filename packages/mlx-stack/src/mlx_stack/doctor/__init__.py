"""What is wrong, or will be: the machine, the state folder, the engines, the ports, the power."""

from typing import TYPE_CHECKING

from mlx_stack import modules_of

if TYPE_CHECKING:
    from mlx_stack.doctor import bundle as bundle
    from mlx_stack.doctor import examine as examine
    from mlx_stack.doctor import finding as finding
else:
    __getattr__ = modules_of(__name__)
