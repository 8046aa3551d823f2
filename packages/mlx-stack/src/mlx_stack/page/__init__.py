"""The page under `/ui/`: its JSON API, its stream of events, its actions, its files."""

from typing import TYPE_CHECKING

from mlx_stack import modules_of

if TYPE_CHECKING:
    from mlx_stack.page import link as link
else:
    __getattr__ = modules_of(__name__)
