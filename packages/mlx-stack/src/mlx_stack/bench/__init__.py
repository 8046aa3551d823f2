"""Measuring: what is measured, how, and what to think of it."""

from typing import TYPE_CHECKING

from mlx_stack import modules_of

if TYPE_CHECKING:
    from mlx_stack.bench import certify as certify
    from mlx_stack.bench import check as check
    from mlx_stack.bench import measure as measure
    from mlx_stack.bench import target as target
    from mlx_stack.bench import tune as tune
    from mlx_stack.bench import verdict as verdict
else:
    __getattr__ = modules_of(__name__)
