"""Model names at the gateway."""

from collections.abc import Collection

from mlx_stack.errors import UsageError
from mlx_stack.stack import Stack


def model_to_ask(stack: Stack, tier: str | None) -> str:
    """The model name of a tier; of the stack's first tier where none is named.

    Raises:
        UsageError: There is no such tier.
    """
    if tier is None:
        return stack.tiers[0].name
    require_tier(tier, [entry.name for entry in stack.tiers])
    return tier


def require_tier(tier: str, known: Collection[str]) -> None:
    """Nothing, if `tier` is among the known ones.

    Raises:
        UsageError: It isn't; the hint names those that are.
    """
    if tier not in known:
        names = ", ".join(known) or "none yet"
        raise UsageError(f"There is no tier {tier!r}.", hint=f"The stack has: {names}.")
