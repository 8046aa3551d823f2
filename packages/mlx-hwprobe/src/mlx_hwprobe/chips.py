"""The table of Apple Silicon chips: a row per bin, and the bandwidth of each (decision 0030)."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlx_hwprobe.errors import UnknownChipError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlx_hwprobe.profile import BandwidthSource

Confidence = Literal["high", "medium", "low"]

_NAME = re.compile(r"([ma])(\d{1,3})([a-z]{0,16})")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipBin:
    """One bin of a chip as Apple sells it: a number of GPU cores, and what goes with it.

    Attributes:
        chip: "M4 Max".
        memory_bandwidth_gb_s: Decimal GB/s as Apple prints it: advertised, not achieved.
        cpu_cores_options: The CPUs sold with this bin: physical cores by performance level.
        year: When it was first sold.
        source: Where the row's figures can be read.
        checked: The month in which that was last done, "2026-09".
        confidence: How sure the bandwidth is: `high` is printed by Apple.
        fp16_tflops: GPU cores times clock, computed by others and not by Apple, or None.
        fp16_tflops_confidence: How sure that is, or None without a figure.
    """

    chip: str
    gpu_cores: int
    memory_bandwidth_gb_s: int
    memory_options_gb: tuple[int, ...]
    cpu_cores_options: tuple[Mapping[str, int], ...] = field(hash=False)
    year: int
    source: str
    checked: str
    confidence: Confidence
    fp16_tflops: float | None = None
    fp16_tflops_confidence: Confidence | None = None
    note: str = ""

    def to_document(self) -> dict[str, Any]:
        """The row as JSON values."""
        return {
            **asdict(self),
            "memory_options_gb": list(self.memory_options_gb),
            "cpu_cores_options": [dict(cores) for cores in self.cpu_cores_options],
        }


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """A memory bandwidth in decimal GB/s, and where the figure is from."""

    gb_s: int
    source: BandwidthSource


def chip_table() -> tuple[ChipBin, ...]:
    """Every bin of every chip sold in a Mac, oldest generation first, smallest bin first."""
    return _data().bins


def chip_names() -> tuple[str, ...]:
    """The chips in the table, in its order."""
    return tuple(dict.fromkeys(row.chip for row in chip_table()))


def chip_of_model(hw_model: str) -> str | None:
    """The chip in the Mac that macOS calls `hw_model` ("Mac16,9"), or None."""
    return _data().chip_by_model.get(hw_model)


def parse_chip_name(text: str) -> str | None:
    """A chip's name as the table spells it, from what people and programs write.

    "m4max", "Apple M4 Max", "M4-MAX" and "Apple M4 Max (Virtual)" are all "M4 Max". A name of
    that form needs no row: "Apple M9 Ultra" is "M9 Ultra". None where it is not a chip of Apple's.
    """
    word = text.lower().replace("(virtual)", " ").replace("™", " ")
    word = re.sub(r"^\s*apple\b|\bchip\s*$", " ", word)
    match = _NAME.fullmatch(re.sub(r"[\s_.-]+", "", word))
    if match is None:
        return None
    family, generation, variant = match.groups()
    name = f"{family.upper()}{int(generation)}"
    return f"{name} {variant.capitalize()}" if variant else name


def bins_of(chip: str) -> tuple[ChipBin, ...]:
    """The rows of `chip`, smallest first; none for a chip that the table does not have."""
    return tuple(row for row in chip_table() if row.chip == chip)


def lookup(
    name: str, *, gpu_cores: int | None = None, memory_gb: float | None = None
) -> tuple[ChipBin, ...]:
    """The bins that `name` can mean, narrowed by what else is known; never empty.

    Raises:
        UnknownChipError: The chip is not in the table, or was never sold with this number of GPU
            cores or this memory size. Names the nearest chips, or what there is.
    """
    chip = parse_chip_name(name)
    rows = bins_of(chip) if chip else ()
    if not rows:
        raise _no_such_chip(name)
    fitting = tuple(
        row
        for row in rows
        if gpu_cores in (None, row.gpu_cores)
        and (memory_gb is None or memory_gb in row.memory_options_gb)
    )
    if not fitting:
        asked = [f"{gpu_cores} GPU cores"] if gpu_cores is not None else []
        asked += [f"{memory_gb:g} GB"] if memory_gb is not None else []
        raise UnknownChipError(
            f"no {chip} with {' and '.join(asked)} was sold",
            asked=name,
            hint="There is: " + "; ".join(describe_bin(row) for row in rows) + ".",
        )
    return fitting


def _no_such_chip(name: str) -> UnknownChipError:
    nearest = nearest_chips(name)
    return UnknownChipError(
        f"no chip named {name!r} in the table",
        asked=name,
        nearest=nearest,
        hint=f"The nearest names: {', '.join(nearest)}."
        if nearest
        else f"The table has {', '.join(chip_names())}.",
    )


def nearest_chips(name: str) -> tuple[str, ...]:
    """Up to three chips of the table whose names look like `name`, best first."""
    import difflib

    wanted = parse_chip_name(name) or name.strip()
    return tuple(difflib.get_close_matches(wanted.title(), chip_names(), n=3, cutoff=0.5))


def describe_bin(row: ChipBin) -> str:
    """A bin in one phrase: "40 GPU cores with 48, 64 or 128 GB"."""
    *most, last = (str(size) for size in row.memory_options_gb)
    sizes = f"{', '.join(most)} or {last}" if most else last
    return f"{row.gpu_cores} GPU cores with {sizes} GB"


def bandwidth_of(chip: str, *, gpu_cores: int | None, memory_gb: float | None) -> Bandwidth | None:
    """The memory bandwidth of a machine with this chip, or None for a chip of no known family.

    The number of GPU cores decides. Where it is unknown, or where one number has several
    bandwidths (M6), the memory size picks the bin. Where neither does, the smallest figure that
    is possible is given as an estimate. So is the figure of the newest earlier chip of the same
    variant, for a chip that the table does not have.
    """
    rows = bins_of(chip)
    if not rows:
        return _estimate(chip, gpu_cores)
    of_cores = [row for row in rows if row.gpu_cores == gpu_cores]
    if gpu_cores is not None and not of_cores:
        return Bandwidth(_floor(rows, gpu_cores), "estimate")
    figures = {row.memory_bandwidth_gb_s for row in of_cores or rows}
    if len(figures) == 1:
        return Bandwidth(figures.pop(), "table")
    by_memory = {
        row.memory_bandwidth_gb_s for row in of_cores or rows if memory_gb in row.memory_options_gb
    }
    if len(by_memory) == 1:
        return Bandwidth(by_memory.pop(), "table-by-memory")
    return Bandwidth(min(figures), "estimate")


def _estimate(chip: str, gpu_cores: int | None) -> Bandwidth | None:
    """What the newest earlier chip of the same variant has: so far none was slower than it."""
    wanted = _family(chip)
    if wanted is None:
        return None
    family, generation, variant = wanted
    earlier = [
        (known[1], known[2] == variant, row)
        for row in chip_table()
        if (known := _family(row.chip)) and known[0] == family and known[1] < generation
    ]
    same_variant = [entry for entry in earlier if entry[1]]
    candidates = same_variant or earlier
    if not candidates:
        return None
    newest = max(entry[0] for entry in candidates)
    rows = [row for known, _, row in candidates if known == newest]
    return Bandwidth(_floor(rows, gpu_cores), "estimate")


def _floor(rows: Sequence[ChipBin], gpu_cores: int | None) -> int:
    """The least bandwidth of the largest bin with at most that many GPU cores, else of all."""
    reached = [row for row in rows if gpu_cores is not None and row.gpu_cores <= gpu_cores]
    largest = max((row.gpu_cores for row in reached), default=None)
    return min(row.memory_bandwidth_gb_s for row in rows if largest in (None, row.gpu_cores))


def _family(chip: str) -> tuple[str, int, str] | None:
    match = _NAME.fullmatch(chip.lower().replace(" ", ""))
    return (match[1], int(match[2]), match[3] or "") if match else None


@dataclass(frozen=True, slots=True)
class _Data:
    bins: tuple[ChipBin, ...]
    chip_by_model: Mapping[str, str]


@cache
def _data() -> _Data:
    import tomllib

    # Not importlib.resources: it takes longer to import than the table takes to read.
    path = Path(__file__).parent / "data" / "chips.toml"
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    return _Data(tuple(_parse_bin(row) for row in document["bins"]), document["hw_models"])


def _parse_bin(row: dict[str, Any]) -> ChipBin:
    fields = dict(row)
    tflops = fields.pop("fp16_tflops", {})
    return ChipBin(
        memory_options_gb=tuple(fields.pop("memory_options_gb")),
        cpu_cores_options=tuple(fields.pop("cpu_cores")),
        fp16_tflops=tflops.get("value"),
        fp16_tflops_confidence=tflops.get("confidence"),
        **fields,
    )
