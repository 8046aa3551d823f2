"""An always-on local LLM server for Apple Silicon: several models, one endpoint."""

from mlx_stack.lazy import modules_of

__version__ = "0.1.0"

TYPE_CHECKING = False  # as in `typing`, which takes longer to import than `--version` may

if TYPE_CHECKING:
    from mlx_stack import ask as ask
    from mlx_stack import config as config
    from mlx_stack import demo as demo
    from mlx_stack import hardware as hardware
    from mlx_stack import open_stack as open_stack
    from mlx_stack import overview as overview
    from mlx_stack import setup as setup
else:
    __getattr__ = modules_of(__name__)
