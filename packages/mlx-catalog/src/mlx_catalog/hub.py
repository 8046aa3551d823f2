"""A model hub's answers: which MLX models there are, and what one is without its weights.

Speaks the Hugging Face Hub's HTTP API (https://huggingface.co/docs/hub/api). Needs the `hub`
extra. Nothing is cached or written; endpoint, token and HTTP client are the caller's
(decision 0039).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Literal, Self, cast
from urllib.parse import quote

import httpx
import msgspec

from mlx_catalog.errors import (
    CatalogError,
    GatedRepoError,
    HubConnectionError,
    HubError,
    RepoNotFoundError,
    RevisionNotFoundError,
    TokenRefusedError,
)
from mlx_catalog.model_files import ModelReading, describe, parse_config
from mlx_catalog.safetensors import dtype_bits, weight_files

DEFAULT_ENDPOINT = "https://huggingface.co"
_FIELDS = ("author", "downloads", "likes", "gated", "lastModified", "safetensors", "tags")
_PARALLEL_READS = 8
MAX_ANSWER_BYTES = 16_000_000
"""No list of files and no `config.json` comes near; anybody may publish a larger one."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DISABLED = "Access to this resource is disabled."  # what huggingface_hub goes by as well

type _Params = tuple[tuple[str, str | int | float | bool | None], ...]


@dataclass(frozen=True, slots=True)
class HubModel:
    """One repository of a listing. `weights_bytes` is None where the hub doesn't say."""

    repo: str
    downloads: int | None
    likes: int | None
    gated: bool | None
    last_modified: str
    tags: tuple[str, ...]
    weights_bytes: int | None


@dataclass(frozen=True, slots=True)
class HubCommit:
    """One commit of a repository.

    Attributes:
        repo: `owner/name`, as it was asked for.
        commit: Forty hexadecimal digits.
        is_gated: Whether its licence must be accepted before its files can be read.
    """

    repo: str
    commit: str
    is_gated: bool


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a commit.

    Attributes:
        algorithm: What `digest` is: SHA-256 of the content, or git's name of the blob.
        digest: As the hub gives it; "" where it gives none.
    """

    path: str
    size_bytes: int
    algorithm: Literal["sha256", "git-sha1"]
    digest: str


@dataclass(frozen=True, slots=True)
class RepoReading:
    """One repository without its weights.

    `config` is its `config.json`, for whoever wants more than `model` says.
    """

    repo: str
    revision: str
    gated: bool
    download_bytes: int
    weights_bytes: int
    config: Mapping[str, object]
    model: ModelReading


class Hub:
    """A connection to a hub; close it, or use it in a `with` statement.

    Every method raises `HubConnectionError` where there is no connection, `RepoNotFoundError`,
    `RevisionNotFoundError` and `GatedRepoError` for the repository's sake, `TokenRefusedError` for
    the token's, and `HubError` for any other unusable answer.
    """

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        token: str | None = None,
        *,
        client: httpx.Client | None = None,
    ) -> None:
        """A hub at `endpoint`.

        Args:
            token: What proves who asks; sent to the endpoint's own origin only.
            client: What requests go through; it stays open when the hub is closed.
        """
        self.endpoint: str = endpoint.rstrip("/")
        self._token = token
        self._is_owner = client is None
        self._client = client or httpx.Client(headers={"user-agent": "mlx-catalog"}, timeout=10.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection, where it is the hub's own."""
        if self._is_owner:
            self._client.close()

    def search(self, query: str = "", *, limit: int = 20) -> tuple[HubModel, ...]:
        """The MLX models that match `query`, most downloaded first."""
        params: _Params = (
            ("filter", "mlx"),
            ("sort", "downloads"),
            ("direction", -1),
            ("limit", limit),
            *(("expand", name) for name in _FIELDS),
            *((("search", query),) if query else ()),
        )
        found = self._json(f"{self.endpoint}/api/models", params)
        if not isinstance(found, list):
            raise HubError(self.endpoint, "the listing of models isn't a list")
        return tuple(_listed(row) for row in _objects(cast("object", found)))[:limit]

    def look_up(self, repo: str, revision: str = "main") -> HubCommit:
        """The commit that a branch, tag or commit of a repository is now: one request."""
        url = f"{self._api_of(repo)}/revision/{quote(revision, safe='')}"
        info = _object(self._json(url))
        commit = info.get("sha")
        if not isinstance(commit, str) or _COMMIT.fullmatch(commit) is None:
            raise HubError(self.endpoint, f"it names no commit for {repo}: is it a model hub?")
        return HubCommit(repo, commit, bool(info.get("gated")))

    def list_files(self, commit: HubCommit) -> tuple[HubFile, ...]:
        """Every file of a commit once, in as many requests as the list has pages."""
        url = f"{self._api_of(commit.repo)}/tree/{commit.commit}?recursive=true"
        files: dict[str, HubFile] = {}
        seen: set[str] = set()
        while url and url not in seen:
            seen.add(url)
            response, content = self._get(url)
            for entry in _objects(_decoded(self.endpoint, response, content)):
                if entry.get("type") != "file":
                    continue
                file = _listed_file(entry)
                if file is None:
                    raise HubError(self.endpoint, f"the list of files of {commit.repo} is damaged")
                files[file.path] = file
            following = response.links.get("next", {}).get("url")
            url = str(response.url.join(following)) if following else ""
        return tuple(files.values())

    def read(self, repo: str, revision: str = "main") -> RepoReading:
        """What the repository `repo` says of itself: its files' sizes and its `config.json`."""
        commit = self.look_up(repo, revision)
        sizes = {file.path: file.size_bytes for file in self.list_files(commit)}
        weights = sum(sizes[name] for name in weight_files(sizes))
        if "config.json" not in sizes:
            raise HubError(
                self.endpoint, f"{repo} has no config.json: it isn't a model that can be served"
            )
        if sizes["config.json"] > MAX_ANSWER_BYTES:
            raise HubError(self.endpoint, f"config.json of {repo} is too large to describe a model")
        config = parse_config(self.read_config(commit), f"config.json of {repo}")
        return RepoReading(
            repo=repo,
            revision=commit.commit,
            gated=commit.is_gated,
            download_bytes=sum(sizes.values()),
            weights_bytes=weights,
            config=config,
            model=describe(repo, config, files=sizes, file_bytes=weights or None),
        )

    def read_config(self, commit: HubCommit) -> bytes:
        """The content of a commit's `config.json`."""
        repo = quote(commit.repo, safe="/")
        return self._get(f"{self.endpoint}/{repo}/resolve/{commit.commit}/config.json")[1]

    def read_many(self, repos: Iterable[str]) -> dict[str, RepoReading | CatalogError]:
        """`read` for each of `repos`, several at once; a repository's error is its value."""

        def attempt(repo: str) -> RepoReading | CatalogError:
            try:
                return self.read(repo)
            except CatalogError as error:
                return error

        names = tuple(dict.fromkeys(repos))
        with ThreadPoolExecutor(max_workers=_PARALLEL_READS) as pool:
            return dict(zip(names, pool.map(attempt, names), strict=True))

    def _api_of(self, repo: str) -> str:
        return f"{self.endpoint}/api/models/{quote(repo, safe='/')}"

    def _json(self, url: str, params: _Params | None = None) -> object:
        return _decoded(self.endpoint, *self._get(url, params))

    def _get(self, url: str, params: _Params | None = None) -> tuple[httpx.Response, bytes]:
        """An answer, and its content."""
        try:
            headers = self._authorization(httpx.URL(url))
            with self._client.stream(
                "GET", url, params=params, headers=headers, follow_redirects=True
            ) as response:
                content = self._content(response) if response.is_success else b""
        except httpx.TimeoutException as error:
            raise HubConnectionError(self.endpoint, "no answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise HubConnectionError(self.endpoint, str(error) or type(error).__name__) from error
        if response.is_success:
            return response, content
        raise self._refusal(response)

    def _content(self, response: httpx.Response) -> bytes:
        content = bytearray()
        for piece in response.iter_bytes():
            content += piece
            if len(content) > MAX_ANSWER_BYTES:
                path = response.request.url.path
                raise HubError(self.endpoint, f"the answer for {path} is larger than 16 MB")
        return bytes(content)

    def _authorization(self, url: httpx.URL) -> dict[str, str]:
        """The token's header; a list's next page may be anywhere. httpx heeds redirects."""
        own = httpx.URL(self.endpoint)
        is_own = (url.scheme, url.host, url.port) == (own.scheme, own.host, own.port)
        return {"authorization": f"Bearer {self._token}"} if self._token and is_own else {}

    def _refusal(self, response: httpx.Response) -> HubError:
        code = response.headers.get("x-error-code", "")
        said = response.headers.get("x-error-message", "")
        status, path = response.status_code, response.request.url.path
        kind, reason = HubError, f"HTTP {status} for {path} {said}".strip()
        if said == _DISABLED:
            reason = f"the hub has disabled {path}"
        elif code == "GatedRepo":
            kind, reason = (
                GatedRepoError,
                said or f"{path} is only available after accepting its licence",
            )
        elif code == "RevisionNotFound":
            kind, reason = RevisionNotFoundError, f"no such revision: {path}"
        elif status == HTTPStatus.UNAUTHORIZED and self._token and not code:
            kind, reason = TokenRefusedError, "the token is not accepted"
        # The hub hides private and missing repositories alike behind 401 from whoever has no token.
        elif code == "RepoNotFound" or (status in (401, 404) and not code):
            kind, reason = RepoNotFoundError, f"no such repository: {path}"
        return kind(self.endpoint, reason, status=status, said=said)


def _decoded(endpoint: str, response: httpx.Response, content: bytes) -> object:
    try:
        return msgspec.json.decode(content)
    except (ValueError, RecursionError) as error:
        raise HubError(endpoint, f"no JSON at {response.request.url.path}: {error}") from error


def _object(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def _objects(value: object) -> Iterator[Mapping[str, object]]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return (_object(item) for item in items)


def _listed_file(entry: Mapping[str, object]) -> HubFile | None:
    """One file of a list; None where it has no name or no size."""
    lfs = _object(entry.get("lfs"))
    path, size = entry.get("path"), _whole(lfs.get("size", entry.get("size")))
    if not isinstance(path, str) or size is None or size < 0:
        return None
    if lfs:
        return HubFile(path, size, "sha256", str(lfs.get("oid") or lfs.get("sha256") or ""))
    return HubFile(path, size, "git-sha1", str(entry.get("oid") or ""))


def _listed(row: Mapping[str, object]) -> HubModel:
    tags = row.get("tags")
    gated = row.get("gated")
    return HubModel(
        repo=str(row.get("id") or row.get("modelId")),
        downloads=_whole(row.get("downloads")),
        likes=_whole(row.get("likes")),
        gated=None if gated is None else bool(gated),
        last_modified=str(row.get("lastModified") or ""),
        tags=tuple(str(tag) for tag in cast("list[object]", tags))
        if isinstance(tags, list)
        else (),
        weights_bytes=_listed_bytes(row.get("safetensors")),
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _listed_bytes(safetensors: object) -> int | None:
    """Bytes from the hub's count of stored values by dtype, which counts packed words as words."""
    counts = _object(_object(safetensors).get("parameters"))
    total = 0
    for dtype, count in counts.items():
        bits = dtype_bits(dtype)
        if bits is None or not isinstance(count, int):
            return None
        total += count * bits // 8
    return total or None
