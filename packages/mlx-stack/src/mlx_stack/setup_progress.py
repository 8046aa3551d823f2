"""How far an interrupted `setup` came, and what its user had chosen: `setup.json`."""

from pathlib import Path

import msgspec

from mlx_recommend import Intent
from mlx_stack import json_file

_HINT = "Remove the file; `mlx-stack setup` then starts over and keeps what is done already."


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

    schema_version: int = 1
    choices: Choices
    done: tuple[str, ...] = ()


def read_progress(path: Path) -> Progress | None:
    """The setup that was interrupted, or None.

    Raises:
        InvalidFileError: The file is damaged or of a newer version.
    """
    return json_file.read(path, Progress, hint=_HINT)


def write_progress(path: Path, progress: Progress) -> None:
    """Remember how far a setup came."""
    json_file.write(path, progress)
