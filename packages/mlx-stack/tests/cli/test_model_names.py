"""Every spelling of a model's name, through every command that takes one. Nobody is asked."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_stack.home import Home
from mlx_stack.models.disk.manifest import FileRecord, Manifest, write_manifest
from mlx_stack.stack import load_stack

ENDPOINT = "http://127.0.0.1:9/hub"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO, KNOWN = "acme/Tiny-4bit", "mlx-community/Qwen3-8B-4bit"
CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 4096,
    "quantization": {"group_size": 64, "bits": 4},
}

REPOSITORY = (
    REPO,
    f" {REPO}\n",
    f"{REPO}/",
    f"{REPO}@{COMMIT}",
    f"{REPO}@main",
    f"https://huggingface.co/{REPO}",
    f"https://huggingface.co/{REPO}/",
    f"https://huggingface.co/{REPO}/tree/main",
    f"https://huggingface.co/{REPO}/tree/{COMMIT}",
    f"https://huggingface.co/{REPO}/blob/main/config.json",
    f"https://huggingface.co/{REPO}?library=mlx-lm#files",
    f"http://HuggingFace.co/{REPO}",
    f"huggingface.co/{REPO}",
    f"hf.co/{REPO}",
    f"hf.co/{REPO}/tree/main",
    f"{ENDPOINT}/{REPO}",
    f"{ENDPOINT}/{REPO}/tree/main",
    f"models--{REPO.replace('/', '--')}",
)
CATALOG = ("qwen3-8b", " Qwen3-8B ", "QWEN3-8B", "qwen3-8b/")
FOLDER = (
    "mine",
    "mine/",
    "./mine",
    "./mine/",
    "{here}/mine",
    "~/mine",
    "../here/mine",
    "mine/config.json",
    "{here}/mine/config.json",
)
NOWHERE = ("./nothing", "/no/such/folder", "~nobody-is-called-so/x", "a/b/c", "qwen3-8bb", "")
NO_MODEL = (
    "https://huggingface.co",
    "https://huggingface.co/datasets/acme/tiny",
    "hf.co/acme",
    "s3://acme/tiny",
)

type Verb = Callable[["Told", str], str]


class Told:
    """Runs commands, each on its own state."""

    def __init__(self, say: Callable[..., object], home: Home) -> None:
        self.say, self.home = say, home

    def document(self, *arguments: str, code: int = 0) -> dict[str, object]:
        done = self.say(*arguments, "--json")
        assert done.code == code, done.err
        return done.document


def pull(told: Told, name: str) -> str:
    document = told.document("pull", name)
    assert document["outcome"] == "present"
    return str(document["path"])


def estimate(told: Told, name: str) -> str:
    document = told.document("estimate", name, "--hardware", "m4-max:40:64")
    assert document["memory"]["weights_bytes"]
    return str(document["model"])


def init(told: Told, name: str) -> str:
    told.document("init", "--accept-defaults", "--force", "--add", name, "--as", "standard")
    tier = load_stack(told.home.stack).tier("standard")
    return f"{tier.model} from {tier.source}"


def setup(told: Told, name: str) -> str:
    options = ("--accept-defaults", "--no-pull", "--no-start")
    told.document("setup", "--model", name, *options)
    told.document("setup", "--model", name, *options)  # the stack that is there has it
    (tier,) = load_stack(told.home.stack).tiers
    return f"{tier.model} from {tier.source}"


def bench(told: Told, name: str) -> str:
    error = told.document("bench", name, code=5)["error"]
    return str(error["type"])  # the model is found; what is missing is the engine


def remove(told: Told, name: str) -> str:
    document = told.document("models", "--remove", name, "--force")
    assert document["freed_bytes"]
    return "removed"


@pytest.fixture
def told(
    say: Callable[..., object], home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Told:
    here = tmp_path / "here"
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("HF_ENDPOINT", ENDPOINT)
    write_model(home.models / "acme--Tiny-4bit", REPO)
    write_model(home.models / "mlx-community--Qwen3-8B-4bit", KNOWN, "qwen3-8b")
    write_model(here / "mine")
    monkeypatch.chdir(here)
    return Told(say, home)


def write_model(folder: Path, repo: str | None = None, model: str | None = None) -> None:
    folder.mkdir(parents=True)
    tensor = {"model.a.weight": {"dtype": "U32", "shape": [64], "data_offsets": [0, 256]}}
    header = json.dumps(tensor).encode()
    weights = len(header).to_bytes(8, "little") + header + bytes(256)
    contents = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": weights}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    if repo is None:
        return
    files = tuple(
        FileRecord(path=name, size_bytes=len(content), algorithm="sha256", digest="")
        for name, content in contents.items()
    )
    manifest = Manifest(
        schema_version=1,
        repo=repo,
        revision=COMMIT,
        quant="int4",
        origin="downloaded",
        files=files,
        model=model,
    )
    write_manifest(folder, manifest)


@pytest.mark.parametrize("name", REPOSITORY)
@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        (pull, "{models}/acme--Tiny-4bit"),
        (estimate, REPO),
        (init, f"Tiny-4bit from {REPO}"),
        (setup, f"Tiny-4bit from {REPO}"),
        (bench, "engine-missing"),
        (remove, "removed"),
    ],
)
def test_a_repository_is_the_same_however_it_is_written(
    told: Told, verb: Verb, expected: str, name: str
):
    assert verb(told, name) == expected.replace("{models}", str(told.home.models))


@pytest.mark.parametrize("name", CATALOG)
@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        (pull, "{models}/mlx-community--Qwen3-8B-4bit"),
        (estimate, "qwen3-8b"),
        (init, f"qwen3-8b from {KNOWN}"),
        (setup, f"qwen3-8b from {KNOWN}"),
        (bench, "engine-missing"),
        (remove, "removed"),
    ],
)
def test_a_catalog_id_is_the_same_however_it_is_written(
    told: Told, verb: Verb, expected: str, name: str
):
    write_model(Path("qwen3-8b"))  # of that name, and not what is meant
    assert verb(told, name) == expected.replace("{models}", str(told.home.models))


@pytest.mark.parametrize("name", FOLDER)
@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        (init, "mine from {here}/mine"),
        (setup, "mine from {here}/mine"),
        (bench, "engine-missing"),
    ],
)
def test_a_folder_is_the_same_however_it_is_written(
    told: Told, verb: Verb, expected: str, name: str
):
    here = str(Path.cwd())
    assert verb(told, name.replace("{here}", here)) == expected.replace("{here}", here)


@pytest.mark.parametrize("name", FOLDER)
def test_a_folder_is_estimated_and_is_nothing_to_pull_or_to_remove(told: Told, name: str):
    name = name.replace("{here}", str(Path.cwd()))
    estimate(told, name)
    assert "nothing to download" in told.document("pull", name, code=2)["error"]["message"]
    told.document("models", "--remove", name, code=1)
    assert Path("mine/config.json").exists()


@pytest.mark.parametrize("name", [*NOWHERE, *NO_MODEL])
@pytest.mark.parametrize(
    "command",
    [
        ("pull",),
        ("estimate",),
        ("init", "--accept-defaults", "--add"),
        ("setup", "--accept-defaults", "--no-pull", "--no-start", "--model"),
        ("models", "--remove"),
        ("bench",),
    ],
    ids=" ".join,
)
def test_what_is_no_model_is_told_alike_by_every_command(
    told: Told, command: tuple[str, ...], name: str
):
    done = told.say(*command, name, "--json")
    assert done.code in (1, 2)
    error = done.document["error"]
    assert error["message"]
    if "qwen3-8bb" in name:
        assert "qwen3-8b" in error["hint"]
    if name in NO_MODEL and command != ("bench",):
        assert "the address of a model" in error["message"]
    assert not told.home.stack.exists()
