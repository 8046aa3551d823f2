"""The command line of mlx_vlm.server, which serves what embeds, ranks documents, hears or speaks.

It stands in vllm-mlx's environment. Flags are those of mlx-vlm 0.7.10; how it is kept to one model
is in `mlx_vlm_start` (decision 0101), what it does with sounds in `mlx_vlm_sound` (decision 0109).
"""

from collections.abc import Mapping
from pathlib import Path

from mlx_catalog import ModelRole
from mlx_stack.engines.mlx_vlm_start import PROGRAM
from mlx_stack.engines.vllm_mlx import LOOPBACK, Serving, closed_environment
from mlx_stack.stack import Tier

_MODEL_FLAGS: Mapping[ModelRole, str] = {
    ModelRole.EMBEDDING: "--embedding-model",
    ModelRole.RERANK: "--reranker-model",
    ModelRole.SPEECH_TO_TEXT: "--stt-model",
    ModelRole.TEXT_TO_SPEECH: "--tts-model",
}


environment = closed_environment
"""What the engine needs in its environment."""


def command(
    start: tuple[str, ...], tier: Tier, model_folder: Path, serving: Serving
) -> tuple[str, ...]:
    """The command line that serves `tier` on loopback.

    Args:
        start: What runs the engine, `guarded(environment)`.
        tier: What to serve; requests must name `tier.model`.
        model_folder: The model's folder; absolute, so that nothing is ever downloaded.
        serving: How; only what is said of vectors and of memory matters.
    """
    pooling = ("--pooling", serving.pooling) if serving.pooling else ()
    bound = ("--work-bytes", str(serving.work_bytes)) if serving.work_bytes else ()
    named = ("--served-model-name", tier.model, _MODEL_FLAGS[tier.role], str(model_folder))
    # by itself it listens on every address of the machine
    address = ("--host", LOOPBACK, "--port", str(tier.port))
    return (*start, PROGRAM, *named, *pooling, *bound, *address)
