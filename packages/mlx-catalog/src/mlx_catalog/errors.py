"""What can go wrong with a catalog, as fields rather than prose."""

from dataclasses import dataclass
from pathlib import Path


class CatalogError(Exception):
    """Base of everything this package raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in one file."""

    file: str
    line: int
    """1-based; 0 where the problem has no line."""
    key_path: str
    expected: str
    got: str

    def __str__(self) -> str:
        """The problem in one line, in the form editors and terminals turn into a link."""
        where = f"{self.file}:{self.line}" if self.line else self.file
        key = f" {self.key_path}:" if self.key_path else ""
        return f"{where}:{key} expected {self.expected}, got {self.got}"


class InvalidCatalogError(CatalogError):
    """Files of a catalog don't follow the schema; `problems` holds all of them, in file order."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class UnknownModelError(CatalogError):
    """No entry has this id or alias; `close_matches` are the nearest names, best first."""

    def __init__(self, name: str, close_matches: tuple[str, ...]) -> None:
        hint = f"; did you mean {', '.join(close_matches)}?" if close_matches else ""
        super().__init__(f"no model named {name!r} in the catalog{hint}")
        self.name = name
        self.close_matches = close_matches


class UnreadableCatalogError(CatalogError):
    """A file or folder of the catalog could not be read; the cause is the OSError."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class UnreadableModelError(CatalogError):
    """A model's files can't be read as such; the cause, where there is one, says more."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(f"{model}: {reason}")
        self.model = model
        self.reason = reason


class HubError(CatalogError):
    """The model hub gave no usable answer.

    Attributes:
        said: The hub's own words, or "".
    """

    def __init__(
        self, endpoint: str, reason: str, *, status: int | None = None, said: str = ""
    ) -> None:
        super().__init__(f"{endpoint}: {reason}")
        self.endpoint = endpoint
        self.reason = reason
        self.status = status
        self.said = said


class HubConnectionError(HubError):
    """No connection to the hub: no network, a wrong endpoint, or no answer in time."""


class RepoNotFoundError(HubError):
    """The hub has no such repository, or hides it from requests without a token."""


class RevisionNotFoundError(HubError):
    """The repository has no such branch, tag or commit."""


class GatedRepoError(HubError):
    """The repository's files are for those who accepted its licence."""


class TokenRefusedError(HubError):
    """The hub doesn't know the token, or no longer accepts it."""
