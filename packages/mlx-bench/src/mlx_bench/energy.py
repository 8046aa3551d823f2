"""Energy of the whole machine while requests ran, where macOS tells.

`powermetrics` reports the combined power of CPU, GPU and Neural Engine, and only to root; without
it there is no figure. Samples are integrated over the time of each wave.
"""

import os
import platform
import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Self

SAMPLE_MS = 200
"""How often powermetrics is asked for a sample."""

POWERMETRICS = (
    "/usr/bin/powermetrics",
    "--samplers",
    "cpu_power,gpu_power,ane_power",
    "--sample-rate",
    str(SAMPLE_MS),
)
"""The command that prints power samples until it is ended."""

_HEADER = re.compile(r"\*\*\* Sampled system activity .*\((?P<elapsed>[0-9.]+)ms elapsed\)")
_COMBINED = re.compile(r"^Combined Power \(CPU \+ GPU \+ ANE\): (?P<power>[0-9.]+) mW")


@dataclass(frozen=True, slots=True)
class PowerSample:
    """Mean power over a stretch of monotonic time.

    Attributes:
        start_ns: Where the stretch began.
        end_ns: Where it ended.
        watts: Mean power in it.
    """

    start_ns: int
    end_ns: int
    watts: float


def parse_elapsed_ms(line: str) -> float | None:
    """The length of the sample that a header line opens, or None for another line."""
    found = _HEADER.search(line)
    return float(found["elapsed"]) if found else None


def parse_combined_watts(line: str) -> float | None:
    """The combined power that a line states, or None for another line."""
    found = _COMBINED.match(line)
    return float(found["power"]) / 1000 if found else None


def energy_between_j(samples: Sequence[PowerSample], start_ns: int, end_ns: int) -> float | None:
    """Energy over a stretch of time, or None where samples cover less than half of it.

    What no sample covers is taken at the mean power of what is covered.
    """
    covered_ns = 0
    energy = 0.0
    for sample in samples:
        overlap_ns = min(end_ns, sample.end_ns) - max(start_ns, sample.start_ns)
        if overlap_ns > 0:
            covered_ns += overlap_ns
            energy += sample.watts * overlap_ns / 1e9
    if end_ns <= start_ns or covered_ns < (end_ns - start_ns) / 2:
        return None
    return energy * (end_ns - start_ns) / covered_ns


class PowerMeter:
    """Reads powermetrics in the background while the context is open.

    Args:
        command: Prints what powermetrics prints, until ended.
        clock_ns: The clock of the waves.
    """

    source = "powermetrics, CPU + GPU + ANE of the whole machine"

    def __init__(
        self,
        command: Sequence[str] = POWERMETRICS,
        *,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._command = tuple(command)
        self._clock_ns = clock_ns
        self._samples: list[PowerSample] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(
            target=self._read, args=(self._process.stdout,), daemon=True
        )
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._reader is not None:
            self._process.terminate()
            self._process.wait()
            self._reader.join()

    def _read(self, lines: IO[str]) -> None:
        elapsed_ms = float(SAMPLE_MS)
        with lines:
            for line in lines:
                elapsed_ms = parse_elapsed_ms(line) or elapsed_ms
                watts = parse_combined_watts(line)
                if watts is not None:
                    now = self._clock_ns()
                    self._samples.append(PowerSample(now - round(elapsed_ms * 1e6), now, watts))

    def energy_j(self, start_ns: int, end_ns: int) -> float | None:
        """Energy used between two stamps, or None where too little was sampled."""
        return energy_between_j(tuple(self._samples), start_ns, end_ns)


def power_meter() -> PowerMeter | None:
    """A meter where this process may use one: macOS, as root."""
    return PowerMeter() if platform.system() == "Darwin" and os.geteuid() == 0 else None
