"""What a user's name for a model means: which repository, at which precision. Decides only."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from mlx_stack.errors import UsageError
from mlx_stack.models.disk.layout import is_repo_id
from mlx_stack.models.disk.manifest import Quant

if TYPE_CHECKING:
    from mlx_catalog import Catalog

_COMMIT = re.compile(r"^[0-9a-f]{40}$")
_WEB_PARTS = 3  # /owner/name/tree/REVISION
_REVISION = re.compile(r"^(?P<repo>[^@]+)@(?P<revision>[^@\s]+)$")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from.

    Attributes:
        repo: The Hub repository to download.
        revision: Its branch, tag or commit.
        quant: The precision that was asked for; None takes what the repository holds.
        is_converted: Whether the repository's weights must be converted to `quant`.
        model: The catalog id, or None for a repository that was named itself.
        note: What to tell the user about the name; "" if there is nothing to say.
    """

    repo: str
    revision: str
    quant: Quant | None
    is_converted: bool
    model: str | None
    note: str

    @property
    def commit(self) -> str | None:
        """The commit, where the name pins one; what else it says may move."""
        return self.revision if _COMMIT.match(self.revision) else None


def parse_repo(name: str, quant: Quant | None) -> ModelSource | None:
    """The source that `owner/name`, `owner/name@revision` or its web address names; else None."""
    text = name.strip()
    if text.startswith(("https://", "http://")):
        parts = [unquote(part) for part in urlsplit(text).path.strip("/").split("/")]
        text = "/".join(parts[:2])
        if len(parts) > _WEB_PARTS and parts[2] in {"tree", "blob"}:
            text += f"@{parts[3]}"
    found = _REVISION.match(text)
    repo, revision = (found["repo"], found["revision"]) if found else (text, "main")
    if not is_repo_id(repo):
        return None
    return ModelSource(repo, revision, quant, is_converted=False, model=None, note="")


def find_in_catalog(
    catalog: "Catalog", name: str, quant: Quant | None, default_quant: Quant
) -> ModelSource:
    """The source that the catalog gives for an id or alias.

    Args:
        catalog: The entries.
        name: What the user typed.
        quant: What `--quant` asked for, or None.
        default_quant: What is taken without it.

    Raises:
        UnknownModelError: No entry answers to the name.
        UsageError: The entry has no source of that precision.
    """
    resolution = catalog.resolve(name)
    entry = resolution.entry
    wanted = quant or default_quant
    source = entry.sources.get(wanted)
    if source is None or (source.hf_repo is None and source.convert_from is None):
        known = [each for each, _ in entry.sources.items()]
        hint = f"There is {', '.join(known)}: `--quant {known[0]}`." if known else None
        raise UsageError(f"No {wanted} weights of {entry.id} are known.", hint=hint)
    repo = source.hf_repo or source.convert_from
    assert repo is not None
    # 16-bit weights are served as they were published: there is nothing to convert
    is_converted = source.hf_repo is None and wanted != "bf16"
    return ModelSource(repo, "main", wanted, is_converted, entry.id, resolution.note)
