"""The published measurements that the speed model is fitted to and judged by."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from mlx_catalog.model_files import describe
from mlx_hwprobe import parse_hardware_spec
from mlx_recommend.inputs import ModelShape
from mlx_recommend.machine import Machine, machine_of
from mlx_recommend.shapes import shape_of_model

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of `data/mlx_measurements.csv`."""

    chip: str
    gpu_cores: int
    memory_gb: int
    model: str
    catalog_id: str
    bits_per_weight: float
    prompt_tokens: int
    generation_tokens: int
    prompt_tps: float | None
    generation_tps: float
    peak_memory_gb: float | None
    machine: Machine
    shape: ModelShape

    @property
    def context_tokens(self) -> int:
        """The context in the middle of the generation."""
        return self.prompt_tokens + self.generation_tokens // 2

    @property
    def hardware_spec(self) -> str:
        """The machine as `--hardware` takes it."""
        return f"{self.chip.lower().replace(' ', '-')}:{self.gpu_cores}:{self.memory_gb}"


def measurements() -> list[Row]:
    """Every measurement, in the order of the file."""
    with (DATA / "mlx_measurements.csv").open(encoding="utf-8", newline="") as file:
        return [_row(fields) for fields in csv.DictReader(file)]


def _row(fields: Mapping[str, str]) -> Row:
    bits = float(fields["bits_per_weight"])
    return Row(
        chip=fields["chip"],
        gpu_cores=int(fields["gpu_cores"]),
        memory_gb=int(fields["memory_gb"]),
        model=fields["shape"],
        catalog_id=fields["catalog_id"],
        bits_per_weight=bits,
        prompt_tokens=int(fields["prompt_tokens"]),
        generation_tokens=int(fields["generation_tokens"]),
        prompt_tps=float(fields["prompt_tps"]) if fields["prompt_tps"] else None,
        generation_tps=float(fields["generation_tps"]),
        peak_memory_gb=float(fields["peak_memory_gb"]) if fields["peak_memory_gb"] else None,
        machine=_machine(fields["chip"], fields["gpu_cores"], fields["memory_gb"]),
        shape=_shape(fields["shape"], bits),
    )


@cache
def _machine(chip: str, gpu_cores: str, memory_gb: str) -> Machine:
    machine = machine_of(parse_hardware_spec(f"{chip}:{gpu_cores}:{memory_gb}"))
    assert machine is not None
    return machine


@cache
def _configs() -> dict[str, dict[str, object]]:
    document = json.loads((DATA / "measured_models.json").read_text(encoding="utf-8"))
    return {name: model["config"] for name, model in document["models"].items()}


@cache
def _shape(name: str, bits: float) -> ModelShape:
    model = describe(name, _configs()[name])
    assert model.weights is not None
    shape = shape_of_model(replace(model, weights=model.weights.at(bits)))
    assert shape is not None
    return shape
