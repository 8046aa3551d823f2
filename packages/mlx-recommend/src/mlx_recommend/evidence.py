"""Which speed counts: measured here, else published for such a machine, else computed."""

import re
from collections.abc import Sequence

from mlx_catalog import CatalogEntry
from mlx_hwprobe import HardwareProfile
from mlx_recommend.calibration import REFERENCE_SPREAD
from mlx_recommend.inputs import Basis, Measurement
from mlx_recommend.speed import Speed

_IMPOSSIBLE_TPS = 1e9
_MEMORY_SUFFIX = re.compile(r"-\d+$")


def reference_measurements(
    entry: CatalogEntry, hardware: HardwareProfile
) -> tuple[Measurement, ...]:
    """The catalog's figures for machines like `hardware`.

    A figure counts where the chip is the same and has as many GPU cores; where either number of
    cores is unknown, the memory has to be the same too, since it mostly decides the bin.
    """
    return tuple(
        Measurement(
            basis=Basis.REFERENCE,
            quant=figure.quant,
            prompt_tps=figure.prompt_tps,
            generation_tps=figure.gen_tps,
            prompt_tokens=figure.prompt_tokens,
            source=figure.source,
        )
        for profile_id, figure in entry.benchmarks.items()
        if _is_same_machine(profile_id, figure.gpu_cores, hardware)
    )


def best_measurement(
    measurements: Sequence[Measurement], *, quant: str, figure: str
) -> Measurement | None:
    """The most trustworthy measurement at `quant` that has a `figure`; the last one if several.

    `figure` is "generation_tps", "prompt_tps" or "mtp_tps"; a missing one, or one that no machine
    can have, is no evidence.
    """
    for basis in (Basis.MEASURED, Basis.REFERENCE):
        for measurement in reversed(measurements):
            value: float | None = getattr(measurement, figure)
            is_possible = value is not None and 0 < value < _IMPOSSIBLE_TPS
            if measurement.basis is basis and measurement.quant == quant and is_possible:
                return measurement
    return None


def at_other_context(
    value: float, basis: Basis, *, at_asked: Speed | None, at_measured: Speed | None
) -> Speed:
    """A measured figure, carried over to another context by the ratio of the two estimates."""
    factor = 1.0
    if at_asked is not None and at_measured is not None:
        factor = at_asked.value / at_measured.value
    moved = max(factor, 1 / factor) ** 0.5
    spread = moved if basis is Basis.MEASURED else REFERENCE_SPREAD * moved
    return Speed.around(value * factor, spread, basis)


def _is_same_machine(profile_id: str, gpu_cores: int | None, hardware: HardwareProfile) -> bool:
    own_id = hardware.profile_id or ""
    if _MEMORY_SUFFIX.sub("", profile_id) != _MEMORY_SUFFIX.sub("", own_id):
        return False
    if gpu_cores is None or hardware.gpu_cores is None:
        return profile_id == own_id
    return gpu_cores == hardware.gpu_cores
