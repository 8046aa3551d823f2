import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_stack.models.disk.manifest import FileRecord
from mlx_stack.models.download.intervals import IntervalSet
from mlx_stack.models.download.partial import PartialFile, parse_ranges

CONTENT = bytes(range(256)) * 40


def record(content: bytes = CONTENT, path: str = "model.safetensors") -> FileRecord:
    digest = hashlib.sha256(content).hexdigest()
    return FileRecord(path=path, size_bytes=len(content), algorithm="sha256", digest=digest)


def open_partial(folder: Path, boot: str = "today", content: bytes = CONTENT) -> PartialFile:
    wanted = record(content)
    return PartialFile(folder / wanted.path, wanted, boot)


def abandon(partial: PartialFile) -> None:
    """What SIGKILL leaves: no orderly word in the journal."""
    partial.close()


def test_a_killed_download_continues_behind_what_was_written(tmp_path: Path):
    first = open_partial(tmp_path)
    first.write(0, CONTENT[:4000])
    first.write(6000, CONTENT[6000:7000])
    abandon(first)
    second = open_partial(tmp_path)
    assert list(second.received) == [(0, 4000), (6000, 7000)]
    assert second.resumed_bytes == 5000
    second.write(4000, CONTENT[4000:6000])
    second.write(7000, CONTENT[7000:])
    assert second.is_complete
    second.publish()
    assert (tmp_path / "model.safetensors").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_after_a_restart_of_the_machine_only_what_had_reached_the_disk_counts(tmp_path: Path):
    first = open_partial(tmp_path, "before the power cut")
    first.write(0, CONTENT[:3000])
    first.sync()
    first.write(3000, CONTENT[3000:9000])
    abandon(first)
    second = open_partial(tmp_path, "after it")
    assert list(second.received) == [(0, 3000)]


def test_without_a_restart_everything_that_was_written_counts(tmp_path: Path):
    first = open_partial(tmp_path)
    first.write(0, CONTENT[:3000])
    first.sync()
    first.write(3000, CONTENT[3000:9000])
    abandon(first)
    assert open_partial(tmp_path).received.total == 9000


def test_a_line_of_the_journal_that_was_cut_short_is_left_out(tmp_path: Path):
    first = open_partial(tmp_path)
    first.write(0, CONTENT[:1000])
    abandon(first)
    journal = tmp_path / "model.safetensors.part.journal"
    journal.write_bytes(journal.read_bytes() + b"1000 20")
    assert list(open_partial(tmp_path).received) == [(0, 1000)]


def test_remains_of_another_content_are_thrown_away(tmp_path: Path):
    first = open_partial(tmp_path)
    first.write(0, CONTENT[:1000])
    abandon(first)
    other = CONTENT[::-1]
    second = open_partial(tmp_path, content=other)
    assert second.received.total == 0


@pytest.mark.parametrize("damage", [b"", b"{", b"not a journal\n0 100\n", b'{"digest":1}\n'])
def test_a_damaged_journal_means_starting_over(tmp_path: Path, damage: bytes):
    first = open_partial(tmp_path)
    first.write(0, CONTENT[:1000])
    abandon(first)
    (tmp_path / "model.safetensors.part.journal").write_bytes(damage)
    assert open_partial(tmp_path).received.total == 0


def test_a_journal_without_its_data_means_starting_over(tmp_path: Path):
    first = open_partial(tmp_path)
    first.write(0, CONTENT[:1000])
    abandon(first)
    (tmp_path / "model.safetensors.part").unlink()
    assert open_partial(tmp_path).received.total == 0


def test_a_verified_file_needs_no_second_reading(tmp_path: Path):
    first = open_partial(tmp_path)
    first.write(0, CONTENT)
    first.sync()
    first.mark_verified()
    abandon(first)
    assert open_partial(tmp_path).is_verified
    assert not open_partial(tmp_path, "after a restart").is_verified


def test_starting_over_forgets_everything(tmp_path: Path):
    partial = open_partial(tmp_path)
    partial.write(0, CONTENT[:1000])
    partial.restart()
    partial.write(0, CONTENT[:10])
    assert list(partial.received) == [(0, 10)]
    abandon(partial)
    assert list(open_partial(tmp_path).received) == [(0, 10)]


def test_writing_to_a_closed_file_changes_nothing(tmp_path: Path):
    partial = open_partial(tmp_path)
    partial.close()
    partial.write(0, CONTENT)
    partial.sync()
    assert partial.wait_beyond(0) == 0
    assert open_partial(tmp_path).received.total == 0


def test_a_discarded_file_leaves_nothing(tmp_path: Path):
    partial = open_partial(tmp_path)
    partial.write(0, CONTENT[:1000])
    partial.discard()
    assert list(tmp_path.iterdir()) == []


def test_the_journal_stays_short_however_often_a_download_is_resumed(tmp_path: Path):
    for start in range(0, 8000, 100):
        partial = open_partial(tmp_path)
        for offset in range(start, start + 100, 10):
            partial.write(offset, CONTENT[offset : offset + 10])
        abandon(partial)
    journal = (tmp_path / "model.safetensors.part.journal").read_bytes()
    assert journal.count(b"\n") <= 12
    assert json.loads(journal.partition(b"\n")[0])["size_bytes"] == len(CONTENT)


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=30)), st.integers(0, 10**6))
def test_no_line_of_a_journal_can_claim_more_than_the_file(lines: list[bytes], size: int):
    assert parse_ranges(lines, size).total <= size


def test_git_hashes_are_those_of_git():
    content = b"hello\n"
    wanted = FileRecord(
        path="a",
        size_bytes=6,
        algorithm="git-sha1",
        digest="ce013625030ba8dba906f756967f9e9ca394464a",
    )
    hasher = wanted.hasher()
    hasher.update(content)
    assert hasher.hexdigest() == wanted.digest
    assert parse_ranges([b"0 6"], 6) == IntervalSet([(0, 6)])
