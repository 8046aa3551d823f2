"""What a benchmark of a role found.

The fields of these types are the fields of the JSON document of `schema_version` 1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mlx_bench.cautions import Caution
from mlx_bench.metrics import Count, WaveTiming
from mlx_bench.report import SCHEMA_VERSION, EngineVersion
from mlx_bench.roles.workload import RoleLoad, RoleParameters
from mlx_bench.stats import UNKNOWN, MedianEstimate, estimate
from mlx_bench.workload import Exactness


class RoleRun(msgspec.Struct, frozen=True, kw_only=True):
    """One request, measured; None is what it could not tell.

    Attributes:
        iteration: Which iteration of its load, from 0.
        end_to_end_s: From the request's last byte to the end of the answer.
        first_byte_s: From the same to the answer's first byte; None of roles that don't stream.
        amount: What was done, in the unit that the rate is of a second.
        tokens: What the server read, by its own count.
        error: Why the run does not count, or None.
    """

    load: RoleLoad
    iteration: Count
    stream: Count
    connect_s: float
    end_to_end_s: float | None
    first_byte_s: float | None = None
    amount: float
    tokens: Count | None
    error: str | None


class RoleWave(WaveTiming, frozen=True, kw_only=True):
    """One wave of requests at a load."""

    load: RoleLoad


class LoadSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What the requests at one load come to.

    Attributes:
        rate: What was done a second by all requests of a wave together, in the report's unit.
        tokens_per_s: Tokens that the server read, over the same time.
        end_to_end_s: Of one request.
        first_byte_s: Likewise; unknown of roles that don't stream.
        memory_bytes: The serving process's peak memory, over waves.
    """

    items: Count
    size: Count
    concurrency: Count
    rate: MedianEstimate = UNKNOWN
    tokens_per_s: MedianEstimate = UNKNOWN
    end_to_end_s: MedianEstimate = UNKNOWN
    first_byte_s: MedianEstimate = UNKNOWN
    memory_bytes: MedianEstimate = UNKNOWN


class RoleReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a benchmark of a role found.

    Attributes:
        unit: Of the rates, as `texts/s`.
        item: One of what a request holds, and several, in words.
        size_unit: Of their size, as `tokens`.
        size_exactness: How well sizes in tokens are known; None of other sizes.
        finished: False in what was written before the last iteration.
        summaries: What the requests come to, load by load in the order of measurement.
        extra: Further keys of the document, which mean something to whoever added them.
    """

    bench_version: str = ""
    target: str
    model: str
    role: str
    unit: str
    item: tuple[str, str]
    size_unit: str
    engine: EngineVersion = EngineVersion()
    parameters: RoleParameters
    size_exactness: Exactness | None = None
    machine: dict[str, object]
    started_at: str = ""
    finished: bool = False
    summaries: tuple[LoadSummary, ...] = msgspec.field(name="summary")
    cautions: tuple[Caution, ...] = ()
    runs: tuple[RoleRun, ...] = ()
    waves: tuple[RoleWave, ...] = ()
    extra: dict[str, object] = msgspec.field(default_factory=dict[str, object])

    @property
    def best(self) -> LoadSummary | None:
        """The load with the highest rate; None where nothing has one."""
        known = [each for each in self.summaries if each.rate.value is not None]
        return max(known, key=lambda each: each.rate.value or 0.0, default=None)

    def load_words(self, load: LoadSummary | RoleLoad) -> str:
        """A load in words, as `32 texts of 128 tokens a request`."""
        item = self.item[load.items != 1]
        streams = f", {load.concurrency} requests at once" if load.concurrency > 1 else ""
        return f"{load.items} {item} of {load.size:,} {self.size_unit} per request{streams}"

    def to_document(self) -> dict[str, object]:
        """The report as a JSON object."""
        shape: dict[str, Any] = msgspec.to_builtins(self)
        extra = shape.pop("extra")
        return {"schema_version": SCHEMA_VERSION, **shape, **extra}


def summarize_load(
    load: RoleLoad, runs: Sequence[RoleRun], waves: Sequence[RoleWave], *, seed: int
) -> LoadSummary:
    """What the successful requests at one load come to."""
    good = [run for run in runs if run.load == load and run.error is None]
    timings = [wave for wave in waves if wave.load == load]

    def over_waves(read: Callable[[RoleWave, list[RoleRun]], float | None]) -> MedianEstimate:
        values = [
            value
            for wave in timings
            if (value := read(wave, [run for run in good if run.iteration == wave.iteration]))
            is not None
        ]
        return estimate(values, seed=seed)

    seconds = [run.end_to_end_s for run in good if run.end_to_end_s is not None]
    first = [run.first_byte_s for run in good if run.first_byte_s is not None]
    return LoadSummary(
        items=load.items,
        size=load.size,
        concurrency=load.concurrency,
        rate=over_waves(lambda wave, mine: _per_second([run.amount for run in mine], wave)),
        tokens_per_s=over_waves(lambda wave, mine: _per_second([run.tokens for run in mine], wave)),
        end_to_end_s=estimate(seconds, seed=seed),
        first_byte_s=estimate(first, seed=seed),
        memory_bytes=over_waves(lambda wave, _: wave.peak_memory_bytes),
    )


def _per_second(amounts: Sequence[float | None], wave: RoleWave) -> float | None:
    known = [each for each in amounts if each is not None]
    if not known or len(known) < len(amounts) or wave.duration_s <= 0:
        return None
    return sum(known) / wave.duration_s
