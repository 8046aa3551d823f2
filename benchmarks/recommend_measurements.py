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
from mlx_recommend.calibration import FLOAT32_UNPACKING, PREFILL_STEP_TOKENS
from mlx_recommend.inputs import ModelShape
from mlx_recommend.machine import Machine, machine_of
from mlx_recommend.shapes import shape_of_entry, shape_of_model

DATA = Path(__file__).parent / "data"
_MLX = re.compile(r"mlx 0\.(?P<minor>\d+)(?:\.(?P<patch>\d+))?")
_MLX_LM = re.compile(r"mlx[-_]lm\S* 0\.(?P<minor>\d+)")
_STEP = re.compile(r"step (?P<tokens>\d+)")
_FOOTPRINT = "phys_footprint"
_FOOTPRINT_GB = 2**30 / 1e9
"""macOS's `footprint` counts in powers of two."""
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
    is_whole_process: bool = False
    loads_towers: bool = True

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
    def prefill_step_tokens(self) -> int:
        """How much of a prompt was computed at once."""
        named = _STEP.search(self.tool)
        return int(named["tokens"]) if named is not None else PREFILL_STEP_TOKENS

    @property
    def memory_shape(self) -> ModelShape:
        """The shape as far as memory goes: that of the engine's version, as its program loads it.

        mlx-lm up to 0.21 passed masks as arrays, for which MLX had no fused kernel at any width
        (https://github.com/ml-explore/mlx-lm/pull/40): scores of every layer were kept.
        """
        shape, named = self.shape, _MLX_LM.search(self.tool)
        if named is not None and int(named["minor"]) < 22 and shape.layers:
            shape = replace(shape, growing_score_heads=shape.growing_query_heads // shape.layers)
        if not self.loads_towers and shape.weights_bytes is not None:
            shape = replace(shape, weights_bytes=shape.weights_bytes - self.tower_bytes)
        return shape

    @property
    def tower_bytes(self) -> int:
        """What the catalog says of towers for images and sound: 16 bits for each parameter."""
        if self.catalog_id not in _CATALOG:
            return 0
        entry = _CATALOG.get(self.catalog_id)
        return round((entry.tower_params_b or 0) * 2e9) if entry.capabilities.vision else 0

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


def peaks() -> list[Row]:
    """Peaks of memory that came later: nothing is fitted to these rows."""
    return read_rows(DATA / "mlx_peaks.csv")


def streams() -> list[Row]:
    """Several requests at once: nothing is fitted to these rows."""
    return read_rows(DATA / "mlx_streams.csv")


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
        is_whole_process = _FOOTPRINT in fields["note"]
        peak = _number(fields["peak"])
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
            peak_memory_gb=peak * _FOOTPRINT_GB if peak and is_whole_process else peak,
            is_whole_process=is_whole_process,
            loads_towers=not _loads_text_only(fields["tool"]),
            tool=fields["tool"],
            source=fields["source"],
            machine=_machine(fields["chip"], fields["gpu_cores"], fields["memory_gb"]),
            shape=shape_of_entry(_CATALOG.get(model), Quant(quant)),
        )


def _loads_text_only(tool: str) -> bool:
    """Whether a program leaves towers out: mlx-lm does, and Rapid-MLX's `serve` for these models.

    Its status says 15.13 GB of arrays for Qwen3.8 27B, which is the text part alone.
    """
    return tool.startswith(("mlx-lm", "mlx_lm", "Rapid-MLX"))


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
