"""What is checked of a request before an engine sees it.

vllm-mlx 0.6 answers 500 to much of what OpenAI and Anthropic answer 400 to, which would pass for a
failure of the engine and go on to other models.
"""

import msgspec

from mlx_gateway.fields import Fields, invalid

_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 100),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "top_k": (-1, 2**31 - 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0.01, 100),
    "repetition_context_size": (0, 100_000),
    "presence_context_size": (0, 100_000),
    "frequency_context_size": (0, 100_000),
    "xtc_probability": (0, 1),
    "xtc_threshold": (0, 0.5),
    "timeout": (0.001, 86_400),
}


class Part(msgspec.Struct):
    """A part of a message's content."""

    type: str
    text: str | None = None

    def __post_init__(self) -> None:
        """Refuse a text without text."""
        if self.text is None and self.type in ("text", "input_text", "output_text"):
            raise ValueError("a part of text needs `text`")


def checked[T: msgspec.Struct](fields: Fields, kind: type[T]) -> T:
    """Those fields that `kind` names, by its rules, and every one that sets how words are chosen.

    The engines look at the latter in the middle of a batch: one that is out of range ends every
    answer that is being given, and may leave the engine unable to give another until it is
    restarted.

    Raises:
        ApiError: When one breaks a rule; the message says which.
    """
    for name, (least, most) in _RANGES.items():
        value = fields.get(name)
        if value is not None and not _is_number_in(value, least, most):
            raise invalid(f"`{name}` must be a number from {least:g} to {most:g}.", param=name)
    given = {name: fields.get(name) for name in kind.__struct_fields__ if name in fields}
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$")
        where = place.strip(".`").replace("[", ".").replace("]", "")
        said = f"{where}: {problem}" if where else problem
        raise invalid(said, param=where.partition(".")[0] or None) from error


def positive(fields: Fields, name: str) -> int | None:
    """A number of tokens; None where the field is missing.

    Raises:
        ApiError: When it is not a whole number above 0.
    """
    value = fields.get(name)
    if value is not None and not (isinstance(value, int) and _is_number_in(value, 1, 2**53)):
        raise invalid(f"`{name}` must be a whole number above 0.", param=name)
    return value


def _is_number_in(value: object, least: float, most: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return least <= value <= most
