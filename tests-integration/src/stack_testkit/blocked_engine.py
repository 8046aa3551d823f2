"""The real engine with a generation thread that can be blocked, while its server goes on.

It is run by the engine's own Python in front of the guard: `python -I blocked_engine.py guard.py
serve …`. From SIGUSR1 on, whatever computes tokens waits for ever, in the thread where it computes.
"""

import importlib
import runpy
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

_blocked = threading.Event()
_never = threading.Event()


def _wait_if_blocked() -> None:
    if _blocked.is_set():
        _never.wait()


def _block_batches() -> None:
    scheduler: Any = importlib.import_module("vllm_mlx.scheduler").Scheduler
    step: Callable[..., Any] = scheduler.step

    def blocked_step(*arguments: Any, **named: Any) -> Any:
        _wait_if_blocked()
        return step(*arguments, **named)

    scheduler.step = blocked_step


def _block_single_requests() -> None:
    generate: Any = importlib.import_module("mlx_lm.generate")
    steps: Callable[..., Iterator[Any]] = generate.generate_step

    def blocked_steps(*arguments: Any, **named: Any) -> Iterator[Any]:
        _wait_if_blocked()
        for each in steps(*arguments, **named):
            yield each
            _wait_if_blocked()

    generate.generate_step = blocked_steps


def _block(*_signal: object) -> None:
    _blocked.set()


def main() -> None:
    """Run the guard, which runs the engine."""
    signal.signal(signal.SIGUSR1, _block)
    _block_batches()
    _block_single_requests()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
