"""The watchdog under launchd: installed, looked at, taken away."""

from typing import TYPE_CHECKING

from mlx_stack import modules_of

if TYPE_CHECKING:
    from mlx_stack.autostart import install as install
    from mlx_stack.autostart import mac as mac
    from mlx_stack.autostart import status as status
else:
    __getattr__ = modules_of(__name__)
