"""What a pull tells while it runs: facts for whoever draws them."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class _Event:
    def to_document(self) -> dict[str, object]:
        """The event as JSON, with its name: `FileVerified` is `file-verified`."""
        name = "".join(f"-{c.lower()}" if c.isupper() else c for c in type(self).__name__)
        return {"event": name.removeprefix("-"), **asdict(self)}


@dataclass(frozen=True, slots=True)
class Planned(_Event):
    """What will be done, known before the first byte.

    Attributes:
        total_bytes: All files of the model.
        present_bytes: What is here already, in all.
    """

    repo: str
    revision: str
    total_bytes: int
    present_bytes: int
    files: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class FileProgress:
    """How far one file is.

    Attributes:
        is_verified: Whether its hash was compared.
    """

    path: str
    size_bytes: int
    present_bytes: int
    is_verified: bool


@dataclass(frozen=True, slots=True)
class Progress(_Event):
    """How far the download is, a few times a second.

    Attributes:
        present_bytes: What is here, resumed bytes included.
        resumed_bytes: What earlier pulls left.
        verified_bytes: The files whose hash was compared.
        rate_bytes_s: Received over the last seconds; None until there is something to say.
        remaining_s: Time left at that rate; None where nothing moves.
    """

    total_bytes: int
    present_bytes: int
    resumed_bytes: int
    verified_bytes: int
    rate_bytes_s: float | None
    remaining_s: float | None
    connections: int
    files: tuple[FileProgress, ...]


@dataclass(frozen=True, slots=True)
class FileVerified(_Event):
    """A file is whole, and its hash is right."""

    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Checking(_Event):
    """A file that is here is compared with its hash."""

    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Retrying(_Event):
    """Something failed and will be tried again."""

    path: str
    reason: str
    delay_s: float


@dataclass(frozen=True, slots=True)
class Waiting(_Event):
    """Another pull of this model is running; this one waits for it."""

    repo: str


@dataclass(frozen=True, slots=True)
class Unlocked(_Event):
    """The disk of this models folder has no locks: another pull of the model is not noticed."""

    folder: str


@dataclass(frozen=True, slots=True)
class Converting(_Event):
    """The conversion has said something.

    Attributes:
        expected_bytes: What it will write, roughly.
    """

    line: str
    written_bytes: int
    expected_bytes: int


@dataclass(frozen=True, slots=True)
class Comparing(_Event):
    """A tier is served with the new revision, next to the one in use, and measured."""

    tier: str


@dataclass(frozen=True, slots=True)
class Copying(_Event):
    """How far the copy of a model to another Mac is, a few times a second.

    Attributes:
        host: The Mac, as `ssh` calls it.
        present_bytes: What is there, what an earlier copy left included.
    """

    host: str
    total_bytes: int
    present_bytes: int


type ModelEvent = (
    Planned
    | Progress
    | FileVerified
    | Checking
    | Retrying
    | Waiting
    | Unlocked
    | Converting
    | Comparing
    | Copying
)
