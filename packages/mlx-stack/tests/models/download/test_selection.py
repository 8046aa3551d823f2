import pytest

from mlx_stack.models.disk.manifest import FileRecord, is_safe_path
from mlx_stack.models.download.selection import select_files
from mlx_stack.models.errors import PullError


def records(*paths: str) -> list[FileRecord]:
    return [
        FileRecord(path=path, size_bytes=1, algorithm="git-sha1", digest="0" * 40) for path in paths
    ]


def selected(*paths: str) -> set[str]:
    return {file.path for file in select_files("owner/name", records(*paths))}


def test_what_mlx_loads_is_fetched_and_nothing_else():
    assert selected(
        ".gitattributes",
        "README.md",
        "additional_chat_templates/tool.jinja",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "logo.png",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "onnx/config.json",
        "onnx/model.onnx",
        "original/model.safetensors",
        "pytorch_model.bin",
        "tokenizer.json",
        "tokenizer.model",
    ) == {
        "additional_chat_templates/tool.jinja",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer.model",
    }


def test_what_makes_a_sound_of_a_models_tokens_is_fetched():
    paths = {
        "config.json",
        "model.safetensors",
        "speech_tokenizer/config.json",
        "speech_tokenizer/model.safetensors",
    }
    assert selected(*paths, "speech_tokenizer/model.onnx") == paths


def test_weights_that_repeat_the_others_are_left_out():
    with_model = selected("config.json", "model.safetensors", "consolidated.safetensors")
    assert with_model == {"config.json", "model.safetensors"}
    without = selected("config.json", "weights.00.safetensors", "consolidated.safetensors")
    assert without == {"config.json", "weights.00.safetensors"}


def test_weights_in_a_folder_do_not_hide_those_at_the_top():
    found = selected("config.json", "weights.safetensors", "model/model.safetensors")
    assert found == {"config.json", "weights.safetensors"}


def test_a_repository_of_another_format_is_refused_with_advice():
    with pytest.raises(PullError, match="no safetensors") as refused:
        selected("config.json", "model-q4.gguf")
    assert "model-q4.gguf" in str(refused.value.hint)
    with pytest.raises(PullError, match=r"config\.json"):
        selected("model.safetensors")


@pytest.mark.parametrize(
    ("path", "is_safe"),
    [
        ("config.json", True),
        ("a/b.json", True),
        ("", False),
        ("/etc/passwd", False),
        ("../x", False),
        ("a/../../x", False),
        (".mlx-stack.json", False),
        ("a\x00b", False),
    ],
)
def test_a_path_from_outside_cannot_leave_its_folder(path: str, *, is_safe: bool):
    assert is_safe_path(path) is is_safe


def test_python_is_fetched_only_where_the_user_allows_the_models_code():
    paths = ("config.json", "model.safetensors", "modeling.py", "deep/helper.py")
    assert "modeling.py" not in selected(*paths)
    allowed = select_files("owner/name", records(*paths), allows_code=True)
    assert {file.path for file in allowed} == {"config.json", "model.safetensors", "modeling.py"}


def test_what_macos_laid_next_to_files_before_an_upload_is_left_out():
    assert selected("._config.json", "._model.safetensors", "config.json", "model.safetensors") == {
        "config.json",
        "model.safetensors",
    }
