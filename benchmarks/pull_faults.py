"""Random trouble: is the result always the exact bytes, or a clear error that can be resumed?

    uv run python benchmarks/pull_faults.py [--schedules 500] [--seed N]

Each schedule is a repository, a few random faults of the hub, and a fetch with short time limits.
Where the fetch fails, the hub is repaired and the fetch run again: it must succeed then, and what
was there before must count. The exit code is 1 where anything else happens.
"""

import argparse
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mlx_catalog.hub import HubCommit
from mlx_stack.errors import StackError
from mlx_stack.models.disk.layout import places_of
from mlx_stack.models.disk.manifest import FileRecord
from mlx_stack.models.download.fetch import FetchOptions, PullResult, fetch
from mlx_stack.models.download.hub_files import HubFiles
from mlx_stack.models.download.retries import TransferPolicy
from mlx_stack.models.hub.environment import HubEnvironment
from stack_testkit.hub import Fault, HubServer, Settings, write_repository
from stack_testkit.hub.faults import Kind

REPO = "bench/faulty"
SIZES = {"config.json": 200, "model-1.safetensors": 6_000_000, "model-2.safetensors": 3_500_000}
OFTEN: tuple[Kind, ...] = ("status", "cut", "stall", "slow", "expired")
SELDOM: tuple[Kind, ...] = ("wrong-size", "wrong-hash")
POLICY = TransferPolicy(connections=8, attempts=3, patience_s=0.5, longest_wait_s=2.0, tick_s=0.05)


@dataclass(frozen=True, slots=True)
class Case:
    """What is fetched, and what its files must hold."""

    hub: HubServer
    remote: HubCommit
    files: tuple[FileRecord, ...]
    contents: dict[str, bytes]


def main() -> int:
    """Run the schedules; 1 where one ended as it must not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    outcomes = Counter[str]()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pull-faults-") as folder:
        contents = {name: chance.randbytes(size) for name, size in SIZES.items()}
        contents["config.json"] = b"{}".ljust(SIZES["config.json"])
        repository = write_repository(Path(folder, "hub"), REPO, contents)
        files = tuple(record(repository.tree(100_000), name) for name in contents)
        with HubServer(Path(folder, "hub")) as hub:
            case = Case(hub, HubCommit(REPO, repository.commit, False), files, contents)
            for number in range(options.schedules):
                settings = random_settings(chance)
                outcome = run(case, settings, Path(folder, f"models-{number}"))
                outcomes[outcome] += 1
                if outcome.startswith("WRONG"):
                    print(f"schedule {number}: {outcome}\n  {settings}")
    print(f"{options.schedules} schedules in {time.monotonic() - began:.0f} s, seed {options.seed}")
    for outcome, count in outcomes.most_common():
        print(f"{count:5}  {outcome}")
    return 1 if any(outcome.startswith("WRONG") for outcome in outcomes) else 0


def random_settings(chance: random.Random) -> Settings:
    """One to five faults, and a hub with its own habits."""
    faults = tuple(
        Fault(
            kind=chance.choice((*OFTEN * 3, *SELDOM)),
            path=chance.choice(("*", "*", "model-1*", "model-2*", "config*")),
            times=chance.choice((1, 2, 5, 20, None)),
            skip=chance.choice((0, 0, 1, 5)),
            after_bytes=chance.randrange(3_000_000),
            status=chance.choice((429, 500, 502, 503)),
            retry_after=chance.choice((None, None, "0", "1", "60")),
            rate_bytes_s=chance.choice((200_000, 1_000_000)),
        )
        for _ in range(chance.randint(1, 5))
    )
    return Settings(
        faults=faults,
        ignores_ranges=chance.random() < 0.1,
        latency_s=chance.choice((0.0, 0.0, 0.02)),
        rate_bytes_s=chance.choice((None, None, 3_000_000)),
    )


def run(case: Case, settings: Settings, model_dir: Path) -> str:
    """How a schedule ended: `exact`, the type of a clear error that was resumed, or `WRONG …`."""
    model_dir.mkdir()
    case.hub.configure(settings)
    try:
        return judge(case, attempt(case, model_dir), "exact")
    except StackError as error:
        kept = sum(f.stat().st_blocks * 512 for f in model_dir.rglob("*.part"))
        clear = f"{error.type}, then resumed" if error.message else "WRONG: an empty message"
    case.hub.configure(Settings())
    fetched = attempt(case, model_dir)
    if kept > 1_000_000 and not fetched.resumed_bytes and "wrong-content" not in clear:
        return "WRONG: what was there didn't count"
    return judge(case, fetched, clear)


def attempt(case: Case, model_dir: Path) -> PullResult:
    """One fetch, as `mlx-stack pull` does it."""
    places = places_of(model_dir, REPO)
    environment = HubEnvironment(endpoint=case.hub.url, timeout_s=0.3)
    with HubFiles(environment, case.remote) as source:
        return fetch(case.remote, case.files, source, places, FetchOptions(policy=POLICY))


def judge(case: Case, fetched: PullResult, otherwise: str) -> str:
    """`otherwise`, where the model is whole and every byte is right."""
    if not fetched.model.is_whole:
        return f"WRONG: {fetched.model.problems}"
    for name, content in case.contents.items():
        if (fetched.model.path / name).read_bytes() != content:
            return f"WRONG: {name} differs"
    return otherwise


def record(tree: list[dict[str, object]], name: str) -> FileRecord:
    """A file as the hub's tree describes it."""
    entry = next(entry for entry in tree if entry["path"] == name)
    lfs = entry.get("lfs")
    digest = lfs["oid"] if isinstance(lfs, dict) else entry["oid"]
    return FileRecord(
        path=name,
        size_bytes=int(str(entry["size"])),
        algorithm="sha256" if isinstance(lfs, dict) else "git-sha1",
        digest=str(digest),
    )


if __name__ == "__main__":
    raise SystemExit(main())
