import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_stack.models.disk.hf_cache import find_blob, find_snapshot, link_or_copy
from mlx_stack.models.disk.manifest import FileRecord

COMMIT = "a" * 40


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\x00" % len(content) + content).hexdigest()


def cache_model(cache: Path, repo: str, files: dict[str, bytes]) -> Path:
    """A repository as huggingface_hub keeps it: blobs under their hashes, links by name."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    (folder / "blobs").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    for path, content in files.items():
        is_large = path.endswith(".safetensors")
        digest = hashlib.sha256(content).hexdigest() if is_large else git_sha1(content)
        (folder / "blobs" / digest).write_bytes(content)
        name = folder / "snapshots" / COMMIT / path
        name.parent.mkdir(parents=True, exist_ok=True)
        name.symlink_to(folder / "blobs" / digest)
    return folder


def weights(content: bytes) -> FileRecord:
    digest = hashlib.sha256(content).hexdigest()
    return FileRecord(
        path="model.safetensors", size_bytes=len(content), algorithm="sha256", digest=digest
    )


def test_a_cached_blob_is_found_by_its_hash(tmp_path: Path):
    cache_model(tmp_path, "org/a", {"model.safetensors": b"weights"})
    assert find_blob(tmp_path, "org/a", weights(b"weights")) is not None
    assert find_blob(tmp_path, "org/a", weights(b"others")) is None
    assert find_blob(tmp_path, "org/b", weights(b"weights")) is None


def test_a_cached_blob_that_is_cut_short_is_not_taken(tmp_path: Path):
    folder = cache_model(tmp_path, "org/a", {"model.safetensors": b"weights"})
    (folder / "blobs" / weights(b"weights").digest).write_bytes(b"weig")
    assert find_blob(tmp_path, "org/a", weights(b"weights")) is None


def test_a_cached_blob_with_another_content_is_told_by_its_hash(tmp_path: Path):
    blob = tmp_path / "blob"
    blob.write_bytes(b"weighty")
    assert not weights(b"weights").matches(blob)
    blob.write_bytes(b"weights")
    assert weights(b"weights").matches(blob)


def test_a_whole_snapshot_can_be_used_without_the_hub(tmp_path: Path):
    files = {
        "config.json": b"{}",
        "model-00001-of-00001.safetensors": b"one",
    }
    cache_model(tmp_path, "org/a", files)
    found = find_snapshot(tmp_path, "org/a", "main")
    assert found is not None
    remote, records = found
    assert (remote.repo, remote.commit) == ("org/a", COMMIT)
    assert {record.path for record in records} == set(files)
    for record in records:
        blob = find_blob(tmp_path, "org/a", record)
        assert blob is not None
        assert record.matches(blob)


@pytest.mark.parametrize("missing", ["config.json", "model-00002-of-00002.safetensors"])
def test_a_snapshot_with_a_hole_is_not_used(tmp_path: Path, missing: str):
    files = {
        "config.json": b"{}",
        "model-00001-of-00002.safetensors": b"one",
        "model-00002-of-00002.safetensors": b"two",
    }
    del files[missing]
    cache_model(tmp_path, "org/a", files)
    assert find_snapshot(tmp_path, "org/a", "main") is None
    assert find_snapshot(tmp_path, "org/b", "main") is None


def test_a_cached_tree_names_the_files_that_are_not_there_too(tmp_path: Path):
    folder = cache_model(tmp_path, "org/a", {"config.json": b"{}", "model.safetensors": b"one"})
    blob = {"size": 2, "blob_id": git_sha1(b"{}")}
    lfs = {"size": 130, "blob_id": "b" * 40, "lfs_sha256": "c" * 64, "lfs_size": 3}
    names = {"config.json": blob, "model.safetensors": lfs, "tokenizer.json": blob}
    tree = folder / "trees" / f"{COMMIT}.json"
    tree.parent.mkdir()
    tree.write_text(json.dumps({"format_version": 1, "files": names}))
    found = find_snapshot(tmp_path, "org/a", "main")
    assert found is not None
    records = {record.path: record for record in found[1]}
    assert set(records) == set(names)
    assert records["model.safetensors"] == FileRecord(
        path="model.safetensors", size_bytes=3, algorithm="sha256", digest="c" * 64
    )
    assert find_blob(tmp_path, "org/a", records["config.json"]) is not None
    for damaged in (b"[]", b'{"format_version": 1, "files": {"\xff": {}}}'):
        tree.write_bytes(damaged)
        again = find_snapshot(tmp_path, "org/a", "main")
        assert again is not None
        assert {record.path for record in again[1]} == {"config.json", "model.safetensors"}


def test_a_cache_that_is_no_folder_holds_nothing(tmp_path: Path):
    (tmp_path / "models--org--a").write_text("")
    assert find_blob(tmp_path, "org/a", weights(b"weights")) is None


def test_a_link_outlives_the_cache(tmp_path: Path):
    folder = cache_model(tmp_path, "org/a", {"model.safetensors": b"weights"})
    snapshot = folder / "snapshots" / COMMIT / "model.safetensors"
    target = tmp_path / "store" / "sub" / "model.safetensors"
    link_or_copy(snapshot, target)
    assert target.samefile(snapshot)
    assert not target.is_symlink()
    for blob in (folder / "blobs").iterdir():
        blob.unlink()
    assert target.read_bytes() == b"weights"


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_what_others_may_change_is_copied(tmp_path: Path, mode: int):
    cached, target = tmp_path / "blob", tmp_path / "store" / "model.safetensors"
    cached.write_bytes(b"weights")
    cached.chmod(mode)
    link_or_copy(cached, target)
    cached.write_bytes(b"swapped")
    assert target.read_bytes() == b"weights"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_a_blob_of_another_user_is_copied(tmp_path: Path):
    cached, target = tmp_path / "blob", tmp_path / "store" / "model.safetensors"
    cached.write_bytes(b"weights")
    os.chown(cached, 65534, -1)
    link_or_copy(cached, target)
    assert not target.samefile(cached)
    assert target.stat().st_uid == os.getuid()


def refused(number: str) -> Callable[..., None]:
    """What a disk says to a call that it doesn't have."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    return refuse


@pytest.mark.parametrize(
    ("hard", "symbolic"),
    [
        ("EXDEV", "EPERM"),
        ("EXDEV", "ENOTSUP"),
        ("EPERM", "EOPNOTSUPP"),
        ("ENOSYS", "ENOSYS"),
        ("EINVAL", "EINVAL"),
        ("EMLINK", "EIO"),
    ],
)
def test_on_a_disk_without_links_what_is_cached_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hard: str, symbolic: str
):
    cached, target = tmp_path / "blob", tmp_path / "store" / "model.safetensors"
    cached.write_bytes(b"weights")
    monkeypatch.setattr(os, "link", refused(hard))
    monkeypatch.setattr(os, "symlink", refused(symbolic))
    link_or_copy(cached, target)
    assert target.read_bytes() == b"weights"
    assert not target.samefile(cached)
    assert [path.name for path in target.parent.iterdir()] == ["model.safetensors"]


def test_on_another_disk_with_links_what_is_cached_is_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cached, target = tmp_path / "blob", tmp_path / "store" / "model.safetensors"
    cached.write_bytes(b"weights")
    monkeypatch.setattr(os, "link", refused("EXDEV"))
    link_or_copy(cached, target)
    assert target.is_symlink()
    assert target.samefile(cached)
