"""vllm-mlx and LiteLLM: pinned, installed in isolation, and their command lines."""

from typing import TYPE_CHECKING

from mlx_stack import modules_of

if TYPE_CHECKING:
    from mlx_stack.engines import errors as errors
    from mlx_stack.engines import install as install
    from mlx_stack.engines import manage as manage
    from mlx_stack.engines import uv_process as uv_process
    from mlx_stack.engines import verify as verify
else:
    __getattr__ = modules_of(__name__)
