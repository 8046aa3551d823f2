"""How wrong mlx-recommend's estimates are, on published MLX measurements that it hasn't seen.

    uv run python benchmarks/recommend_accuracy.py [--rows]

Each chip is left out in turn, the constants are fitted to the rest, and the chip's measurements are
predicted; then the same for each model. `--rows` prints every prediction of the shipped constants.
"""

import statistics
import sys
from collections.abc import Callable, Iterable, Sequence

from recommend_calibrate import decode_estimate, leaving_out, prefill_estimate
from recommend_measurements import Row, measurements

from mlx_catalog import Quant, load_catalog
from mlx_recommend.calibration import (
    DECODE_SPREAD,
    FITTED,
    NEWEST_PREFILL_SPREAD,
    PREFILL_SPREAD,
    Calibration,
)
from mlx_recommend.inputs import ModelShape, Workload
from mlx_recommend.memory import memory_use
from mlx_recommend.shapes import shape_of_entry
from mlx_recommend.speed import decode_speed, prefill_speed

type Estimator = Callable[[Row, Calibration], float]


def main() -> None:
    """Print every figure that docs/explanation/estimates.md tells."""
    rows = measurements()
    before_m5 = [row for row in rows if not row.machine.is_newest]
    print(f"{len(rows)} measurements, {len({r.chip for r in rows})} chips, "
          f"{len({r.model for r in rows})} models\n")  # fmt: skip
    print("Decode: relative error of the bare estimate")
    _table("  shipped constants", rows, _with(FITTED), decode_estimate, _decoded, DECODE_SPREAD)
    for name, group in (("chip", _chip), ("model", _model)):
        left_out = leaving_out(rows, group)
        _table(f"  a {name} left out", rows, left_out, decode_estimate, _decoded, DECODE_SPREAD)
        for key in sorted({group(row) for row in rows}):
            some = [row for row in rows if group(row) == key]
            _table(f"    {key}", some, left_out, decode_estimate, _decoded, DECODE_SPREAD)
    print("\nPrefill: relative error of the bare estimate")
    for title, some, spread in (
        ("before M5", before_m5, PREFILL_SPREAD),
        ("M5", [row for row in rows if row.machine.is_newest], NEWEST_PREFILL_SPREAD),
    ):
        known = [row for row in some if row.prompt_tps]
        shipped = _with(FITTED)
        _table(f"  {title}, shipped", known, shipped, prefill_estimate, _prefilled, spread)
        for name, group in (("chip", _chip), ("model", _model)):
            left_out = leaving_out(rows, group)
            title_of = f"  {title}, a {name} left out"
            _table(title_of, known, left_out, prefill_estimate, _prefilled, spread)
    _catalog_tables(rows)
    _memory_table(rows)
    if "--rows" in sys.argv:
        _every_row(rows)


def _chip(row: Row) -> str:
    return row.chip


def _model(row: Row) -> str:
    return row.model


def _decoded(row: Row) -> float:
    return row.generation_tps


def _prefilled(row: Row) -> float:
    assert row.prompt_tps is not None
    return row.prompt_tps


def _with(constants: Calibration) -> Callable[[Row], Calibration]:
    return lambda _: constants


def _table(
    title: str,
    rows: Sequence[Row],
    constants: Callable[[Row], Calibration],
    estimate: Estimator,
    measured: Callable[[Row], float],
    spread: float,
) -> None:
    ratios = [estimate(row, constants(row)) / measured(row) for row in rows]
    _line(title, ratios, spread)


def _line(title: str, ratios: Iterable[float], spread: float | None = None) -> None:
    ratios = list(ratios)
    errors = [abs(ratio - 1) for ratio in ratios]
    within = sum(error <= 0.15 for error in errors) / len(errors)
    text = (
        f"{title:32} n={len(errors):3}  median {statistics.median(errors):5.1%}"
        f"  mean {statistics.mean(errors):5.1%}  within 15% {within:4.0%}  worst {max(errors):4.0%}"
    )
    if spread is not None:
        covered = sum(1 / spread <= ratio <= spread for ratio in ratios) / len(ratios)
        text += f"  in range {covered:4.0%}"
    print(text)


def _catalog_tables(rows: Sequence[Row]) -> None:
    """The same from what the catalog says of a model, as `mlx-stack estimate` does it."""
    print("\nFrom the catalog's entries (shipped constants)")
    known = [(row, shape) for row in rows if (shape := _catalog_shape(row)) is not None]
    decoded: list[float] = []
    prefilled: list[float] = []
    for row, shape in known:
        speed = decode_speed(shape, row.machine, context_tokens=row.context_tokens)
        if speed is not None:
            decoded.append(speed.value / row.generation_tps)
        speed = prefill_speed(shape, row.machine, prompt_tokens=row.prompt_tokens)
        if speed is not None and row.prompt_tps:
            prefilled.append(speed.value / row.prompt_tps)
    _line("  decode", decoded, DECODE_SPREAD)
    _line("  prefill", prefilled)
    for identifier in sorted({row.catalog_id for row, _ in known}):
        ratios = [
            speed.value / row.generation_tps
            for row, shape in known
            if row.catalog_id == identifier
            and (speed := decode_speed(shape, row.machine, context_tokens=row.context_tokens))
        ]
        if ratios:
            _line(f"    {identifier}", ratios)


_CATALOG = load_catalog()


def _catalog_shape(row: Row) -> ModelShape | None:
    """The catalog's model at the measured precision, where it has both."""
    if row.catalog_id not in _CATALOG:
        return None
    for quant in Quant:
        if quant.bits_per_weight == row.bits_per_weight:
            return shape_of_entry(_CATALOG.get(row.catalog_id), quant)
    return None


def _memory_table(rows: Sequence[Row]) -> None:
    print("\nMemory: estimate over published peak")
    ratios: list[float] = []
    longest: dict[tuple[str, str, float], Row] = {}
    for row in rows:  # a published peak is that of the longest run
        key = (row.chip, row.model, row.bits_per_weight)
        if row.peak_memory_gb is not None and (
            key not in longest or row.prompt_tokens > longest[key].prompt_tokens
        ):
            longest[key] = row
    for row in longest.values():
        assert row.peak_memory_gb is not None
        shape = _catalog_shape(row) or row.shape
        tokens = row.prompt_tokens + row.generation_tokens
        total = memory_use(shape, Workload(context_tokens=tokens)).total_bytes
        assert total is not None
        ratios.append(total / 1e9 / row.peak_memory_gb)
        print(f"  {row.model:14} {row.bits_per_weight:4} bits  {total / 1e9:6.2f} GB for "
              f"{row.peak_memory_gb:6.2f} GB  {ratios[-1] - 1:+.1%}")  # fmt: skip
    _line("  all", ratios)


def _every_row(rows: Sequence[Row]) -> None:
    print()
    for row in rows:
        decode = decode_estimate(row, FITTED)
        text = (
            f"{row.chip:9} {row.model:13} {row.bits_per_weight:4} {row.prompt_tokens:5}"
            f"  {decode:7.1f} for {row.generation_tps:7.1f} {decode / row.generation_tps - 1:+5.0%}"
        )
        if row.prompt_tps:
            prefill = prefill_estimate(row, FITTED)
            text += (
                f"  {prefill:8.0f} for {row.prompt_tps:8.0f} {prefill / row.prompt_tps - 1:+5.0%}"
            )
        print(text)


if __name__ == "__main__":
    main()
