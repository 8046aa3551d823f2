"""How wrong mlx-recommend's estimates are, on published MLX measurements that it hasn't seen.

    uv run python benchmarks/recommend_accuracy.py [CSV ...] [--rows]

Without a CSV: each publisher's measurements are predicted by constants that were fitted to all
others' ("unseen"), and by the shipped constants; the same with each chip left out. With CSV files,
with the columns of `data/mlx_measurements_2026_11.csv`: the shipped constants on their rows.
`--rows` prints every prediction of the shipped constants.
"""

import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recommend_calibrate import leaving_out
from recommend_measurements import Row, measurements, peaks, read_rows, streams

from mlx_recommend.calibration import FITTED, Calibration, ErrorClass
from mlx_recommend.inputs import Workload
from mlx_recommend.memory import memory_use, scores_bytes
from mlx_recommend.speed import Speed, decode_speed, prefill_speed


@dataclass(frozen=True, slots=True)
class Prediction:
    """A figure that was measured, and what was predicted for it."""

    row: Row
    measured: float
    speed: Speed

    @property
    def error(self) -> float:
        """How much too high it is, as a share."""
        return self.speed.value / self.measured - 1

    @property
    def is_prefill(self) -> bool:
        """Whether it is of reading a prompt."""
        return self.speed.error_class is not None and "prefill" in self.speed.error_class

    @property
    def in_range(self) -> bool:
        """Whether the measurement lies in the stated range."""
        return self.speed.low <= self.measured <= self.speed.high


type Constants = Callable[[Row], Calibration]


def main() -> None:
    """Print every figure that docs/explanation/estimates.md tells."""
    paths = [Path(each) for each in sys.argv[1:] if not each.startswith("--")]
    rows = [row for path in paths for row in read_rows(path)] if paths else measurements()
    counts = (len({getattr(row, of) for row in rows}) for of in ("publisher", "chip", "model"))
    print(len(rows), "measurements; publishers, chips, models:", *counts, end="\n\n")
    if not paths:
        _both(rows, "Unseen: a publisher left out", leaving_out(rows, lambda row: row.publisher))
        _both(rows, "A chip left out", leaving_out(rows, lambda row: row.chip))
        _both(streams(), "Several requests at once, which no fit has seen", lambda _: FITTED)
    _both(rows, "Shipped constants", lambda _: FITTED)
    for kind, found in memory_errors(rows if paths else [*rows, *peaks()]).items():
        _memory_line(kind, found)
    if "--rows" in sys.argv:
        for each in (*decoded(rows, lambda _: FITTED), *prefilled(rows, lambda _: FITTED)):
            print(f"{each.row.chip:9} {each.row.model:28} {each.row.bits_per_weight:4} "
                  f"{each.row.prompt_tokens:6} {each.speed.value:8.1f} for {each.measured:8.1f} "
                  f"{each.error:+5.0%}  {each.row.publisher}")  # fmt: skip


def decoded(rows: Iterable[Row], constants: Constants) -> list[Prediction]:
    """The decode speeds of `rows`."""
    found: list[Prediction] = []
    for row in rows:
        if row.generation_tps and row.generation_tokens > 1:
            speed = decode_speed(
                row.shape,
                row.machine,
                context_tokens=row.context_tokens,
                concurrency=row.concurrency,
                constants=constants(row),
            )
            assert speed is not None
            found.append(Prediction(row, row.generation_tps, speed))
    return found


def prefilled(rows: Iterable[Row], constants: Constants) -> list[Prediction]:
    """The prefill speeds of `rows`, as with the MLX that the engine's lock installs."""
    found: list[Prediction] = []
    for row in rows:
        if row.prompt_tps:
            tokens = row.prompt_tokens
            speed = prefill_speed(
                row.shape, row.machine, prompt_tokens=tokens, constants=constants(row)
            )
            assert speed is not None
            found.append(Prediction(row, row.prompt_tps, speed))
    return found


def _both(rows: Sequence[Row], title: str, constants: Constants) -> None:
    print(title)
    for name, predictions in by_class([*decoded(rows, constants), *prefilled(rows, constants)]):
        _line(name, predictions)
    print()


def by_class(predictions: Sequence[Prediction]) -> Iterable[tuple[str, list[Prediction]]]:
    """Predictions by what their range depends on; after that, by other things."""
    groups: dict[str, Callable[[Prediction], bool]] = {
        "decode": lambda each: not each.is_prefill,
        **{kind.value: _is_of(kind) for kind in ErrorClass if kind.value.startswith("decode")},
        "  chip without rows": lambda p: not p.is_prefill and not p.row.machine.is_measured,
        "  M1 and M2": lambda p: not p.is_prefill and not p.row.machine.has_bf16,
        "prefill": lambda each: each.is_prefill,
        **{kind.value: _is_of(kind) for kind in ErrorClass if kind.value.startswith("prefill")},
        "  MLX 0.32.1 and later": lambda p: p.is_prefill and p.row.unpacking_factor > 1,
    }
    for name, belongs in groups.items():
        yield name, [each for each in predictions if belongs(each)]


def _is_of(kind: ErrorClass) -> Callable[[Prediction], bool]:
    return lambda each: each.speed.error_class is kind


def _line(title: str, predictions: Sequence[Prediction]) -> None:
    if not predictions:
        return
    errors = [abs(each.error) for each in predictions]
    within = sum(error <= 0.15 for error in errors) / len(errors)
    covered = sum(each.in_range for each in predictions) / len(errors)
    ratios = sorted(max(1 + each.error, 1 / (1 + each.error)) for each in predictions)
    print(
        f"  {title:24} n={len(errors):3}  median {statistics.median(errors):5.1%}"
        f"  mean {statistics.mean(errors):5.1%}  within 15% {within:4.0%}  in range {covered:4.0%}"
        f"  90% within x{ratios[int(0.9 * (len(ratios) - 1))]:.2f}"
    )


WHOLE_PROCESS = "memory-process"
"""macOS's `phys_footprint`: Python, the tokenizer and buffers kept for reuse as well."""
KEPT_SCORES = 2
"""Buffers of a step's scores that MLX keeps for reuse beyond its peak, and a process holds.

It gives them back before an allocation fails, so a plan needs no room for them. The footprint of
five models with such scores on an M2 Pro, and of one on an M3 Ultra, was above MLX's peak by about
that; of three without them it wasn't.
"""
ARRAYS = "memory-gpu"
"""MLX's own counter: what the GPU needs."""


@dataclass(frozen=True, slots=True)
class Peak:
    """A peak that was measured, and what was predicted for it."""

    row: Row
    peak_gb: float
    predicted_gb: float

    @property
    def error(self) -> float:
        """How much too high it is, as a share."""
        return self.predicted_gb / self.peak_gb - 1


def memory_errors(rows: Iterable[Row]) -> dict[str, list[Peak]]:
    """The peaks of `rows`, each against what the same counter would count."""
    longest: dict[tuple[object, ...], Row] = {}
    for row in rows:  # some publish one peak for all their runs: that of the longest
        key = (row.publisher, row.chip, row.model, row.bits_per_weight, row.peak_memory_gb)
        if row.peak_memory_gb and (
            key not in longest or row.prompt_tokens > longest[key].prompt_tokens
        ):
            longest[key] = row
    found: dict[str, list[Peak]] = {ARRAYS: [], WHOLE_PROCESS: []}
    for row in longest.values():
        assert row.peak_memory_gb is not None
        work = Workload(
            context_tokens=row.prompt_tokens + row.generation_tokens,
            concurrency=row.concurrency,
            prefill_step_tokens=row.prefill_step_tokens,
        )
        use = memory_use(row.memory_shape, work)
        total, kind = use.total_bytes, ARRAYS
        assert total is not None
        if row.is_whole_process:
            total += use.process_bytes + KEPT_SCORES * scores_bytes(row.memory_shape, work)
            kind = WHOLE_PROCESS
        found[kind].append(Peak(row, row.peak_memory_gb, total / 1e9))
    return found


def _memory_line(kind: str, found: Sequence[Peak]) -> None:
    print(f"{kind}: estimate over published peak")
    for each in found:
        row = each.row
        print(
            f"  {row.chip:9} {row.model:28} {row.bits_per_weight:4} {row.prompt_tokens:6}"
            f"  {each.predicted_gb:6.2f} for {each.peak_gb:6.2f} GB  {each.error:+.1%}"
        )
    errors = [each.error for each in found]
    if errors:
        print(
            f"  all n={len(errors)}  median {statistics.median(map(abs, errors)):.1%}  "
            f"too low by {-min(errors):.0%} at worst, too high by {max(errors):.0%}\n"
        )


if __name__ == "__main__":
    main()
