"""What it costs Macs that serve a model together to exchange what they computed, with its sources.

Published figures of this are few, and of machines unlike each other, so each is a range; what no
one has measured makes the range wide (decision 0116).
"""

from dataclasses import dataclass
from enum import StrEnum

_FENCE = "https://github.com/ml-explore/mlx/issues/4438"
"""M3 Ultra, MLX 0.32.2: 180 us each time that the GPU waits for the CPU, which does the exchange;
4 us with MLX_METAL_FAST_SYNCH=1, which is off unless the user sets it."""
_RDMA = "https://www.jeffgeerling.com/blog/2025/15-tb-vram-on-mac-studio-rdma-over-thunderbolt-5"
"""From 300 us over TCP to less than 50 us by RDMA, between Macs with Thunderbolt 5."""
_BRIDGE = "https://github.com/exo-explore/exo/issues/2295"
"""Round trips over a Thunderbolt bridge while models run: 0.38 to 0.95 ms."""
_COPY = "https://github.com/ml-explore/mlx/issues/3207"
"""MLX's own sending over Thunderbolt 5: 3.5 to 3.8 GB/s by RDMA; rsync over its TCP 0.3 to 0.5."""
_RING = "https://github.com/georgiedekker/mlx_distributed_ring_inference_v2"
"""MLX's ring over a Thunderbolt bridge between Mac minis: 10 to 20 Gbit/s."""
_TCCL = "https://github.com/pytorch/pytorch/pull/189856"
"""RDMA over Thunderbolt 5: up to 7.6 GB/s for each Mac."""


class LinkKind(StrEnum):
    """What Macs are joined by, and how MLX uses it."""

    THUNDERBOLT = "thunderbolt"
    """MLX's ring: TCP over a Thunderbolt cable."""
    JACCL = "jaccl"
    """MLX's JACCL: RDMA over Thunderbolt 5."""
    ETHERNET = "ethernet"
    """MLX's ring: TCP over Ethernet, of 1 to 10 Gbit/s."""


@dataclass(frozen=True, slots=True)
class Range:
    """A figure with what it may also be."""

    low: float
    value: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A way to exchange numbers.

    Attributes:
        hop_s: Seconds until a few bytes have reached a neighbour.
        bytes_per_s: What gets through, of large arrays.
        most_macs: How many it can join: by RDMA, each two need a cable between them.
        is_ring: Whether what is exchanged goes around, so that each further Mac adds a hop.
        sources: Where the figures can be read.
    """

    kind: LinkKind
    hop_s: Range
    bytes_per_s: Range
    is_ring: bool
    sources: tuple[str, ...]
    most_macs: int = 8

    def hops(self, macs: int) -> int:
        """How many hops it takes until each of so many Macs has what all have."""
        return macs - 1 if self.is_ring else 1


FENCE_S = Range(4e-6, 180e-6, 250e-6)
"""What the GPU waits at each exchange, whatever the link; slower machines than the measured one may
wait longer."""

PIPELINE_SPREAD = 2.0
"""How much longer a token of a pipeline may take than what is added up: no one has published how
fast mlx-lm's is over TCP, and exo's was far slower at first
(https://github.com/exo-explore/exo/pull/1594)."""

THUNDERBOLT = Link(
    kind=LinkKind.THUNDERBOLT,
    hop_s=Range(250e-6, 320e-6, 950e-6),
    bytes_per_s=Range(0.3e9, 1.5e9, 2.5e9),
    is_ring=True,
    sources=(_FENCE, _RDMA, _BRIDGE, _RING, _COPY),
)
JACCL = Link(
    kind=LinkKind.JACCL,
    hop_s=Range(5e-6, 15e-6, 50e-6),
    bytes_per_s=Range(3.5e9, 5e9, 7.6e9),
    is_ring=False,
    most_macs=4,
    sources=(_FENCE, _RDMA, _COPY, _TCCL),
)
ETHERNET = Link(
    kind=LinkKind.ETHERNET,
    # no one published it for MLX: TCP as over Thunderbolt at best
    hop_s=Range(250e-6, 500e-6, 3e-3),
    bytes_per_s=Range(0.11e9, 0.3e9, 1.1e9),
    is_ring=True,
    sources=(_FENCE,),
)
LINKS = (THUNDERBOLT, JACCL, ETHERNET)
"""The usual one first."""
