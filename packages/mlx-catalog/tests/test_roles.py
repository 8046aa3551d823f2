"""What a model is for, from its own files."""

import json
from pathlib import Path

import pytest

from mlx_catalog import ModelRole, UnreadableModelError, read_model, read_role

BERT = {"model_type": "bert", "architectures": ["BertModel"], "num_hidden_layers": 2}


@pytest.mark.parametrize(
    ("config", "files", "role"),
    [
        (BERT, (), ModelRole.EMBEDDING),
        ({"model_type": "xlm-roberta"}, (), ModelRole.EMBEDDING),
        (
            BERT | {"architectures": ["BertForSequenceClassification"]},
            ("modules.json",),
            ModelRole.RERANK,
        ),
        ({"model_type": "qwen3"}, (), ModelRole.CHAT),
        ({"model_type": "qwen3"}, ("1_Pooling/config.json",), ModelRole.EMBEDDING),
        ({"model_type": "qwen3"}, ("modules.json",), ModelRole.EMBEDDING),
        ({"model_type": "whisper"}, (), ModelRole.SPEECH_TO_TEXT),
        (
            {"target": "nemo.collections.asr.models.rnnt_bpe_models.EncDecRNNTBPEModel"},
            (),
            ModelRole.SPEECH_TO_TEXT,
        ),
        ({"model_type": "soprano"}, (), ModelRole.TEXT_TO_SPEECH),
        ({"istftnet": {"a": 1}, "plbert": {"b": 2}}, (), ModelRole.TEXT_TO_SPEECH),
        ({"model_type": "qwen3", "architectures": "nonsense"}, (), ModelRole.CHAT),
    ],
)
def test_the_role_of_a_folder_is_known_from_its_files(
    tmp_path: Path, config: dict[str, object], files: tuple[str, ...], role: ModelRole
) -> None:
    for name, text in {"config.json": json.dumps(config), **dict.fromkeys(files, "[]")}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert read_role(tmp_path) is role
    assert read_model(tmp_path).role is role


def test_a_model_that_only_reads_is_not_noted_for_a_cache_that_it_has_not(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(BERT))
    assert not any("cache" in note for note in read_model(tmp_path).notes)


def test_a_folder_without_a_configuration_has_no_role(tmp_path: Path) -> None:
    with pytest.raises(UnreadableModelError):
        read_role(tmp_path)


def test_only_what_chats_may_stand_in_for_another() -> None:
    assert [role for role in ModelRole if role.chats] == [ModelRole.CHAT, ModelRole.VISION]
