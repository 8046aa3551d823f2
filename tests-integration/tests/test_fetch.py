"""Fetching through troubles, in this process: over real sockets, with short time limits."""

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from mlx_catalog.hub import HubCommit
from mlx_stack.models.disk.layout import places_of
from mlx_stack.models.disk.manifest import FileRecord
from mlx_stack.models.download.fetch import FetchOptions, PullResult, fetch
from mlx_stack.models.download.hub_files import HubFiles
from mlx_stack.models.download.retries import TransferPolicy
from mlx_stack.models.errors import DiskSpaceError, HubUnreachableError, WrongContentError
from mlx_stack.models.events import ModelEvent, Progress, Retrying
from mlx_stack.models.hub.environment import HubEnvironment
from stack_testkit.hub import Fault, HubServer, Repository, Settings, write_repository

pytestmark = pytest.mark.story

REPO = "example/Tiny"
MB = 1_000_000
CONTENTS = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": random.Random(1).randbytes(24 * MB),
    "model-00002-of-00002.safetensors": random.Random(2).randbytes(7 * MB),
    "vocab.json": b"",
    "tokenizer früher.json": random.Random(3).randbytes(200_000),
}
SIZE = sum(len(content) for content in CONTENTS.values())
FIRST, SECOND = "*-00001-of*", "*-00002-of*"
POLICY = TransferPolicy(
    connections=8,
    attempts=3,
    patience_s=2.0,
    take_over_s=0.5,
    tick_s=0.05,
)


@dataclass(frozen=True, slots=True)
class Story:
    """A hub, a model in it, and a place for it."""

    hub: HubServer
    files: tuple[FileRecord, ...]
    model_dir: Path
    events: list[ModelEvent]

    def fetch(self, policy: TransferPolicy = POLICY) -> PullResult:
        """Fetch the model, as `pull` does once it knows the files."""
        remote = HubCommit(REPO, "c" * 40, is_gated=False)
        options = FetchOptions(policy=policy)
        places = places_of(self.model_dir, REPO)
        environment = HubEnvironment(endpoint=self.hub.url, timeout_s=0.3)
        with HubFiles(environment, remote) as source:
            return fetch(remote, self.files, source, places, options, self.events.append)

    def assert_exact(self, fetched: PullResult) -> None:
        """Every byte is what it should be."""
        assert fetched.model.is_whole
        for name, content in CONTENTS.items():
            assert (fetched.model.path / name).read_bytes() == content

    @property
    def retried(self) -> list[str]:
        """Why something was tried again."""
        return [event.reason for event in self.events if isinstance(event, Retrying)]


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    repository = write_repository(tmp_path / "hub", REPO, CONTENTS)
    model_dir = tmp_path / "models"
    model_dir.mkdir()
    with HubServer(tmp_path / "hub") as hub:
        files = tuple(record(repository, name) for name in CONTENTS)
        yield Story(hub, files, model_dir, [])


def record(repository: Repository, name: str) -> FileRecord:
    is_lfs = repository.size(name) >= Settings().lfs_from_bytes
    return FileRecord(
        path=name,
        size_bytes=repository.size(name),
        algorithm="sha256" if is_lfs else "git-sha1",
        digest=repository.sha256(name) if is_lfs else repository.git_sha1(name),
    )


TROUBLES = {
    "connections are cut": Settings(
        faults=(Fault(kind="cut", path="*.safetensors", times=8, after_bytes=300_000),)
    ),
    "connections are cut at once": Settings(faults=(Fault(kind="cut", times=3),)),
    "connections go silent": Settings(
        faults=(Fault(kind="stall", path="*.safetensors", times=3, after_bytes=100_000),)
    ),
    "the server stumbles": Settings(faults=(Fault(kind="status", status=500, times=4),)),
    "the server is overloaded": Settings(
        faults=(Fault(kind="status", status=503, times=2, retry_after="0"),)
    ),
    "the server throttles": Settings(
        faults=(Fault(kind="status", status=429, times=3, retry_after="0"),)
    ),
    "addresses expire": Settings(faults=(Fault(kind="expired", path=FIRST, times=3, skip=2),)),
    "redirects announce what never comes": Settings(faults=(Fault(kind="endless", times=4),)),
    "redirects are badly quoted": Settings(quotes_badly=True),
    "one connection is slow": Settings(
        faults=(Fault(kind="slow", path=FIRST, times=1, skip=3, rate_bytes_s=2_000),)
    ),
    "the server knows no ranges": Settings(ignores_ranges=True),
    "the server knows no ranges and cuts": Settings(
        ignores_ranges=True, faults=(Fault(kind="cut", path=FIRST, times=2, after_bytes=5 * MB),)
    ),
    "each answer ends its connection": Settings(keeps_alive=False),
    "everything is slow": Settings(latency_s=0.05, rate_bytes_s=3 * MB),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_every_byte_arrives_though(story: Story, name: str):
    story.hub.configure(TROUBLES[name])
    story.assert_exact(story.fetch())


def test_a_slow_connection_does_not_hold_the_others_up(story: Story):
    slow = Fault(kind="slow", path=FIRST, times=1, skip=3, rate_bytes_s=1_000)
    story.hub.configure(Settings(faults=(slow,), rate_bytes_s=10 * MB))
    fetched = story.fetch()
    story.assert_exact(fetched)
    progress = [event for event in story.events if isinstance(event, Progress)]
    assert progress[-1].present_bytes == SIZE
    assert fetched.downloaded_bytes < SIZE * 1.05


def test_the_wait_that_a_server_asks_for_is_kept(story: Story):
    fault = Fault(kind="status", status=429, path="*.safetensors", times=1, retry_after="1")
    story.hub.configure(Settings(faults=(fault,)))
    story.assert_exact(story.fetch())
    (event,) = [event for event in story.events if isinstance(event, Retrying)]
    assert event.delay_s == 1.0


@pytest.mark.parametrize("kind", ["status", "cut", "stall"])
def test_a_file_that_never_comes_is_given_up_and_the_rest_kept(
    story: Story, kind: Literal["status", "cut", "stall"]
):
    fault = Fault(kind=kind, path=FIRST, status=500, skip=4)
    story.hub.configure(Settings(faults=(fault,)))
    with pytest.raises(HubUnreachableError) as failed:
        story.fetch()
    assert "to continue it" in str(failed.value.hint)
    story.hub.configure(Settings())
    before = story.hub.sent_bytes
    fetched = story.fetch()
    story.assert_exact(fetched)
    assert fetched.resumed_bytes > 0
    assert fetched.resumed_bytes + fetched.downloaded_bytes == SIZE
    assert story.hub.sent_bytes - before < SIZE


def test_a_wrong_hash_throws_that_file_away_and_keeps_the_others(story: Story):
    story.hub.configure(Settings(faults=(Fault(kind="wrong-hash", path=SECOND, times=1),)))
    with pytest.raises(WrongContentError, match="00002-of-00002"):
        story.fetch()
    story.hub.configure(Settings())
    fetched = story.fetch()
    story.assert_exact(fetched)
    assert fetched.downloaded_bytes >= len(CONTENTS["model-00002-of-00002.safetensors"])


def test_a_model_that_does_not_fit_is_refused_before_the_first_byte(story: Story):
    huge = replace(story, files=(*story.files, sparse_record()))
    with pytest.raises(DiskSpaceError, match="needs 9000000"):
        huge.fetch()
    assert story.hub.sent_bytes == 0


def sparse_record() -> FileRecord:
    return FileRecord(path="model-huge", size_bytes=9 * 10**15, algorithm="sha256", digest="0" * 64)


def test_no_thread_is_left_when_a_fetch_is_over(story: Story):
    before = set(threading.enumerate())
    story.fetch()
    left = set(threading.enumerate()) - before
    assert all("process_request" in thread.name for thread in left), "only the hub's own"


def test_progress_never_goes_back_and_ends_at_the_whole(story: Story):
    story.hub.configure(Settings(rate_bytes_s=4 * MB))
    story.fetch()
    present = [event.present_bytes for event in story.events if isinstance(event, Progress)]
    assert present == sorted(present)
    assert present[-1] == SIZE
