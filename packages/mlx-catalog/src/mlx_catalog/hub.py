"""A model hub's answers: which MLX models there are, and what one is without its weights.

Speaks the Hugging Face Hub's HTTP API (https://huggingface.co/docs/hub/api). Needs the `hub`
extra. Nothing is cached or written; endpoint and token are the caller's.
"""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self, cast
from urllib.parse import quote

import httpx
import msgspec

from mlx_catalog.errors import (
    CatalogError,
    GatedRepoError,
    HubError,
    HubUnreachableError,
    RepoNotFoundError,
)
from mlx_catalog.geometry import ModelReading, describe, parse_config
from mlx_catalog.safetensors import dtype_bits, weight_files

DEFAULT_ENDPOINT = "https://huggingface.co"
_FIELDS = ("author", "downloads", "likes", "gated", "lastModified", "safetensors", "tags")
_PARALLEL_READS = 8

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

    Every method raises `HubUnreachableError` where there is no connection, `RepoNotFoundError`
    and `GatedRepoError` for the repository's sake, and `HubError` for any other unusable answer.
    """

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        token: str | None = None,
        *,
        timeout_s: float = 10.0,
        user_agent: str = "mlx-catalog",
    ) -> None:
        headers = {"user-agent": user_agent}
        if token:
            headers["authorization"] = f"Bearer {token}"
        self.endpoint: str = endpoint.rstrip("/")
        self._client = httpx.Client(headers=headers, timeout=timeout_s, follow_redirects=True)

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
        """Closes the connection."""
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
            raise HubError(self.endpoint, "the listing of models is no list")
        return tuple(_listed(row) for row in _objects(cast("object", found)))[:limit]

    def read(self, repo: str, revision: str = "main") -> RepoReading:
        """What the repository `repo` says of itself: its files' sizes and its `config.json`."""
        path = quote(repo, safe="/")
        info = _object(
            self._json(f"{self.endpoint}/api/models/{path}/revision/{quote(revision, safe='')}")
        )
        sha = str(info.get("sha") or revision)
        sizes = dict(self._tree(f"{self.endpoint}/api/models/{path}/tree/{sha}?recursive=true"))
        weights = sum(sizes[name] for name in weight_files(sizes))
        if "config.json" not in sizes:
            raise HubError(self.endpoint, f"{repo} has no config.json: it is no model to serve")
        raw = self._get(f"{self.endpoint}/{path}/resolve/{sha}/config.json").content
        config = parse_config(raw, f"config.json of {repo}")
        return RepoReading(
            repo=repo,
            revision=sha,
            gated=bool(info.get("gated")),
            download_bytes=sum(sizes.values()),
            weights_bytes=weights,
            config=config,
            model=describe(repo, config, None, weights_bytes=weights or None),
        )

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

    def _tree(self, url: str) -> Iterator[tuple[str, int]]:
        while url:
            response = self._get(url)
            for entry in _objects(_decoded(self.endpoint, response)):
                size = entry.get("size")
                if entry.get("type") == "file" and isinstance(size, int):
                    yield str(entry.get("path")), size
            url = response.links.get("next", {}).get("url", "")

    def _json(self, url: str, params: _Params | None = None) -> object:
        return _decoded(self.endpoint, self._get(url, params))

    def _get(self, url: str, params: _Params | None = None) -> httpx.Response:
        try:
            response = self._client.get(url, params=params)
        except httpx.TimeoutException as error:
            raise HubUnreachableError(self.endpoint, "no answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise HubUnreachableError(self.endpoint, str(error) or type(error).__name__) from error
        if response.is_success:
            return response
        raise self._refusal(response)

    def _refusal(self, response: httpx.Response) -> HubError:
        code = response.headers.get("x-error-code", "")
        said = response.headers.get("x-error-message", "")
        path = response.request.url.path
        if code == "GatedRepo":
            return GatedRepoError(
                self.endpoint, said or f"{path} is for those who accepted its licence"
            )
        # The hub hides private and missing repositories alike behind 401 from whoever has no token.
        if code == "RepoNotFound" or (response.status_code in (401, 404) and not code):
            return RepoNotFoundError(self.endpoint, f"no such repository: {path}")
        return HubError(self.endpoint, f"HTTP {response.status_code} for {path} {said}".strip())


def _decoded(endpoint: str, response: httpx.Response) -> object:
    try:
        return msgspec.json.decode(response.content)
    except msgspec.DecodeError as error:
        raise HubError(endpoint, f"no JSON at {response.request.url.path}: {error}") from error


def _object(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def _objects(value: object) -> Iterator[Mapping[str, object]]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return (_object(item) for item in items)


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
