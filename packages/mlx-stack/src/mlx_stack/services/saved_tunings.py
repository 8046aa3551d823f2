"""What earlier tunings of the tiers measured, as files that `bench --tune` writes and continues."""

from pathlib import Path

import msgspec

from mlx_bench import EngineVersion, ReportError
from mlx_bench.report_file import read_text
from mlx_bench.tuning import TrialSettings, Tuning
from mlx_stack.home import Home

SCHEMA_VERSION = 1


class Subject(msgspec.Struct, frozen=True):
    """What is tuned: what a saved result must share with the tier as it is, to be of use.

    Attributes:
        flags: All flags of the tier's command line but for names and addresses.
    """

    tier: str
    model: str
    model_hash: str | None
    engine: EngineVersion
    flags: TrialSettings
    prompt_tokens: int
    generation_tokens: int
    concurrency: int


class SavedTuning(msgspec.Struct, frozen=True):
    """A result as a file, finished or not."""

    subject: Subject
    started_at: str
    tuning: Tuning
    is_finished: bool = False
    schema_version: int = SCHEMA_VERSION


def tunings_folder(home: Home) -> Path:
    """Where the results are."""
    return home.benchmarks / "tuning"


def load_tunings(home: Home) -> list[tuple[Path, SavedTuning]]:
    """Every saved result with its file, by name.

    Raises:
        ReportError: One can't be read, or isn't one.
    """
    return [(path, _load(path)) for path in sorted(tunings_folder(home).glob("*.json"))]


def _load(path: Path) -> SavedTuning:
    try:
        return msgspec.json.decode(read_text(path), type=SavedTuning)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ReportError(f"isn't the result of a tuning: {error}", source=str(path)) from error
