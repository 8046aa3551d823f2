import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_catalog import Quant
from mlx_stack.errors import InvalidFileError
from mlx_stack.models.disk.layout import incoming, places_of
from mlx_stack.models.disk.local import (
    find_local,
    inspect_folder,
    list_local,
    remove,
    verify,
    write_inventory,
)
from mlx_stack.models.disk.manifest import (
    FileRecord,
    Manifest,
    read_manifest,
    write_manifest,
)
from mlx_stack.models.disk.partial import PartialFile

COMMIT = "c" * 40


def safetensors(data: bytes = b"\x00" * 64) -> bytes:
    tensor = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {"format": "mlx"}, "w": tensor}).encode()
    return struct.pack("<Q", len(header)) + header + data


def config(bits: int | None) -> bytes:
    quantization = {} if bits is None else {"quantization": {"group_size": 64, "bits": bits}}
    return json.dumps({"model_type": "llama", **quantization}).encode()


def make_model(
    folder: Path, repo: str, quant: Quant | None = "int4", model: str | None = None
) -> Path:
    """A published model folder with a manifest."""
    contents = {"config.json": config(4), "model.safetensors": safetensors()}
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    files = tuple(
        FileRecord(
            path=name,
            size_bytes=len(content),
            algorithm="sha256",
            digest=hashlib.sha256(content).hexdigest(),
        )
        for name, content in contents.items()
    )
    write_manifest(
        folder,
        Manifest(
            repo=repo,
            revision=COMMIT,
            quant=quant,
            origin="downloaded",
            files=files,
            model=model,
        ),
    )
    return folder


class PublishesMeanwhile(Path):
    """A folder in which the unfinished models are published as soon as its content was listed."""

    def iterdir(self) -> Iterator[Path]:
        listed = list(Path(self).iterdir())
        for model in [*incoming(Path(self)).glob("*")]:
            model.rename(Path(self) / model.name)
        yield from listed


def test_a_model_that_is_published_while_the_folder_is_read_is_not_lost(tmp_path: Path):
    make_model(incoming(tmp_path) / "org--a", "org/a")

    (found,) = list_local(PublishesMeanwhile(tmp_path))

    assert (found.repo, found.integrity) == ("org/a", "incomplete")
    (found,) = list_local(PublishesMeanwhile(tmp_path))
    assert (found.repo, found.integrity) == ("org/a", "ok")


def test_a_model_is_found_by_repository_catalog_id_folder_and_path(tmp_path: Path):
    path = make_model(tmp_path / "org--a", "org/a", model="a-1b")
    for name in ("org/a", "a-1b", "org--a", str(path)):
        found = find_local(tmp_path, name)
        assert found is not None
        assert found.path == path
        assert (found.is_whole, found.quant, found.revision) == (True, "int4", COMMIT)
    assert find_local(tmp_path, "org/b") is None
    assert find_local(tmp_path / "nowhere", "org/a") is None


def test_precisions_of_one_model_are_told_apart(tmp_path: Path):
    make_model(tmp_path / "org--a-4bit", "org/a-4bit", "int4", "a")
    make_model(tmp_path / "org--a-8bit", "org/a-8bit", "int8", "a")
    found = find_local(tmp_path, "a", Quant.INT8)
    assert found is not None
    assert found.repo == "org/a-8bit"
    assert find_local(tmp_path, "a", Quant.BF16) is None


def test_a_missing_file_makes_a_model_incomplete(tmp_path: Path):
    path = make_model(tmp_path / "org--a", "org/a")
    (path / "model.safetensors").unlink()
    model = inspect_folder(path)
    assert model is not None
    assert model.integrity == "incomplete"
    assert model.problems == ("model.safetensors is missing",)


def test_a_file_of_another_size_makes_a_model_damaged(tmp_path: Path):
    path = make_model(tmp_path / "org--a", "org/a")
    with (path / "model.safetensors").open("r+b") as file:
        file.truncate(50)
    model = inspect_folder(path)
    assert model is not None
    assert model.integrity == "damaged"


def test_a_dangling_link_makes_a_model_incomplete(tmp_path: Path):
    path = make_model(tmp_path / "org--a", "org/a")
    (path / "model.safetensors").unlink()
    (path / "model.safetensors").symlink_to(tmp_path / "pruned")
    model = inspect_folder(path)
    assert model is not None
    assert model.integrity == "incomplete"


def test_a_turned_bit_is_found_by_verifying_and_remembered(tmp_path: Path):
    path = make_model(tmp_path / "org--a", "org/a")
    content = bytearray((path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "model.safetensors").write_bytes(content)
    before = inspect_folder(path)
    assert before is not None
    assert before.integrity == "ok"
    read: list[str] = []
    after = verify(before, lambda event: read.append(event.path), now=lambda: 5.0)
    assert read == ["config.json", "model.safetensors"]
    assert after.integrity == "damaged"
    assert after.problems == ("model.safetensors differs from its hash",)
    assert inspect_folder(path) == after
    content[-1] ^= 1
    (path / "model.safetensors").write_bytes(content)
    assert verify(after).integrity == "ok"


def test_a_folder_that_somebody_copied_here_is_a_model_too(tmp_path: Path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_bytes(config(8))
    (folder / "model.safetensors").write_bytes(safetensors())
    (tmp_path / "notes").mkdir()
    (model,) = list_local(tmp_path)
    assert (model.path, model.quant, model.integrity) == (folder, "int8", "ok")
    assert find_local(tmp_path, "mine") == model
    assert verify(model) == model


def test_a_copied_folder_is_judged_by_its_own_headers(tmp_path: Path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_bytes(config(None))
    first, second, third = (f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3))
    (folder / first).write_bytes(safetensors()[:-5])
    (folder / third).write_bytes(b"xx")
    model = inspect_folder(folder)
    assert model is not None
    assert (model.integrity, model.quant) == ("damaged", "bf16")
    assert any(text.startswith(f"{first} is damaged: cut short") for text in model.problems)
    assert f"{second} is missing" in model.problems
    assert f"{third} is damaged: no safetensors header" in model.problems


def test_an_index_that_was_left_over_takes_no_model_away(tmp_path: Path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_bytes(config(4))
    (folder / "model.safetensors").write_bytes(safetensors())
    (folder / "._model.safetensors").write_bytes(b"what macOS lays beside it")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = {"metadata": {"total_size": 10**9}, "weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    model = inspect_folder(folder)
    assert model is not None
    assert (model.integrity, model.problems) == ("ok", ())


def test_a_configuration_that_only_python_reads_is_not_damaged(tmp_path: Path):
    folder = tmp_path / "mine"
    folder.mkdir()
    text = '{"quantization": {"bits": 4, "group_size": 64}, "time_step_limit": [0.0, Infinity]}'
    (folder / "config.json").write_text(text, encoding="utf-8-sig")
    (folder / "model.safetensors").write_bytes(safetensors())
    model = inspect_folder(folder)
    assert model is not None
    assert model.integrity == "ok"


def test_a_damaged_manifest_is_shown_and_not_passed_over(tmp_path: Path):
    path = make_model(tmp_path / "org--a", "org/a")
    (path / ".mlx-stack.json").write_text('{"schema_version": 1}')
    (model,) = list_local(tmp_path)
    assert model.integrity == "damaged"
    assert ".mlx-stack.json" in model.problems[0]


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd"])
def test_a_manifest_that_points_outside_is_refused(tmp_path: Path, path: str):
    folder = make_model(tmp_path / "org--a", "org/a")
    manifest = folder / ".mlx-stack.json"
    manifest.write_text(manifest.read_text().replace("config.json", path))
    with pytest.raises(InvalidFileError, match="outside"):
        read_manifest(folder)


def test_an_interrupted_download_is_listed_as_incomplete(tmp_path: Path):
    make_model(tmp_path / "org--a", "org/a")
    staged = make_model(incoming(tmp_path) / "org--b", "org/b")
    (staged / "model.safetensors").rename(staged / "model.safetensors.part")
    names = [(model.repo, model.integrity) for model in list_local(tmp_path)]
    assert names == [("org/a", "ok"), ("org/b", "incomplete")]
    found = find_local(tmp_path, "org/b")
    assert found is not None
    assert not found.is_whole


def test_an_unfinished_file_counts_with_what_came_and_not_with_what_it_takes(tmp_path: Path):
    staged = make_model(incoming(tmp_path) / "org--b", "org/b")
    manifest = read_manifest(staged)
    assert manifest is not None
    rest = sum(file.size_bytes for file in manifest.files if file.path != "model.safetensors")
    weights = next(file for file in manifest.files if file.path == "model.safetensors")
    content = (staged / weights.path).read_bytes()
    (staged / weights.path).rename(staged / "model.safetensors.part")  # allocated, nothing noted
    found = find_local(tmp_path, "org/b")
    assert found is not None
    assert (found.present_bytes, found.size_bytes) == (rest, rest + weights.size_bytes)
    partial = PartialFile(staged / weights.path, weights)
    partial.write(0, content)
    partial.close()
    found = find_local(tmp_path, "org/b")
    assert found is not None
    assert found.present_bytes == found.size_bytes


def test_what_macos_lays_next_to_files_is_no_part_of_a_model(tmp_path: Path):
    folder = make_model(tmp_path / "org--a", "org/a")
    (folder / ".mlx-stack.json").unlink()
    before = inspect_folder(folder)
    assert before is not None
    for path in list(folder.iterdir()):
        (folder / f"._{path.name}").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "._org--a").write_bytes(b"\x00\x05\x16\x07")
    assert inspect_folder(folder) == before
    assert list_local(tmp_path) == (before,)


def test_removing_takes_the_unfinished_remains_along(tmp_path: Path):
    make_model(tmp_path / "org--a", "org/a")
    make_model(incoming(tmp_path) / "org--a", "org/a")
    found = find_local(tmp_path, "org/a")
    assert found is not None
    assert remove(tmp_path, found, lambda: None) > 0
    assert list_local(tmp_path) == ()
    assert json.loads((tmp_path / "inventory.json").read_text())["models"] == []


def test_removing_a_linked_model_leaves_what_it_links_to(tmp_path: Path):
    elsewhere = make_model(tmp_path / "elsewhere", "org/a")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "org--a").symlink_to(elsewhere)
    found = find_local(tmp_path / "models", "org/a")
    assert found is not None
    assert remove(tmp_path / "models", found, lambda: None) == 0
    assert list_local(tmp_path / "models") == ()
    assert (elsewhere / "model.safetensors").exists()


def test_a_former_model_that_a_crash_left_behind_is_not_listed(tmp_path: Path):
    make_model(tmp_path / "org--a", "org/a")
    make_model(incoming(tmp_path) / "org--a.replaced", "org/a")
    assert [model.path.name for model in list_local(tmp_path)] == ["org--a"]


def test_the_inventory_is_made_from_the_folders(tmp_path: Path):
    make_model(tmp_path / "org--a", "org/a", model="a-1b")
    (tmp_path / "inventory.json").write_text("garbage")
    write_inventory(tmp_path)
    (model,) = json.loads((tmp_path / "inventory.json").read_text())["models"]
    assert (model["repo"], model["model"], model["integrity"]) == ("org/a", "a-1b", "ok")


def test_folders_are_named_after_repository_and_conversion():
    assert places_of(Path("models"), "org/Model-4bit").folder == "org--Model-4bit"
    assert places_of(Path("models"), "org/Model", "int8").folder == "org--Model--int8"
