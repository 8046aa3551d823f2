"""What a user's name for a model means: one grammar for every command (decision 0057). Pure."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlx_stack.errors import UsageError

DEFAULT_ENDPOINT = "https://huggingface.co"
_HUB_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
_NOT_OWNERS = frozenset({"api", "collections", "datasets", "docs", "models", "papers", "spaces"})
_WITH_REVISION = frozenset({"blob", "commit", "commits", "raw", "resolve", "tree"})
_PART = r"\w(?:[\w.-]*\w)?"
_REPO = re.compile(rf"{_PART}/{_PART}", re.ASCII)
_CACHED = re.compile(r"models--(.+?)--(.+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class CatalogName:
    """A word: an id or alias of the catalog, or whatever else this machine calls so."""

    name: str


@dataclass(frozen=True, slots=True)
class HubRepo:
    """A repository of the Hub.

    Attributes:
        repo: `owner/name`.
        revision: The branch, tag or commit that was named; None where none was.
    """

    repo: str
    revision: str | None = None

    @property
    def commit(self) -> str | None:
        """The commit, where one was named; what else a revision says may move."""
        return self.revision if self.revision and _COMMIT.fullmatch(self.revision) else None


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder on this disk, or the `config.json` in one.

    Attributes:
        path: As it was written, `~` included.
    """

    path: Path


def parse(text: str, endpoint: str = DEFAULT_ENDPOINT) -> CatalogName | HubRepo | Folder:
    """What a name means by its form alone.

    Args:
        text: What the user typed: a word, `owner/name`, `owner/name@revision`, a web address on
            the Hub or on `endpoint`, or a path. A path starts with `/`, `.` or `~`, ends with
            `config.json`, or has more than one slash.
        endpoint: The address of the hub in use.

    Raises:
        UsageError: When it is a web address, but none of a model.
    """
    text = text.strip()
    on_hub = _path_on_hub(text, endpoint)
    if on_hub is not None:
        return _of_address(text, on_hub)
    if "://" in text:
        raise _no_model(text)
    if text.startswith(("/", "./", "../", "~")) or text in (".", ".."):
        return Folder(Path(text))
    cached = _CACHED.fullmatch(text)
    if cached is not None:
        text = f"{cached[1]}/{cached[2]}"
    text = text.removesuffix("/")
    name, at, revision = text.partition("@")
    if Path(text).name != "config.json" and is_repo_id(name) and (revision or not at):
        return HubRepo(name, revision or None)
    return Folder(Path(text)) if "/" in text or text == "config.json" else CatalogName(text)


def is_repo_id(name: str) -> bool:
    """Whether `name` has the form of a Hub repository, `owner/name`."""
    return _REPO.fullmatch(name) is not None and ".." not in name and "--" not in name


def is_on_hub(text: str, endpoint: str) -> bool:
    """Whether `text` is a web address on the Hub, or on the hub in use."""
    return _path_on_hub(text.strip(), endpoint) is not None


def _path_on_hub(text: str, endpoint: str) -> str | None:
    """The part of an address behind the hub's own; None for what is none of its addresses."""
    scheme, separator, _ = text.partition("://")
    address = text if separator else f"https://{text}"
    if separator and scheme.lower() not in ("http", "https"):
        return None
    try:
        parts, own = urlsplit(address), urlsplit(endpoint)
        is_own = (parts.hostname, parts.port) == (own.hostname, own.port)
    except ValueError:
        return None
    if not is_own:
        return parts.path if parts.hostname in _HUB_HOSTS else None
    prefix = own.path.rstrip("/")
    return parts.path.removeprefix(prefix) if parts.path.startswith(prefix) else None


def _of_address(text: str, path: str) -> HubRepo:
    parts = [unquote(part) for part in path.strip("/").split("/")]
    owner, name, kind, *rest = (*parts, "", "", "")[: max(len(parts), 3)]
    name, _, revision = name.partition("@")
    repo = f"{owner}/{name.removesuffix('.git')}"
    if owner in _NOT_OWNERS or not is_repo_id(repo):
        raise _no_model(text)
    if kind in _WITH_REVISION and rest and rest[0]:
        # `refs/pr/1` and `refs/convert/parquet` are written with slashes too
        revision = "/".join(rest[:3]) if rest[0] == "refs" else rest[0]
    return HubRepo(repo, revision or None)


def _no_model(text: str) -> UsageError:
    return UsageError(
        f"{text} isn't the address of a model.",
        hint=f"One looks like {DEFAULT_ENDPOINT}/OWNER/NAME; HF_ENDPOINT names another hub.",
    )
