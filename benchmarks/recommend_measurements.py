"""The published measurements that the speed model is fitted to and judged by."""

import csv
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from mlx_catalog import Quant, load_catalog
from mlx_catalog.model_files import describe
from mlx_hwprobe import parse_hardware_spec
from mlx_recommend.calibration import FLOAT32_UNPACKING
from mlx_recommend.inputs import ModelShape
from mlx_recommend.machine import Machine, machine_of
from mlx_recommend.shapes import shape_of_entry, shape_of_model

DATA = Path(__file__).parent / "data"
_MLX = re.compile(r"mlx 0\.(?P<minor>\d+)(?:\.(?P<patch>\d+))?")
_CATALOG = load_catalog()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement: a single line of one of the files."""

    chip: str
    gpu_cores: int
    memory_gb: int
    model: str
    catalog_id: str
    bits_per_weight: float
    concurrency: int
    prompt_tokens: int
    generation_tokens: int
    prompt_tps: float | None
    generation_tps: float | None
    peak_memory_gb: float | None
    tool: str
    source: str
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

    @property
    def publisher(self) -> str:
        """Who measured: the repository or the site."""
        github = re.match(r"(?:github:|https://github\.com/)([^/]+/[^/@ ]+)", self.source)
        return github[1] if github is not None else self.source.split(" ")[0]

    @property
    def unpacking_factor(self) -> float:
        """How much faster than its calibration the row's MLX unpacks weights on M1 and M2."""
        named = _MLX.search(self.tool)
        if named is None:
            return 1.0
        is_new = (int(named["minor"]), int(named["patch"] or 0)) >= (32, 1)
        return FLOAT32_UNPACKING if is_new else 1.0


def measurements() -> list[Row]:
    """Every measurement of the repository: those of configurations, and those of the catalog's."""
    with (DATA / "mlx_measurements.csv").open(encoding="utf-8", newline="") as file:
        rows = [_row_of_config(fields) for fields in csv.DictReader(file)]
    return rows + read_rows(DATA / "mlx_measurements_2026_11.csv")


def read_rows(path: Path) -> list[Row]:
    """The clean measurements of catalog models in a CSV with the columns of the later file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(_rows_of_catalog(csv.DictReader(file)))


def _rows_of_catalog(lines: Iterable[Mapping[str, str]]) -> Iterable[Row]:
    for fields in lines:
        quant, model = fields["quant"], fields["model"]
        known = quant in Quant and model in _CATALOG
        if fields["cls"] not in ("clean", "streams", "concurrent") or not known:
            continue
        yield Row(
            chip=fields["chip"],
            gpu_cores=int(fields["gpu_cores"]),
            memory_gb=int(fields["memory_gb"]),
            model=model,
            catalog_id=model,
            bits_per_weight=Quant(quant).bits_per_weight,
            concurrency=int(fields["conc"] or 1),
            prompt_tokens=int(fields["prompt"]),
            generation_tokens=int(fields["gen"] or 0),
            prompt_tps=_number(fields["pp"]),
            generation_tps=_number(fields["tg"]),
            peak_memory_gb=_number(fields["peak"]),
            tool=fields["tool"],
            source=fields["source"],
            machine=_machine(fields["chip"], fields["gpu_cores"], fields["memory_gb"]),
            shape=shape_of_entry(_CATALOG.get(model), Quant(quant)),
        )


def _row_of_config(fields: Mapping[str, str]) -> Row:
    bits = float(fields["bits_per_weight"])
    return Row(
        chip=fields["chip"],
        gpu_cores=int(fields["gpu_cores"]),
        memory_gb=int(fields["memory_gb"]),
        model=fields["shape"],
        catalog_id=fields["catalog_id"],
        bits_per_weight=bits,
        concurrency=1,
        prompt_tokens=int(fields["prompt_tokens"]),
        generation_tokens=int(fields["generation_tokens"]),
        prompt_tps=_number(fields["prompt_tps"]),
        generation_tps=_number(fields["generation_tps"]),
        peak_memory_gb=_number(fields["peak_memory_gb"]),
        tool=fields["engine"],
        source=fields["source"],
        machine=_machine(fields["chip"], fields["gpu_cores"], fields["memory_gb"]),
        shape=_shape(fields["shape"], bits, fields["catalog_id"]),
    )


def _number(text: str) -> float | None:
    return float(text) if text else None


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
def _shape(name: str, bits: float, catalog_id: str) -> ModelShape:
    model = describe(name, _configs()[name])
    assert model.weights is not None
    shape = shape_of_model(replace(model, weights=model.weights.at(bits)))
    assert shape is not None
    if catalog_id in _CATALOG:
        entry = shape_of_entry(_CATALOG.get(catalog_id), Quant.INT4)
        shape = replace(shape, float16=entry.float16)
    return shape
