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

    @property
    def is_of_sound(self) -> bool:
        """Whether it hears or speaks."""
        return self in (ModelRole.SPEECH_TO_TEXT, ModelRole.TEXT_TO_SPEECH)


POOLING_FILES = ("modules.json", "1_Pooling/config.json")
"""What Sentence Transformers writes beside an embedder's weights, and beside no other model's."""
_ENCODERS = frozenset({"bert", "modernbert", "xlm-roberta", "xlm_roberta"})
"""Types that read a text as a whole and write none."""
_HEARS = frozenset({"whisper", "parakeet", "moonshine", "qwen3_asr", "sensevoice"})
_NEMO_HEARS = "nemo.collections.asr"
"""How the `target` of NVIDIA's own models begins, which name no type."""
_SPEAKS = frozenset(
    {"kokoro", "kitten", "kitten_tts", "soprano", "qwen3_tts", "pocket_tts", "outetts", "csm"}
)


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
    if model_type in _HEARS or word(config, "target").startswith(_NEMO_HEARS):
        return ModelRole.SPEECH_TO_TEXT
    # Kokoro's own configuration names no type
    is_kokoro = not model_type and "istftnet" in config and "plbert" in config
    return ModelRole.TEXT_TO_SPEECH if is_kokoro or model_type in _SPEAKS else ModelRole.CHAT
