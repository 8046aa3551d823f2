"""`python -m mlx_bench.calibration --port 0`: prints the base URL, then serves until ended."""

import argparse
import gc
import signal
import sys
from types import FrameType

from mlx_bench.calibration.server import CalibrationServer


def main() -> int:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m mlx_bench.calibration",
        description="An OpenAI-compatible server that emits tokens on an exact schedule. "
        "The schedule is the model name: ttft_ms=200,tps=100,burst=4.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 lets the system choose")
    options = parser.parse_args()
    server = CalibrationServer(options.host, options.port)

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.stop()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    # A collection in the middle of a schedule would be a late token.
    gc.freeze()
    gc.disable()
    print(f"http://{options.host}:{server.port}/v1", flush=True)
    server.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
