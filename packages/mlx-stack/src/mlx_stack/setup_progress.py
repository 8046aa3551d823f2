"""How far an interrupted `setup` came, and what its user had chosen: `setup.json`."""

from pathlib import Path

import msgspec

from mlx_recommend import Intent
from mlx_stack import atomic_file
from mlx_stack.errors import InvalidFileError

_SCHEMA_VERSION = 1
_HINT = "Remove the file; `mlx-stack setup` then begins anew and keeps what is done already."


class Choices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the user chose; None where he left it open.

    Attributes:
        intent: What the stack is for.
        budget_pct: The memory that all tiers share, in percent.
        model: The one model to serve instead of the recommended ones.
        pulls: Whether models are downloaded.
        starts: Whether the services are started.
    """

    intent: Intent | None = None
    budget_pct: int | None = None
    model: str | None = None
    pulls: bool | None = None
    starts: bool | None = None

    def over(self, earlier: "Choices") -> "Choices":
        """These choices, and where they leave something open the earlier ones."""
        return Choices(
            intent=self.intent or earlier.intent,
            budget_pct=self.budget_pct or earlier.budget_pct,
            model=self.model or earlier.model,
            pulls=earlier.pulls if self.pulls is None else self.pulls,
            starts=earlier.starts if self.starts is None else self.starts,
        )


class Progress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A setup that has begun.

    Attributes:
        schema_version: 1.
        choices: What was chosen.
        done: The steps that are behind it.
    """

    schema_version: int = _SCHEMA_VERSION
    choices: Choices
    done: tuple[str, ...] = ()


def read_progress(path: Path) -> Progress | None:
    """The setup that was interrupted, or None.

    Raises:
        InvalidFileError: The file is damaged or of a newer version.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        progress = msgspec.json.decode(raw, type=Progress)
    except msgspec.DecodeError as error:
        raise InvalidFileError(path, f"is no progress of a setup: {error}", hint=_HINT) from error
    if progress.schema_version != _SCHEMA_VERSION:
        problem = f"is of version {progress.schema_version}; this mlx-stack reads 1"
        raise InvalidFileError(path, problem, hint=_HINT)
    return progress


def write_progress(path: Path, progress: Progress) -> None:
    """Remember how far a setup came."""
    atomic_file.write_text(path, msgspec.json.encode(progress).decode() + "\n")
