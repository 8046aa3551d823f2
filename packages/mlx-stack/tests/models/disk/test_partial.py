import hashlib
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_stack.models.disk.manifest import FileRecord
from mlx_stack.models.disk.partial import (
    BLOCK_BYTES,
    PartialFile,
    allocated_bytes,
    discard_partial,
    noted_bytes,
)

CONTENT = random.Random(1).randbytes(4 * BLOCK_BYTES + 1000)
NAME = "model.safetensors"
LAST = 4


def record(content: bytes = CONTENT) -> FileRecord:
    digest = hashlib.sha256(content).hexdigest()
    return FileRecord(path=NAME, size_bytes=len(content), algorithm="sha256", digest=digest)


def open_partial(folder: Path, content: bytes = CONTENT) -> PartialFile:
    return PartialFile(folder / NAME, record(content))


def write(partial: PartialFile, *blocks: int) -> None:
    for block in blocks:
        partial.write(block, CONTENT[block * BLOCK_BYTES :][: partial.length_of(block)])


def interrupted(folder: Path, *blocks: int) -> None:
    """What a killed process leaves: nothing is written when it ends."""
    partial = open_partial(folder)
    write(partial, *blocks)
    partial.close()


def here(folder: Path, content: bytes = CONTENT) -> list[int]:
    partial = open_partial(folder, content)
    partial.close()
    return [block for block, is_here in enumerate(partial.here) if is_here]


def test_a_killed_download_continues_with_the_blocks_that_are_missing(tmp_path: Path):
    interrupted(tmp_path, 0, 3)
    second = open_partial(tmp_path)
    assert list(second.here) == [1, 0, 0, 1, 0]
    assert second.resumed_bytes == second.present_bytes == 2 * BLOCK_BYTES
    write(second, 1, 2, LAST)
    assert second.present_bytes == len(CONTENT)
    second.publish()
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_the_last_block_counts_with_its_own_length(tmp_path: Path):
    interrupted(tmp_path, LAST)
    assert open_partial(tmp_path).resumed_bytes == 1000
    assert noted_bytes(tmp_path / NAME, record()) == 1000


def test_what_a_power_cut_took_of_the_content_is_fetched_again_and_nothing_else(tmp_path: Path):
    interrupted(tmp_path, 0, 1, 2, LAST)
    part = tmp_path / f"{NAME}.part"
    with part.open("r+b") as file:
        file.seek(BLOCK_BYTES)
        file.write(bytes(BLOCK_BYTES))  # a block that was noted and never reached the disk
    assert here(tmp_path) == [0, 2, LAST]
    with part.open("r+b") as file:
        file.truncate(2 * BLOCK_BYTES + 5)
    assert here(tmp_path) == [0]


def test_what_a_power_cut_took_of_the_check_sums_is_fetched_again(tmp_path: Path):
    interrupted(tmp_path, 0, 1, 2)
    sums = tmp_path / f"{NAME}.part.blocks"
    sums.write_bytes(sums.read_bytes()[:-3])
    assert here(tmp_path) == [0, 1]


def test_remains_of_another_content_are_thrown_away(tmp_path: Path):
    interrupted(tmp_path, 0, 1)
    other = CONTENT[::-1]
    assert noted_bytes(tmp_path / NAME, record(other)) == 0
    assert here(tmp_path, other) == []
    assert here(tmp_path) == []


@pytest.mark.parametrize("damage", [b"", b"{", b"x" * 64, b"\0" * 200])
def test_damaged_check_sums_mean_starting_over(tmp_path: Path, damage: bytes):
    interrupted(tmp_path, 0)
    (tmp_path / f"{NAME}.part.blocks").write_bytes(damage)
    assert here(tmp_path) == []


def test_check_sums_without_their_content_mean_starting_over(tmp_path: Path):
    interrupted(tmp_path, 0, 1)
    (tmp_path / f"{NAME}.part").unlink()
    assert here(tmp_path) == []


def test_writing_to_a_closed_file_changes_nothing(tmp_path: Path):
    partial = open_partial(tmp_path)
    partial.close()
    write(partial, 0)
    assert partial.present_bytes == 0
    assert here(tmp_path) == []


def test_a_discarded_file_leaves_nothing(tmp_path: Path):
    partial = open_partial(tmp_path)
    write(partial, 0)
    partial.discard()
    assert list(tmp_path.iterdir()) == []
    discard_partial(tmp_path / NAME)


def test_an_empty_file_is_whole_at_once(tmp_path: Path):
    partial = open_partial(tmp_path, b"")
    assert not partial.here
    partial.publish()
    assert (tmp_path / NAME).read_bytes() == b""


def test_an_allocated_file_takes_its_room_and_holds_nothing(tmp_path: Path):
    interrupted(tmp_path)
    path = tmp_path / NAME
    assert (allocated_bytes(path, record()), noted_bytes(path, record())) == (0, 0)
    # what a disk without sparse files does
    (tmp_path / f"{NAME}.part").write_bytes(bytes(len(CONTENT)))
    assert (allocated_bytes(path, record()), noted_bytes(path, record())) == (len(CONTENT), 0)


def test_a_file_never_grows_beyond_the_blocks_that_came(tmp_path: Path):
    interrupted(tmp_path, 1)
    assert (tmp_path / f"{NAME}.part").stat().st_size == 2 * BLOCK_BYTES


@settings(max_examples=60, deadline=None)
@given(sums=st.binary(max_size=40), content=st.binary(max_size=100))
def test_whatever_was_left_no_wrong_block_counts(
    tmp_path_factory: pytest.TempPathFactory, sums: bytes, content: bytes
):
    folder = tmp_path_factory.mktemp("left")
    header = record().digest.encode().ljust(64)
    (folder / f"{NAME}.part.blocks").write_bytes(header + sums)
    (folder / f"{NAME}.part").write_bytes(content)
    assert noted_bytes(folder / NAME, record()) <= len(CONTENT)
    assert here(folder) == []


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
