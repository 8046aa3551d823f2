"""What the speed model wants to know of a chip, read from a hardware profile."""

import re
from dataclasses import dataclass

from mlx_hwprobe import HardwareProfile
from mlx_recommend.calibration import (
    A_SERIES_AS_M,
    BANDWIDTH_PER_CORE_GB_S,
    FIRST_BF16_GENERATION,
    FIRST_RDMA_GENERATION,
    MEASURED_CHIPS,
    NEWEST_GENERATION,
    ChipWidth,
)

_CHIP = re.compile(r"(?P<series>[MA])(?P<generation>\d+)(?: (?P<width>Pro|Max|Ultra))?\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A chip as the speed model sees it.

    Attributes:
        generation: The chip's generation, as an M-series number.
        bandwidth_gb_s: Memory bandwidth, advertised or measured, in decimal GB/s.
        gpu_cores: Cores of the GPU; None where unknown.
        is_measured_generation: Whether any published MLX measurement is from this generation.
    """

    generation: int
    width: ChipWidth
    bandwidth_gb_s: float
    gpu_cores: int | None
    is_measured_generation: bool

    @property
    def is_measured(self) -> bool:
        """Whether any published MLX measurement is from such a chip."""
        return self.is_measured_generation and (self.generation, self.width) in MEASURED_CHIPS

    @property
    def likely_gpu_cores(self) -> float:
        """Cores of the GPU; where unknown, as many as the bandwidth suggests."""
        return self.gpu_cores or self.bandwidth_gb_s / BANDWIDTH_PER_CORE_GB_S

    @property
    def is_newest(self) -> bool:
        """Whether the GPU cores have matrix units (M5 and later)."""
        return self.generation >= NEWEST_GENERATION

    @property
    def has_rdma(self) -> bool:
        """Whether it has Thunderbolt 5, over which macOS 26.2 and later do RDMA."""
        if self.width is ChipWidth.BASE:
            return False
        return self.generation >= FIRST_RDMA_GENERATION or (
            self.generation == FIRST_RDMA_GENERATION - 1 and self.width is ChipWidth.ULTRA
        )

    @property
    def has_bf16(self) -> bool:
        """Whether the GPU computes in bfloat16 natively."""
        return self.generation >= FIRST_BF16_GENERATION


def machine_of(hardware: HardwareProfile) -> Machine | None:
    """The chip of a profile, or None where its speed can't be estimated.

    That is so off Apple Silicon, in a virtual machine (which has no GPU itself) and where the
    bandwidth is unknown.
    """
    match = _CHIP.match(hardware.chip or "")
    if match is None or hardware.is_virtual_machine or hardware.memory_bandwidth_gb_s is None:
        return None
    generation, width = int(match["generation"]), ChipWidth((match["width"] or "base").lower())
    if match["series"] == "A":  # an A18 Pro is a small chip, in spite of its name
        generation = A_SERIES_AS_M.get(generation, generation - 14)
        width = ChipWidth.BASE
    return Machine(
        generation=generation,
        width=width,
        bandwidth_gb_s=hardware.memory_bandwidth_gb_s,
        gpu_cores=hardware.gpu_cores,
        is_measured_generation=match["series"] == "M" and generation <= NEWEST_GENERATION,
    )
