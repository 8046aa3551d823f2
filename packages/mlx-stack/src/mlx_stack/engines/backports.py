"""Faults of the pinned engine's libraries that are fixed upstream, fixed here until it holds them.

`guard.py` applies them in the engine's own process, so this file imports nothing but the standard
library, and no file of the engine is changed. Each names the change upstream. A test shows each
fault without its fix: when the pinned engine has none of them any more, it fails, and this goes
(decision 0026).
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any


def apply() -> None:
    """Fix what is known of the libraries that are installed where this runs."""
    if find_spec("mlx_lm") is not None:
        bound_recurrent_metadata()


def bound_recurrent_metadata() -> None:
    """Let the caches of hybrid models hold no more after a million tokens than after one.

    A batch's cache counts its padding down with each token, and nothing ever computes the result:
    the chain of subtractions grows, with a small buffer of the GPU for each, in each recurrent
    layer, until Metal has no more to give (`Resource limit (499000) exceeded`). Bound to the state,
    the counts are computed whenever the state is: https://github.com/ml-explore/mlx-lm/pull/1632.
    """
    mx: Any = import_module("mlx.core")
    caches: Any = import_module("mlx_lm.models.cache")
    count_down = caches.ArraysCache.advance

    def advance(cache: Any, tokens: int) -> None:
        count_down(cache, tokens)
        counts = [each for each in (cache.lengths, cache.left_padding) if each is not None]
        for index, state in enumerate(cache.cache):
            if counts and state is not None:
                cache.cache[index] = mx.depends([state], counts)[0]
                break

    caches.ArraysCache.advance = advance
