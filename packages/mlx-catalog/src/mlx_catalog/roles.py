"""What a model is for, by what its own files say."""

from collections.abc import Iterable
from enum import StrEnum

from mlx_catalog.config_fields import ModelConfig, items, word


class ModelRole(StrEnum):
    """What a model is for."""

    CHAT = "chat"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    VISION = "vision"
    SPEECH_TO_TEXT = "speech-to-text"
    TEXT_TO_SPEECH = "text-to-speech"

    @property
    def chats(self) -> bool:
        """Whether it writes answers, so that another that does may stand in for it."""
        return self in (ModelRole.CHAT, ModelRole.VISION)

    @property
    def reads_only(self) -> bool:
        """Whether it reads text, writes nothing, and keeps nothing of what it has read."""
        return self in (ModelRole.EMBEDDING, ModelRole.RERANK)


POOLING_FILES = ("modules.json", "1_Pooling/config.json")
"""What Sentence Transformers writes beside an embedder's weights, and beside no other model's."""
_ENCODERS = frozenset({"bert", "modernbert", "xlm-roberta", "xlm_roberta"})
"""Types that read a text as a whole and write none."""
_READS_SPEECH = frozenset({"whisper"})


def role_of(config: ModelConfig, files: Iterable[str] = ()) -> ModelRole:
    """The role of a model with this `config.json`.

    Args:
        files: The names of its files; what a language model was trained for beyond its
            configuration shows in nothing else.
    """
    model_type = word(config, "model_type")
    names = [str(each) for each in items(config, "architectures")]
    if any(name.endswith("ForSequenceClassification") for name in names):
        return ModelRole.RERANK
    if model_type in _ENCODERS or set(files) & set(POOLING_FILES):
        return ModelRole.EMBEDDING
    return ModelRole.SPEECH_TO_TEXT if model_type in _READS_SPEECH else ModelRole.CHAT
