"""Models: what a name means, downloading, what lies on this disk."""

from typing import TYPE_CHECKING

from mlx_stack import modules_of

if TYPE_CHECKING:
    from mlx_stack.models import errors as errors
    from mlx_stack.models import events as events
    from mlx_stack.models import find as find
    from mlx_stack.models import local as local
    from mlx_stack.models import pull as pull
else:
    __getattr__ = modules_of(__name__)
