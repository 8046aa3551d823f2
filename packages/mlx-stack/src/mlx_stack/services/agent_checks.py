"""What the last check of a tier said, and under which conditions it still holds."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlx_bench import EngineVersion, ReportError
from mlx_bench.agent_check.report import CheckConditions, CheckReport
from mlx_bench.agent_check.saved import latest_of, load_checks
from mlx_procsup import readable_run
from mlx_stack.engines import vllm_mlx
from mlx_stack.engines.environment import EngineName, Environment
from mlx_stack.home import Home
from mlx_stack.models.disk.manifest import weights_digest
from mlx_stack.models.find import local_model_of
from mlx_stack.open_stack import OpenStack
from mlx_stack.stack import Tier


@dataclass(frozen=True, slots=True)
class LastCheck:
    """The last check of a tier's model.

    Attributes:
        since: What has changed since, in words; empty where nothing has.
    """

    report: CheckReport
    since: tuple[str, ...]

    @property
    def words(self) -> str:
        """The verdict, and what has changed since."""
        verdict = self.report.verdict
        return f"{verdict}; since then: {'; '.join(self.since)}" if self.since else verdict


def checks_folder(home: Home) -> Path:
    """Where checks are saved."""
    return home.benchmarks / "checks"


def check_file(home: Home, tier: str, model: str) -> Path:
    """Where a check that begins now is saved."""
    parts = (tier, model, f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")
    words = [re.sub(r"[^A-Za-z0-9._]+", "-", part).strip("-.") for part in parts]
    return checks_folder(home) / f"{'-'.join(filter(None, words))}.json"


def conditions_of(opened: OpenStack, tier: Tier) -> CheckConditions:
    """What answers for a tier: its model's files, and the engine that runs or ran last."""
    local = local_model_of(opened, tier)
    record = readable_run(opened.home.state_dirs, tier.name)
    command = record.command if record is not None else ()
    return CheckConditions(
        model_hash=weights_digest(local.path) if local is not None else None,
        engine=_engine_of(opened.home, command),
        flags=vllm_mlx.settings_of(command) if command else None,
    )


def _engine_of(home: Home, command: tuple[str, ...]) -> EngineVersion:
    """The engine of a command line that starts with the Python of one of our environments."""
    if not command or not Path(command[0]).is_relative_to(home.engines):
        return EngineVersion()
    folder = Path(command[0]).parent.parent
    environment = Environment(EngineName(folder.parent.name), folder)
    return EngineVersion(environment.engine, environment.version)


def last_check(opened: OpenStack, tier: Tier) -> LastCheck | None:
    """The last check of the model that a tier serves; None where there was none.

    Raises:
        ReportError: When a saved check is damaged.
    """
    folder = checks_folder(opened.home)
    if not folder.is_dir():
        return None
    return _last_of(opened, tier, load_checks(folder))


def verdicts(opened: OpenStack) -> dict[str, str]:
    """What the last check of each tier said, in a line; none of a tier that had none."""
    folder = checks_folder(opened.home)
    if not folder.is_dir():
        return {}
    try:
        checks = load_checks(folder)
    except ReportError as error:
        words = f"the last check can't be read: {error.message}"
        return {tier.name: words for tier in opened.stack.tiers}
    found = {tier.name: _last_of(opened, tier, checks) for tier in opened.stack.tiers}
    return {name: last.words for name, last in found.items() if last is not None}


def _last_of(opened: OpenStack, tier: Tier, checks: Iterable[CheckReport]) -> LastCheck | None:
    now = conditions_of(opened, tier)
    report = latest_of(checks, tier.model, model_hash=now.model_hash)
    return LastCheck(report, now.differences(report.conditions)) if report is not None else None
