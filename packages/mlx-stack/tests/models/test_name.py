"""What a name means by its form alone."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_stack.errors import UsageError
from mlx_stack.models.name import CatalogName, Folder, HubRepo, is_on_hub, is_repo_id, parse

MIRROR = "http://mirror.example.org:8080/hub"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("qwen3-8b", CatalogName("qwen3-8b")),
        (" Qwen3-8B\n", CatalogName("Qwen3-8B")),
        ("qwen3-8b/", CatalogName("qwen3-8b")),
        ("owner--name--int4", CatalogName("owner--name--int4")),
        ("", CatalogName("")),
        ("@", CatalogName("@")),
        ("owner/name", HubRepo("owner/name")),
        ("owner/name/", HubRepo("owner/name")),
        (" owner/name ", HubRepo("owner/name")),
        ("owner/name@v1.0", HubRepo("owner/name", "v1.0")),
        (f"owner/name@{COMMIT}", HubRepo("owner/name", COMMIT)),
        ("owner/name@refs/pr/1", HubRepo("owner/name", "refs/pr/1")),
        ("models--owner--name", HubRepo("owner/name")),
        ("models--owner--a-b.c_d", HubRepo("owner/a-b.c_d")),
        ("https://huggingface.co/owner/name", HubRepo("owner/name")),
        ("https://huggingface.co/owner/name/", HubRepo("owner/name")),
        ("http://huggingface.co/owner/name", HubRepo("owner/name")),
        ("HTTPS://HuggingFace.co/owner/name", HubRepo("owner/name")),
        ("https://www.huggingface.co/owner/name", HubRepo("owner/name")),
        ("https://huggingface.co/owner/name?library=mlx#usage", HubRepo("owner/name")),
        ("https://huggingface.co/owner/name/tree/v2", HubRepo("owner/name", "v2")),
        (
            "https://huggingface.co/owner/name/tree/refs%2Fpr%2F1",
            HubRepo("owner/name", "refs/pr/1"),
        ),
        ("https://huggingface.co/owner/name/tree/refs/pr/1", HubRepo("owner/name", "refs/pr/1")),
        ("https://huggingface.co/owner/name/blob/main/config.json", HubRepo("owner/name", "main")),
        ("https://huggingface.co/owner/name/resolve/main/a/b.py", HubRepo("owner/name", "main")),
        (f"https://huggingface.co/owner/name/commit/{COMMIT}", HubRepo("owner/name", COMMIT)),
        ("https://huggingface.co/owner/name/discussions/3", HubRepo("owner/name")),
        ("https://huggingface.co/owner/name/tree/", HubRepo("owner/name")),
        ("https://huggingface.co/owner/name@v1", HubRepo("owner/name", "v1")),
        ("https://huggingface.co/owner/name.git", HubRepo("owner/name")),
        ("huggingface.co/owner/name", HubRepo("owner/name")),
        ("hf.co/owner/name", HubRepo("owner/name")),
        ("hf.co/owner/name/tree/v2/", HubRepo("owner/name", "v2")),
        ("https://hf.co/owner/name", HubRepo("owner/name")),
        ("http://mirror.example.org:8080/hub/owner/name/tree/v2", HubRepo("owner/name", "v2")),
        ("mirror.example.org:8080/hub/owner/name", HubRepo("owner/name")),
        ("./owner/name", Folder(Path("owner/name"))),
        ("../models/mine", Folder(Path("../models/mine"))),
        ("/models/mine/", Folder(Path("/models/mine"))),
        ("~/models/mine", Folder(Path("~/models/mine"))),
        (".", Folder(Path())),
        ("config.json", Folder(Path("config.json"))),
        ("mine/config.json", Folder(Path("mine/config.json"))),
        ("/mine/config.json", Folder(Path("/mine/config.json"))),
        ("a/b/c", Folder(Path("a/b/c"))),
        ("owner/na--me", Folder(Path("owner/na--me"))),
        ("owner/имя", Folder(Path("owner/имя"))),
        ("owner/name@", Folder(Path("owner/name@"))),
    ],
)
def test_every_spelling_has_one_meaning(text: str, meaning: CatalogName | HubRepo | Folder):
    assert parse(text, MIRROR) == meaning


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co",
        "https://huggingface.co/owner",
        "hf.co/owner",
        "https://huggingface.co/datasets/owner/name",
        "https://huggingface.co/spaces/owner/name",
        "https://huggingface.co/owner/na--me",
        "https://example.org/owner/name",
        "http://mirror.example.org:8080/owner/name",
        "http://mirror.example.org/hub/owner/name",
        "https://[::1/owner/name",
        "s3://owner/name",
    ],
)
def test_an_address_that_names_no_model_is_told(text: str):
    with pytest.raises(UsageError, match="the address of a model") as told:
        parse(text, MIRROR)
    assert "HF_ENDPOINT" in str(told.value.hint)


def test_another_hub_is_named_by_its_own_address_alone():
    assert is_on_hub("https://huggingface.co/owner/name", MIRROR)
    assert is_on_hub(f"{MIRROR}/owner/name", MIRROR)
    assert not is_on_hub("http://127.0.0.1:8000/v1", MIRROR)
    assert not is_on_hub("qwen3-8b", MIRROR)


def test_a_commit_is_told_from_what_may_move():
    assert HubRepo("owner/name", COMMIT).commit == COMMIT
    assert HubRepo("owner/name", "main").commit is None
    assert HubRepo("owner/name").commit is None


@pytest.mark.parametrize(
    ("name", "is_repo"),
    [
        ("org/model", True),
        ("mlx-community/Qwen3-8B-4bit", True),
        ("qwen3-8b", False),
        ("org/../x", False),
        ("a/b/c", False),
        ("/a", False),
        ("a/", False),
        ("org/mod--el", False),
        ("org/.git", False),
        ("org/имя", False),
        ("org/name\n", False),
    ],
)
def test_a_repository_is_told_from_a_name(name: str, *, is_repo: bool):
    assert is_repo_id(name) is is_repo


@given(st.one_of(st.text(), st.from_regex(r"(https?://)?(hf\.co|[a-z.]+)?(/\w+){0,4}@?\w*/?")))
def test_every_text_means_something_or_is_refused_in_words(text: str):
    try:
        meaning = parse(text, MIRROR)
    except UsageError:
        return
    assert isinstance(meaning, CatalogName | HubRepo | Folder)
    if isinstance(meaning, HubRepo):
        assert is_repo_id(meaning.repo)
        assert parse(meaning.repo) == HubRepo(meaning.repo)
