"""What the pinned engines can do with a model, found by running them."""

from dataclasses import dataclass
from enum import StrEnum

from mlx_catalog.model_files import ModelReading
from mlx_catalog.model_types import model_types
from mlx_catalog.roles import ModelRole
from mlx_catalog.schema import CatalogEntry

PINNED_ENGINE = "vllm-mlx 0.6.0"
PINNED_MLX_LM = (0, 31, 3)
"""The mlx-lm that the pinned engine requires: `>=0.31.3,<0.32`."""
NEWER_MLX_LM = (0, 32, 2)
"""The mlx-lm that is an engine by itself."""
NEWER_TYPES = frozenset(
    {
        *("bailing_hybrid", "bailing_moe_v3", "deepseek_v41", "gear", "gptj", "kimi_k3", "laguna"),
        *(
            "mellum",
            "minimax_m3_vl",
            "mistral4",
            "muse_glimmer",
            "muse_spark",
            "nanbeige",
            "olmo_hybrid",
        ),
        *("plamo3", "prism_hadamard_qwen35", "spark2_5", "talkie"),
    }
)
"""The types of models whose modules only the newer mlx-lm has."""
_WITH_A_TEXT_ROUTE = frozenset({"qwen3_5", "qwen3_5_moe"})
"""Models with a vision tower whose textual half the engine builds for requests without pictures,
and that were tried. It does so for Gemma 4 as well, which was not."""

_SPEECH_PACKAGES = {"kokoro": "misaki", "kitten": "phonemizer", "kitten_tts": "phonemizer"}
"""What models that speak need of what is not in the engine's environment."""


class ServingEngine(StrEnum):
    """The engines that write answers."""

    VLLM_MLX = "vllm-mlx"
    MLX_LM = "mlx-lm"


@dataclass(frozen=True, slots=True)
class EngineFit:
    """How an engine serves a model.

    Attributes:
        engine: Which one.
        unservable_because: Why it can't be served at all; "" where it can.
        multimodal: Whether it is served by the engine's multimodal half (mlx-vlm), which a model
            with a vision tower is, for text alone as well.
        batching: Whether several requests at once work with its caches.
        reuses_prefixes: Whether what two requests begin with alike is read once, with the
            additions to the engine.
    """

    engine: ServingEngine
    unservable_because: str
    multimodal: bool
    batching: bool
    reuses_prefixes: bool


def engine_fit(
    model: CatalogEntry | ModelReading, engine: ServingEngine | None = None
) -> EngineFit:
    """How a model of the catalog, or one that was read, is served (decisions 0023 and 0105).

    Args:
        engine: By which engine; None for the one that the model needs.
    """
    if isinstance(model, CatalogEntry):
        sees, why = model.capabilities.vision is True, _unservable_because(model)
        is_newer = bool(asks_for_newer(model))
    else:
        sees, why, is_newer = model.vision, "", model.model_type in NEWER_TYPES
    if model.role is ModelRole.TEXT_TO_SPEECH:
        why = _speechless_because(model.model_type)
    if engine is None:
        engine = ServingEngine.MLX_LM if is_newer and not sees else ServingEngine.VLLM_MLX
    multimodal = sees and engine is ServingEngine.VLLM_MLX  # mlx-lm reads text alone
    row = model_types().get(model.model_type)
    batching = row is None or not row.unbatched
    textual = not multimodal or model.model_type in _WITH_A_TEXT_ROUTE
    return EngineFit(engine, why, multimodal, batching, row is not None and textual)


def _unservable_because(entry: CatalogEntry) -> str:
    if entry.capabilities.vision or not entry.role.chats:
        return ""  # mlx-vlm has the modules of all multimodal entries, and of those that don't chat
    if entry.min_mlx_lm_version is None:
        return f"no released mlx-lm has the module {entry.model_type!r}"
    if _version(entry) <= NEWER_MLX_LM:
        return ""
    newer = ".".join(map(str, NEWER_MLX_LM))
    return f"it needs mlx-lm {entry.min_mlx_lm_version}; the newest here is {newer}"


def _speechless_because(model_type: str) -> str:
    """Why a model of that type can't speak; "" where it can.

    What speaks and names no type is a Kokoro.
    """
    package = _SPEECH_PACKAGES.get(model_type or "kokoro")
    if package is None:
        return ""
    return f"it needs the package {package} to speak, which the engine's environment doesn't have"


def asks_for_newer(entry: CatalogEntry) -> str:
    """That the entry asks for a newer mlx-lm than the engine holds; "" where it doesn't.

    A multimodal entry may be served all the same, by mlx-vlm's module; nobody has measured it.
    """
    if _version(entry) <= PINNED_MLX_LM:
        return ""
    pinned = ".".join(str(part) for part in PINNED_MLX_LM)
    return f"it needs mlx-lm {entry.min_mlx_lm_version}; {PINNED_ENGINE} contains {pinned}"


def _version(entry: CatalogEntry) -> tuple[int, ...]:
    return tuple(int(part) for part in (entry.min_mlx_lm_version or "0").split("."))
