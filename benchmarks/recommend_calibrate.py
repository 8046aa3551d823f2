"""Fit the constants of mlx-recommend's speed model to published MLX measurements.

    uv run python benchmarks/recommend_calibrate.py

prints a `Calibration` for packages/mlx-recommend/src/mlx_recommend/calibration.py. The fit is
robust least squares on the logarithm of predicted over measured speed; each pair of chip and model
counts as one measurement however often it was repeated.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace

from recommend_measurements import Row, measurements

from mlx_recommend.calibration import FITTED, Calibration, LayerPart
from mlx_recommend.speed import decode_speed, prefill_speed

DECODE_START = {
    LayerPart.ATTENTION: 30e-6,
    LayerPart.RECURRENT: 30e-6,
    LayerPart.LATENT: 60e-6,
    LayerPart.NETWORK: 30e-6,
    LayerPart.EXPERTS: 60e-6,
    LayerPart.SANDWICH: 30e-6,
    "expert_choice_s": 0.1e-6,
    "width_slope": 0.2,
    "newest_launch_factor": 1.0,
    "key_s": 6e-9,
    "emulated_key_s": 20e-9,
    "emulated_1": 4.0,
    "emulated_2": 4.0,
    "fp4_operations": 4.0,
}
"""What any fit starts from and is held to where no row speaks: round numbers, M5 as M4."""
PREFILL_START = {
    "prefill_factor": 1.0,
    "prefill_narrowness": 300.0,
    "prefill_layer_s": 300e-6,
    "prefill_weight_passes": 1.0,
    "newest_weight_passes": 4.0,
    "gather_factor": 1.3,
    "no_bf16_factor": 0.6,
}
PRIOR_WEIGHT = 0.4
"""How firmly: being off by the whole start value weighs as 4 % error in one measurement."""


def main() -> None:
    """Fit to all measurements and print the constants."""
    rows = measurements()
    fitted = fit(rows)
    for entry in fields(fitted):
        value = getattr(fitted, entry.name)
        for key, each in value.items() if isinstance(value, dict) else ((None, value),):
            print(f"{entry.name}{f'[{key}]' if key else ''}: {each:.4g}")


def fit(rows: Sequence[Row]) -> Calibration:
    """The constants that fit `rows` best."""
    decode_rows = [row for row in rows if row.generation_tps and row.concurrency == 1]
    decode = _least_squares(_decode_constants, DECODE_START.values(), decode_rows, _decode_error)
    fitted = _decode_constants(FITTED, decode)
    prefill_rows = [row for row in rows if row.prompt_tps]
    start = PREFILL_START.values()
    prefill = _least_squares(_prefill_constants, start, prefill_rows, _prefill_error)
    return _prefill_constants(fitted, prefill)


def leaving_out(rows: Sequence[Row], group: Callable[[Row], str]) -> Callable[[Row], Calibration]:
    """For a row, the constants fitted to all rows but those of its group."""
    fits = {
        key: fit([row for row in rows if group(row) != key]) for key in {group(row) for row in rows}
    }
    return lambda row: fits[group(row)]


def _decode_constants(base: Calibration, x: Sequence[float]) -> Calibration:
    found = dict(zip(DECODE_START, x, strict=True))
    return replace(
        base,
        part_cost_s={part: found.pop(part) for part in LayerPart},
        emulated_operations={1: found.pop("emulated_1"), 2: found.pop("emulated_2")},
        **found,
    )


def _prefill_constants(base: Calibration, x: Sequence[float]) -> Calibration:
    return replace(base, **dict(zip(PREFILL_START, x, strict=True)))


def decode_estimate(row: Row, constants: Calibration) -> float:
    """The decode speed that the model gives for a measurement."""
    speed = decode_speed(
        row.shape,
        row.machine,
        context_tokens=row.context_tokens,
        concurrency=row.concurrency,
        constants=constants,
    )
    assert speed is not None
    return speed.value


def prefill_estimate(row: Row, constants: Calibration) -> float:
    """The prefill speed that the model gives for a measurement."""
    speed = prefill_speed(
        row.shape,
        row.machine,
        prompt_tokens=row.prompt_tokens,
        constants=constants,
        unpacking_factor=row.unpacking_factor,
    )
    assert speed is not None
    return speed.value


def _decode_error(row: Row, constants: Calibration) -> float:
    assert row.generation_tps is not None
    return math.log(decode_estimate(row, constants) / row.generation_tps)


def _prefill_error(row: Row, constants: Calibration) -> float:
    assert row.prompt_tps is not None
    return math.log(prefill_estimate(row, constants) / row.prompt_tps)


def _least_squares(
    build: Callable[[Calibration, Sequence[float]], Calibration],
    start: Iterable[float],
    rows: Sequence[Row],
    error: Callable[[Row, Calibration], float],
    *,
    steps: int = 12,
) -> list[float]:
    """Levenberg-Marquardt on the logarithms of the constants, so that they stay positive.

    Large errors weigh less and less (soft L1 at 10 %), as one odd measurement should.
    """
    start, repeats = list(start), Counter((row.chip, row.model) for row in rows)

    def residuals(x: Sequence[float]) -> list[float]:
        constants = build(
            FITTED, [first * math.exp(step) for first, step in zip(start, x, strict=True)]
        )
        found = [
            _softened(10 * error(row, constants)) / math.sqrt(repeats[row.chip, row.model])
            for row in rows
        ]
        return found + [PRIOR_WEIGHT * step for step in x]

    x, damping = [0.0] * len(start), 1e-2
    best = residuals(x)
    for _ in range(steps):
        jacobian = [_difference(residuals, x, best, index) for index in range(len(x))]
        step = _solve(jacobian, best, damping)
        trial = [a + b for a, b in zip(x, step, strict=True)]
        found = residuals(trial)
        if sum(r * r for r in found) < sum(r * r for r in best):
            x, best, damping = trial, found, damping / 4
        else:
            damping *= 8
    return [first * math.exp(step) for first, step in zip(start, x, strict=True)]


def _softened(error: float) -> float:
    """The signed square root of the soft L1 loss."""
    return math.copysign(math.sqrt(2 * (math.sqrt(1 + error * error) - 1)), error)


def _difference(
    residuals: Callable[[Sequence[float]], list[float]],
    x: Sequence[float],
    at_x: Sequence[float],
    index: int,
) -> list[float]:
    width = 1e-4
    moved = [value + (width if other == index else 0) for other, value in enumerate(x)]
    return [(after - before) / width for after, before in zip(residuals(moved), at_x, strict=True)]


def _solve(
    jacobian: Sequence[Sequence[float]], at_x: Sequence[float], damping: float
) -> list[float]:
    """The step that the damped normal equations ask for, by Gaussian elimination."""
    size = len(jacobian)
    matrix = [
        [sum(a * b for a, b in zip(jacobian[i], jacobian[j], strict=True)) for j in range(size)]
        + [-sum(a * r for a, r in zip(jacobian[i], at_x, strict=True))]
        for i in range(size)
    ]
    for i in range(size):
        matrix[i][i] *= 1 + damping
    for i in range(size):
        pivot = max(range(i, size), key=lambda row: abs(matrix[row][i]))
        matrix[i], matrix[pivot] = matrix[pivot], matrix[i]
        for j in range(i + 1, size):
            factor = matrix[j][i] / matrix[i][i]
            matrix[j] = [a - factor * b for a, b in zip(matrix[j], matrix[i], strict=True)]
    step = [0.0] * size
    for i in reversed(range(size)):
        rest = sum(matrix[i][j] * step[j] for j in range(i + 1, size))
        step[i] = (matrix[i][size] - rest) / matrix[i][i]
    return step


if __name__ == "__main__":
    main()
