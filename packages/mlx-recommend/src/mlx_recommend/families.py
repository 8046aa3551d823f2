"""What a model's `model_type` says that a catalog entry may leave out.

Only used where the entry's geometry is silent: the size of the vocabulary, whether the checkpoint
stores the embedding twice, the towers for images and sound. Source: `config.json` of the family's
models and the parameter counts of their model cards.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyFacts:
    """What is common to the models of one `model_type`.

    Attributes:
        vocab_size: Rows of the embedding.
        stores_embedding_once: Whether a checkpoint of so many 10^9 parameters counts the embedding
            once, because the output layer is the same matrix.
        aside_params_b: Parameters, in 10^9, that text generation never reads: towers for images
            and sound, heads for multi-token prediction. The argument is the parameter count.
        per_layer_embedding_dim: Width of embeddings that every layer looks up for itself.
        query_group: Query heads for each KV head, where they aren't as wide as the residual stream
            together. The argument is the parameter count.
    """

    vocab_size: int
    stores_embedding_once: Callable[[float], bool]
    aside_params_b: Callable[[float], float] = lambda _: 0.0
    per_layer_embedding_dim: int = 0
    query_group: Callable[[float], float | None] = lambda _: None


def _by_size(*steps: tuple[float, float]) -> Callable[[float], float | None]:
    """The second number of the first step whose first, in 10^9 parameters, is not exceeded."""
    return lambda size_b: next((group for most_b, group in steps if size_b <= most_b), None)


_ANY = float("inf")


def _up_to(params_b: float) -> Callable[[float], bool]:
    return lambda size_b: size_b <= params_b


def _about(share: float, at_most_b: float) -> Callable[[float], float]:
    return lambda size_b: min(share * size_b, at_most_b)


def _always(_: float) -> bool:
    return True


def _never(_: float) -> bool:
    return False


_QWEN3_5 = FamilyFacts(
    vocab_size=248320,
    stores_embedding_once=_up_to(5),
    aside_params_b=_about(0.12, 0.8),
    query_group=_by_size((10, 4), (_ANY, 6)),
)
_QWEN3_5_MOE = FamilyFacts(
    vocab_size=248320,
    stores_embedding_once=_never,
    aside_params_b=_about(0.04, 5),
    query_group=_by_size((40, 8), (_ANY, 16)),
)
_GEMMA4_SMALL = FamilyFacts(
    vocab_size=262144,
    stores_embedding_once=_always,
    aside_params_b=_about(0.1, 0.47),
    per_layer_embedding_dim=256,
    query_group=_by_size((6, 8), (_ANY, 4)),
)
_MISTRAL3 = FamilyFacts(
    vocab_size=131072,
    stores_embedding_once=_up_to(5),
    aside_params_b=_about(0.1, 0.44),
    query_group=_by_size((_ANY, 4)),
)

_FACTS = {
    "qwen2": FamilyFacts(
        vocab_size=151936,
        stores_embedding_once=_up_to(4),
        query_group=_by_size((8, 7), (40, 5), (_ANY, 8)),
    ),
    "qwen3": FamilyFacts(  # 0.6B and 1.7B are published with a second copy
        vocab_size=151936,
        stores_embedding_once=lambda size_b: 3 < size_b <= 5,
        query_group=_by_size((2.1, 2), (9, 4), (20, 5), (_ANY, 8)),
    ),
    "qwen3_moe": FamilyFacts(
        vocab_size=151936,
        stores_embedding_once=_never,
        query_group=_by_size((40, 8), (_ANY, 16)),
    ),
    "qwen3_next": FamilyFacts(
        vocab_size=151936,
        stores_embedding_once=_never,
        query_group=_by_size((_ANY, 8)),
    ),
    "qwen3_vl": FamilyFacts(
        vocab_size=151936,
        stores_embedding_once=_up_to(5),
        aside_params_b=_about(0.1, 0.58),
        query_group=_by_size((_ANY, 4)),
    ),
    "qwen3_vl_moe": FamilyFacts(
        vocab_size=151936,
        stores_embedding_once=_never,
        aside_params_b=_about(0.1, 0.54),
        query_group=_by_size((_ANY, 8)),
    ),
    "qwen3_5": _QWEN3_5,
    "qwen3_5_moe": _QWEN3_5_MOE,
    "gemma3_text": FamilyFacts(
        vocab_size=262144,
        stores_embedding_once=_always,
        query_group=_by_size((_ANY, 4)),
    ),
    "gemma3": FamilyFacts(
        vocab_size=262208,
        stores_embedding_once=_always,
        aside_params_b=lambda _: 0.42,
        query_group=_by_size((_ANY, 2)),
    ),
    "gemma3n": FamilyFacts(
        vocab_size=262400,
        stores_embedding_once=_always,
        aside_params_b=lambda _: 0.98,
        per_layer_embedding_dim=256,
    ),
    "gemma4": FamilyFacts(
        vocab_size=262144,
        stores_embedding_once=_always,
        aside_params_b=lambda _: 0.57,
        query_group=_by_size((_ANY, 4)),
    ),
    "gemma4_unified": FamilyFacts(vocab_size=262144, stores_embedding_once=_always),
    "llama": FamilyFacts(
        vocab_size=128256,
        stores_embedding_once=_up_to(4),
        query_group=_by_size((2, 4), (4, 3), (9, 4), (_ANY, 8)),
    ),
    "llama4": FamilyFacts(
        vocab_size=202048, stores_embedding_once=_never, aside_params_b=lambda _: 0.9
    ),
    "mistral": FamilyFacts(
        vocab_size=131072,
        stores_embedding_once=_never,
        query_group=_by_size((_ANY, 4)),
    ),
    "mistral3": _MISTRAL3,
    "phi3": FamilyFacts(
        vocab_size=100352,
        stores_embedding_once=_up_to(5),
        query_group=_by_size((5, 3), (_ANY, 4)),
    ),
    "gpt_oss": FamilyFacts(
        vocab_size=201088,
        stores_embedding_once=_never,
        query_group=_by_size((_ANY, 8)),
    ),
    "glm4_moe": FamilyFacts(
        vocab_size=151552,
        stores_embedding_once=_never,
        query_group=_by_size((_ANY, 12)),
    ),
    "glm4_moe_lite": FamilyFacts(vocab_size=154880, stores_embedding_once=_never),
    "minimax_m2": FamilyFacts(
        vocab_size=200064,
        stores_embedding_once=_never,
        query_group=_by_size((_ANY, 6)),
    ),
    "deepseek_v3": FamilyFacts(vocab_size=129280, stores_embedding_once=_never),
    "kimi_linear": FamilyFacts(vocab_size=163840, stores_embedding_once=_never),
    "nemotron_h": FamilyFacts(
        vocab_size=131072,
        stores_embedding_once=_never,
        query_group=_by_size((10, 5), (_ANY, 16)),
    ),
    "nemotron-nas": FamilyFacts(vocab_size=128256, stores_embedding_once=_never),
    "granite": FamilyFacts(
        vocab_size=100352,
        stores_embedding_once=_always,
        query_group=_by_size((_ANY, 4)),
    ),
    "granitemoehybrid": FamilyFacts(vocab_size=100352, stores_embedding_once=_always),
    "falcon_h1": FamilyFacts(
        vocab_size=130048,
        stores_embedding_once=_never,
        query_group=_by_size((4, 5), (_ANY, 6)),
    ),
    "lfm2": FamilyFacts(vocab_size=65536, stores_embedding_once=_always),
    "lfm2_moe": FamilyFacts(vocab_size=65536, stores_embedding_once=_always),
    "smollm3": FamilyFacts(vocab_size=128256, stores_embedding_once=_always),
    "seed_oss": FamilyFacts(
        vocab_size=155136,
        stores_embedding_once=_never,
        query_group=_by_size((_ANY, 10)),
    ),
    "olmo3": FamilyFacts(vocab_size=100278, stores_embedding_once=_never),
    "jamba": FamilyFacts(vocab_size=65536, stores_embedding_once=_always),
}


def family_facts(model_type: str, params_b: float) -> FamilyFacts | None:
    """What is known of the models of this `model_type`, or None.

    Gemma 4's two smallest models are built otherwise than the larger ones under the same name.
    """
    if model_type == "gemma4" and params_b < 10:  # between E4B and 12B
        return _GEMMA4_SMALL
    return _FACTS.get(model_type)
