"""The roles that can be measured, besides chat."""

from collections.abc import Mapping

from mlx_bench.errors import ParametersError
from mlx_bench.roles.embedding import EMBEDDING
from mlx_bench.roles.rerank import RERANK
from mlx_bench.roles.speech_to_text import SPEECH_TO_TEXT
from mlx_bench.roles.text_to_speech import TEXT_TO_SPEECH
from mlx_bench.roles.vision import VISION
from mlx_bench.roles.workload import RoleWorkload

WORKLOADS: Mapping[str, RoleWorkload] = {
    each.role: each for each in (EMBEDDING, RERANK, VISION, SPEECH_TO_TEXT, TEXT_TO_SPEECH)
}
"""How each is measured, by its name."""


def workload_of(role: str) -> RoleWorkload:
    """How models of that role are measured.

    Raises:
        ParametersError: They aren't.
    """
    if role not in WORKLOADS:
        known = ", ".join(["chat", *WORKLOADS])
        raise ParametersError(f"The role {role} can't be measured; these can: {known}.")
    return WORKLOADS[role]
