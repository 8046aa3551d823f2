"""Which files of kept conversations are believed, and how many there may be."""

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import time
from array import array
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_stack.engines.checkpoints import KeptPrompts, usable
from mlx_stack.engines.kept_on_disk import (
    KEPT_DAYS,
    LARGEST_SHARE,
    Disk,
    DiskBounds,
    allowed_bytes,
    exclude_from_backups,
    identify,
    own_folder,
    parse,
)

IDENTITY = "a model, an engine"
PROMPT = list(range(1, 301))


class Store(KeptPrompts):
    """The engine's store without anything in memory."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[int, ...], object] = OrderedDict()
        self._memory_lock = threading.RLock()


def write_conversation(
    folder: Path, tokens=PROMPT, *, identity: str = IDENTITY, body: bytes = bytes(64)
) -> Path:
    """A file as an engine writes it, whose cache nobody can use."""
    said = {
        "identity": identity,
        "tokens": base64.b64encode(array("I", tokens).tobytes()).decode(),
        "cache": {"layer": "os.system", "fields": {}},
        "checkpoints": {},
        "is_cuttable": True,
    }
    header = {
        "__metadata__": {name: json.dumps(value) for name, value in said.items()},
        "0": {"dtype": "U8", "shape": [len(body)], "data_offsets": [0, len(body)]},
    }
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + body
    path = folder / f"{hashlib.sha256(content).hexdigest()}.safetensors"
    path.write_bytes(content)
    return path


def disk_in(folder: Path, most_bytes: int = 10**6) -> Disk:
    return Disk(DiskBounds(folder, most_bytes), IDENTITY, io.BytesIO(), lambda: False)


def test_a_whole_file_stays_and_counts_as_what_the_prompt_begins_with(tmp_path):
    path = write_conversation(tmp_path)
    assert disk_in(tmp_path).parting(Store(), [*PROMPT[:200], 9]) == 200
    assert path.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 100),
        lambda path: path.write_bytes((5).to_bytes(8, "little") + b"[1,2]"),
        lambda path: path.rename(path.with_name("a.pickle")),
        lambda path: path.rename(path.with_suffix(".part")),
    ],
    ids=["cut off", "empty", "no header", "another header", "another name", "half written"],
)
def test_what_is_damaged_or_foreign_is_removed_when_the_engine_starts(tmp_path, damage):
    damage(write_conversation(tmp_path))
    disk = disk_in(tmp_path)
    assert disk.parting(Store(), PROMPT) == 0
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_model_is_removed(tmp_path):
    write_conversation(tmp_path, identity="another model")
    disk_in(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_link_to_a_file_elsewhere_is_removed_and_what_it_names_stays(tmp_path):
    elsewhere = write_conversation(tmp_path)
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / elsewhere.name).symlink_to(elsewhere)
    assert disk_in(folder).parting(Store(), PROMPT) == 0
    assert not list(folder.iterdir())
    assert elsewhere.exists()


def test_a_file_whose_bytes_have_changed_is_removed_instead_of_loaded(tmp_path):
    path = write_conversation(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    disk = disk_in(tmp_path)
    disk.bring(Store(), [*PROMPT, 1, 2])
    assert not path.exists()


def test_a_conversation_that_nobody_goes_on_with_is_removed(tmp_path):
    old, young = write_conversation(tmp_path, [1, 2, 3]), write_conversation(tmp_path, [4, 5])
    then = time.time() - (KEPT_DAYS + 1) * 86_400
    os.utime(old, (then, then))
    disk_in(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [young.name]


def test_the_longest_unused_make_room(tmp_path):
    paths = [write_conversation(tmp_path, [number]) for number in range(1, 5)]
    for age, path in enumerate(reversed(paths)):
        os.utime(path, (time.time() - age * 60,) * 2)
    disk_in(tmp_path, most_bytes=2 * paths[0].stat().st_size + 10)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths[2:]}


@pytest.mark.parametrize("is_forgotten", [False, True])
def test_what_is_forgotten_while_it_is_written_is_not_kept(tmp_path, monkeypatch, is_forgotten):
    disk, saved = disk_in(tmp_path), threading.Event()

    def save(output, _, metadata):
        header = json.dumps({"__metadata__": metadata}).encode()
        output.write(len(header).to_bytes(8, "little") + header)
        if is_forgotten:
            disk.clear()
        saved.set()

    monkeypatch.setitem(sys.modules, "mlx.core", SimpleNamespace(save_safetensors=save))
    disk.offer(SimpleNamespace(tokens=tuple(PROMPT), cache=[], checkpoints={}))
    disk.start(Store())
    assert saved.wait(60)
    disk.end(Store())
    assert len(list(tmp_path.iterdir())) == (not is_forgotten)


def test_a_folder_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "kept").symlink_to(tmp_path / "real")
    with pytest.raises(ValueError, match="not a folder"):
        own_folder(tmp_path / "kept")


def test_a_folder_that_others_can_read_is_closed_to_them(tmp_path):
    (tmp_path / "kept").mkdir(mode=0o755)
    own_folder(tmp_path / "kept")
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700


@pytest.mark.integration
def test_time_machine_leaves_the_folder_out(tmp_path):
    exclude_from_backups(tmp_path)
    said = subprocess.run(
        ["/usr/bin/tmutil", "isexcluded", tmp_path], check=True, capture_output=True, text=True
    )
    assert "[Excluded]" in said.stdout


def test_another_model_or_flag_is_another_identity_and_another_port_is_not(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    flags = ["--port", "8000", "--kv-cache-quantization"]
    usual = identify(tmp_path, flags)
    assert identify(tmp_path, ["--kv-cache-quantization", "--port", "8001"]) == usual
    assert identify(tmp_path, flags[:2]) != usual
    (tmp_path / "config.json").write_text("{ }")
    assert identify(tmp_path, flags) != usual


def test_weights_count_by_samples_of_their_content(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(2**24))
    usual, status = identify(tmp_path, []), weights.stat()
    weights.write_bytes(b"\1" * 2**24)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert identify(tmp_path, []) != usual


def test_bounds_are_read_as_they_were_written(tmp_path):
    bounds = DiskBounds(tmp_path / "a b", 5 * 10**9)
    assert parse(bounds.render()) == bounds


SIZES = st.integers(0, 2**50)


@given(most=SIZES, free=SIZES, own=SIZES)
def test_all_files_together_stay_within_their_bound_and_a_tenth_of_what_is_free(most, free, own):
    allowed = allowed_bytes(most, free, own)
    assert allowed <= most
    assert allowed * LARGEST_SHARE <= free + own


@given(
    whole=st.integers(1, 5000),
    alike=st.integers(0, 5000),
    offsets=st.lists(st.integers(1, 5000), max_size=4),
    cuttable=st.booleans(),
)
def test_a_cache_is_never_used_for_more_than_what_is_alike(whole, alike, offsets, cuttable):
    alike, offsets = min(alike, whole), [each for each in offsets if each <= whole]
    tokens = usable(alike, whole, offsets, is_cuttable=cuttable)
    assert tokens <= alike
    assert cuttable or tokens in {0, whole, *offsets}
