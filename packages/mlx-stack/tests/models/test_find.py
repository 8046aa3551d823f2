"""Which model a name means on this machine."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlx_catalog import Quant, UnknownModelError, load_catalog
from mlx_stack.errors import StackError, UsageError
from mlx_stack.home import Home
from mlx_stack.models.disk.manifest import Manifest, Origin, write_manifest
from mlx_stack.models.find import FoundModel, find, local_models, pull_name, source_of, weights_of
from mlx_stack.models.name import HubRepo
from mlx_stack.open_stack import OpenStack
from mlx_stack.stack import Tier

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CATALOG = load_catalog()


@dataclass(frozen=True, slots=True)
class Place:
    """A home, and a working directory beside it."""

    home: Home

    def find(self, name: str) -> FoundModel:
        return find(OpenStack(self.home), name)

    def local(self, name: str, quant: Quant | None = None) -> list[str]:
        opened = OpenStack(self.home)
        return [model.path.name for model in local_models(opened, find(opened, name), quant)]

    def pulled(
        self,
        folder: str,
        repo: str,
        *,
        model: str | None = None,
        quant: Quant = "int4",
        origin: Origin = "downloaded",
    ) -> Path:
        path = make_folder(self.home.models / folder)
        manifest = Manifest(
            schema_version=1,
            repo=repo,
            revision=COMMIT,
            quant=quant,
            origin=origin,
            files=(),
            model=model,
        )
        write_manifest(path, manifest)
        return path


@pytest.fixture
def here(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return Place(home)


def make_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    return path


def test_an_id_and_an_alias_are_the_catalogs_in_any_case(here: Place):
    assert here.find(" Qwen3-8B ").name == "qwen3-8b"
    found = here.find("QWEN3.5-14B")
    assert found.name == "qwen3.5-9b"
    assert "No Qwen3.5 of 14B" in found.note


def test_a_word_is_the_catalogs_before_it_is_a_folder_here(here: Place):
    make_folder(Path("qwen3-8b"))
    assert here.find("qwen3-8b").path is None
    assert here.find("./qwen3-8b").path == Path("qwen3-8b")
    assert here.find("qwen3-8b/config.json").folder == Path("qwen3-8b").absolute()


def test_a_word_is_a_pulled_model_before_it_is_a_folder_here(here: Place):
    pulled = here.pulled("mine", "someone/Mine")
    make_folder(Path("mine"))
    assert here.find("mine").path == pulled


def test_a_folder_here_is_found_by_its_name_alone(here: Place):
    make_folder(Path("mine"))
    found = here.find("mine")
    assert (found.name, found.folder) == ("mine", Path("mine").absolute())
    Path("empty").mkdir()
    with pytest.raises(UnknownModelError):
        here.find("empty")


def test_owner_and_name_are_a_repository_unless_only_a_folder_here_is_called_so(here: Place):
    assert here.find("someone/Lynx").repo == HubRepo("someone/Lynx")
    make_folder(Path("someone/Lynx"))
    assert here.find("someone/Lynx").folder == Path("someone/Lynx").absolute()
    assert here.find("someone/Lynx@main").repo == HubRepo("someone/Lynx", "main")
    assert here.find("hf.co/someone/Lynx").repo == HubRepo("someone/Lynx")
    here.pulled("someone--Lynx", "someone/Lynx")
    assert here.find("someone/Lynx").repo == HubRepo("someone/Lynx")


def test_a_repository_of_the_catalog_is_known_as_such(here: Place):
    make_folder(Path("mlx-community/Qwen3-8B-8bit"))
    found = here.find("https://huggingface.co/mlx-community/Qwen3-8B-8bit/tree/main")
    assert found.entry is not None
    assert found.entry.id == "qwen3-8b"
    assert here.find("mlx-community/Qwen3-8B-8bit").path is None


def test_what_is_pulled_is_found_by_every_name_of_it(here: Place):
    here.pulled("mlx-community--Qwen3-8B-4bit", "mlx-community/Qwen3-8B-4bit")
    here.pulled("Qwen--Qwen3-8B--int8", "Qwen/Qwen3-8B", model="qwen3-8b", quant="int8")
    assert here.local("qwen3-8b") == ["Qwen--Qwen3-8B--int8"], "what was pulled by the id"
    for name in (
        "mlx-community/Qwen3-8B-4bit",
        "MLX-community/qwen3-8b-4bit",
        "hf.co/mlx-community/Qwen3-8B-4bit",
        f"mlx-community/Qwen3-8B-4bit@{COMMIT}",
        "models--mlx-community--Qwen3-8B-4bit",
        "mlx-community--Qwen3-8B-4bit",
        str(here.home.models / "mlx-community--Qwen3-8B-4bit"),
    ):
        assert here.local(name) == ["mlx-community--Qwen3-8B-4bit"], name
    assert here.local(f"mlx-community/Qwen3-8B-4bit@{'a' * 40}") == []
    assert here.local("mlx-community/Qwen3-8B-4bit", Quant.INT8) == []


def test_a_model_of_the_catalog_is_found_though_it_was_pulled_by_its_repository(here: Place):
    here.pulled("mlx-community--Qwen3-8B-4bit", "mlx-community/Qwen3-8B-4bit")
    assert here.local("qwen3-8b") == ["mlx-community--Qwen3-8B-4bit"]


@pytest.mark.parametrize(
    "name", ["./nothing", "/no/such/folder", "~nobody-is-called-so/x", "a/b/c"]
)
def test_a_path_where_nothing_is_is_told(here: Place, name: str):
    with pytest.raises(StackError, match="There is no model in"):
        here.find(name)


@pytest.mark.parametrize("name", ["qwen3-8bb", "./qwen3-8bb", "x/y/qwen3-8b"])
def test_the_nearest_names_of_the_catalog_come_with_the_error(here: Place, name: str):
    with pytest.raises((UnknownModelError, StackError)) as told:
        here.find(name)
    assert "qwen3-8b" in f"{told.value} {getattr(told.value, 'hint', '')}"


def test_a_catalog_id_means_ready_weights_of_the_configured_precision(here: Place):
    source = source_of(here.find("qwen3-8b"), None, "int4")
    assert source.origin == HubRepo("mlx-community/Qwen3-8B-4bit")
    assert (source.quant, source.is_converted, source.model) == ("int4", False, "qwen3-8b")
    asked = source_of(here.find("qwen3-8b"), "int8", "int4")
    assert asked.origin == HubRepo("mlx-community/Qwen3-8B-8bit")
    assert "nearest" in source_of(here.find("qwen3.5-8b"), None, "int4").note


def test_a_model_that_is_published_in_one_other_format_is_pulled_in_it(here: Place):
    source = source_of(here.find("bonsai-8b"), None, Quant.INT4)
    assert source.origin == HubRepo("prism-ml/Ternary-Bonsai-8B-mlx-2bit")
    assert source.quant is Quant.INT2
    asked = source_of(here.find("qwen3.6-27b"), Quant.NVFP4, Quant.INT4)
    assert asked.origin == HubRepo("mlx-community/Qwen3.6-27B-nvfp4")
    with pytest.raises(UsageError, match="No int4 weights"):
        source_of(here.find("bonsai-8b"), Quant.INT4, Quant.INT4)


def test_a_named_repository_keeps_its_precision_and_its_revision(here: Place):
    source = source_of(here.find("mlx-community/Qwen3-8B-8bit@v2"), None, "int4")
    assert source.origin == HubRepo("mlx-community/Qwen3-8B-8bit", "v2")
    assert (source.quant, source.model) == (None, None)


def test_weights_that_nobody_published_are_converted():
    entry = CATALOG.get("deepseek-r1-distill-qwen-7b")
    assert weights_of(entry, "int8") == ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", True)
    assert weights_of(entry, "bf16") == ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", False)


def test_a_precision_that_is_not_known_names_those_that_are():
    entry, quant = next(
        (entry, quant)
        for entry in CATALOG
        for quant in ("bf16", "int8", "int4")
        if entry.sources.get(quant) is None and entry.sources.items()
    )
    with pytest.raises(UsageError, match=f"No {quant} weights") as refused:
        weights_of(entry, quant)
    assert "--quant" in str(refused.value.hint)


def test_a_pulled_folder_is_pulled_again_from_where_it_came(here: Place):
    here.pulled("someone--Lynx", "someone/Lynx")
    here.pulled("someone--Puma--int8", "someone/Puma", quant="int8", origin="converted")
    assert source_of(here.find("someone--Lynx"), None, "int4").origin == HubRepo("someone/Lynx")
    converted = source_of(here.find("someone--Puma--int8"), None, "int4")
    assert (converted.origin, converted.quant) == (HubRepo("someone/Puma"), "int8")


def test_a_folder_of_unknown_origin_is_nothing_to_download(here: Place):
    make_folder(Path("mine"))
    with pytest.raises(UsageError, match="nothing to download"):
        source_of(here.find("./mine"), None, "int4")


@pytest.mark.parametrize(
    ("name", "model", "source"),
    [
        ("qwen3-8b", "qwen3-8b", "mlx-community/Qwen3-8B-4bit"),
        ("hf.co/someone/Lynx", "Lynx", "someone/Lynx"),
        ("./mine", "mine", "{here}/mine"),
    ],
)
def test_a_tier_knows_its_model_by_every_spelling(here: Place, name: str, model: str, source: str):
    make_folder(Path("mine"))
    tier = Tier(
        name="standard",
        model=model,
        quant="int4",
        source=source.replace("{here}", str(Path.cwd())),
        port=8000,
        vllm_flags={},
    )
    assert here.find(name).is_served_by(tier)
    assert not here.find("someone/Puma").is_served_by(tier)


@pytest.mark.parametrize(
    ("model", "source", "name"),
    [
        ("qwen3-8b", "mlx-community/Qwen3-8B-4bit", "qwen3-8b"),
        ("qwen3-8b", "acme/own-quantization", "acme/own-quantization"),
        ("coder", "acme/odd-4bit", "acme/odd-4bit"),
        ("odd-4bit", "acme/odd-4bit", "acme/odd-4bit"),
        ("odd", "/Volumes/models/odd", None),
    ],
)
def test_a_tier_is_pulled_by_the_name_that_brings_its_own_weights(
    home: Home, model: str, source: str, name: str | None
):
    tier = Tier(
        name="coder", model=model, quant=Quant.INT4, source=source, port=8000, vllm_flags={}
    )
    assert pull_name(OpenStack(home), tier) == name


@pytest.mark.parametrize(
    ("model", "quant", "source", "name"),
    [
        ("bge-m3", "int8", "mlx-community/bge-m3-mlx-8bit", "mlx-community/bge-m3-mlx-8bit"),
        ("bge-m3", "int4", "mlx-community/bge-m3-mlx-4bit", "bge-m3"),
        (
            "deepseek-r1-distill-qwen-7b",
            "int8",
            "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
            "deepseek-r1-distill-qwen-7b --quant int8",
        ),
        (
            "deepseek-r1-distill-qwen-7b",
            "bf16",
            "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
            "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        ),
    ],
)
def test_a_tier_is_pulled_in_its_own_precision(
    home: Home, model: str, quant: str, source: str, name: str
) -> None:
    tier = Tier(name="x", model=model, quant=Quant(quant), source=source, port=8000, vllm_flags={})
    assert pull_name(OpenStack(home), tier) == name


def test_a_damaged_catalog_leaves_a_tier_its_repository(home: Home):
    home.catalog.mkdir(parents=True)
    (home.catalog / "mine.yaml").write_text("id: 3")
    tier = Tier(name="x", model="qwen3-8b", quant=None, source="a/b", port=8000, vllm_flags={})
    assert pull_name(OpenStack(home), tier) == "a/b"
