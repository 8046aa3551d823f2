"""Services: put together, started, stopped, watched, and how they do."""

from typing import TYPE_CHECKING

from mlx_stack import modules_of

if TYPE_CHECKING:
    from mlx_stack.services import assembly as assembly
    from mlx_stack.services import down as down
    from mlx_stack.services import engine_health as engine_health
    from mlx_stack.services import engine_process as engine_process
    from mlx_stack.services import inventory as inventory
    from mlx_stack.services import litellm_process as litellm_process
    from mlx_stack.services import loading as loading
    from mlx_stack.services import logs as logs
    from mlx_stack.services import restart as restart
    from mlx_stack.services import service as service
    from mlx_stack.services import status as status
    from mlx_stack.services import up as up
    from mlx_stack.services import watch as watch
    from mlx_stack.services import watch_log as watch_log
else:
    __getattr__ = modules_of(__name__)
