"""What the Hub says of a repository, through huggingface_hub: commit, gating, files with hashes.

huggingface_hub reads `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` and its other variables when it is
imported; `open_hub` imports it and takes them from there.
"""

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mlx_stack.errors import UsageError
from mlx_stack.models.disk.manifest import FileRecord, RemoteModel, is_safe_path
from mlx_stack.models.download.connection import is_web_address
from mlx_stack.models.download.hub_files import HubFiles, gated, retry_after_s
from mlx_stack.models.download.rates import pause_s
from mlx_stack.models.errors import HubUnreachableError, ModelNotFoundError, PullError

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub.hf_api import RepoFile

_SHA256 = re.compile(r"^[0-9a-f]{64}$")
_COMMIT = re.compile(r"^[0-9a-f]{40}$")
_DISABLED = "Access to this resource is disabled."  # what huggingface_hub goes by as well
_HOPEFUL = frozenset({408, 429, 500, 502, 503, 504})
_ATTEMPTS = 5
_PATIENCE_S = 30.0
_LONGEST_WAIT_S = 300.0


@dataclass(frozen=True, slots=True)
class Hub:
    """The Hub that the environment names.

    Attributes:
        endpoint: Its address, without a slash at the end.
        token: What proves who asks, or None.
        is_offline: Whether `HF_HUB_OFFLINE` rules every request out.
        cache: The folder of huggingface_hub's own cache of repositories.
        headers: What goes with every request.
        timeout_s: How long to wait for a connection, and for every byte.
    """

    endpoint: str
    token: str | None
    is_offline: bool
    cache: Path
    headers: dict[str, str]
    timeout_s: float

    def look_up(self, repo: str, revision: str = "main") -> RemoteModel:
        """The commit that `revision` of `repo` is now: one request.

        Raises:
            ModelNotFoundError: There is no such repository or revision.
            HubUnreachableError: The Hub doesn't answer.
        """
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.endpoint, token=self.token or False)

        def ask() -> RemoteModel:
            info = api.model_info(repo, revision=revision, timeout=self.timeout_s)
            if info.sha is None or _COMMIT.match(info.sha) is None:
                raise PullError(f"{self.endpoint} names no commit for {repo}: is it a model hub?")
            return RemoteModel(repo, info.sha, bool(info.gated))

        return self._asking(repo, revision, ask)

    def list_files(self, model: RemoteModel) -> tuple[FileRecord, ...]:
        """Every file of a commit once, with size and hash, in as many requests as pages.

        Raises:
            GatedModelError: There is no token, or it may not read it.
            HubUnreachableError: The Hub doesn't answer.
            PullError: The list makes no sense.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.hf_api import RepoFile

        if model.is_gated and self.token is None:
            raise gated(self.endpoint, model.repo)
        api = HfApi(endpoint=self.endpoint, token=self.token or False)

        def ask() -> tuple[FileRecord, ...]:
            tree = api.list_repo_tree(model.repo, recursive=True, revision=model.revision)
            files = (_record(entry) for entry in tree if isinstance(entry, RepoFile))
            return tuple({file.path: file for file in files}.values())

        files = self._asking(model.repo, model.revision, ask)
        unsafe = next((file.path for file in files if not is_safe_path(file.path)), None)
        if unsafe is not None:
            raise PullError(f"{model.repo} names a file outside its folder: {unsafe!r}.")
        return files

    def files(self, model: RemoteModel) -> HubFiles:
        """Where the bytes of a commit come from."""
        return HubFiles(self.endpoint, model.repo, model.revision, self.headers)

    def _asking[T](self, repo: str, revision: str, ask: Callable[[], T]) -> T:
        """The answer to a question, asked again while there is hope."""
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError

        began, failures = time.monotonic(), 0
        while True:
            try:
                return ask()
            except HfHubHTTPError as error:
                if error.response.status_code not in _HOPEFUL:
                    raise self._refusal(repo, revision, error.response) from error
                reason = f"the Hub answers HTTP {error.response.status_code}"
                wanted = retry_after_s(dict(error.response.headers), time.time())
                cause: Exception = error
            except httpx2.HTTPError as error:
                reason, wanted, cause = f"no answer from {self.endpoint}: {error}", None, error
            except (OSError, ValueError, KeyError, TypeError) as error:
                # what huggingface_hub makes of an answer that isn't the Hub's
                raise PullError(f"{self.endpoint} does not answer like a model hub.") from error
            failures += 1
            delay = max(pause_s(failures, random.random()), wanted or 0.0)  # noqa: S311
            is_late = failures >= _ATTEMPTS or time.monotonic() - began + delay > _PATIENCE_S
            if delay > _LONGEST_WAIT_S or (is_late and wanted is None) or failures > _ATTEMPTS:
                raise HubUnreachableError(
                    f"{repo}: {reason}.",
                    hint="Check the connection and HF_ENDPOINT, and pull again.",
                ) from cause
            time.sleep(delay)

    def _refusal(self, repo: str, revision: str, response: "httpx2.Response") -> PullError:
        """What an answer means that won't change by asking again."""
        code = response.headers.get("X-Error-Code", "")
        status = response.status_code
        said = response.headers.get("X-Error-Message")
        page = f"{self.endpoint}/{repo}"
        if said == _DISABLED:
            return PullError(f"{page}: the Hub has disabled this model.")
        if code == "GatedRepo" or (status == HTTPStatus.FORBIDDEN and not code):
            return gated(self.endpoint, repo, code, said)
        if code == "RevisionNotFound":
            return ModelNotFoundError(f"{repo} has no revision {revision!r}.")
        if status == HTTPStatus.UNAUTHORIZED and self.token is not None and not code:
            hint = (
                "Make a new one, then run `hf auth login` or set HF_TOKEN; public models need none."
            )
            return PullError(f"{self.endpoint} does not accept the token.", hint=hint)
        if status in {HTTPStatus.NOT_FOUND, HTTPStatus.UNAUTHORIZED}:
            hint = "Check the spelling; for a private model set HF_TOKEN or run `hf auth login`."
            return ModelNotFoundError(f"There is no model {repo} on {self.endpoint}.", hint=hint)
        return PullError(f"{page}: the Hub answers HTTP {status}.", hint=said)


def open_hub(*, timeout_s: float | None = None) -> Hub:
    """The Hub as the environment describes it. Asks nothing yet.

    Raises:
        UsageError: The environment describes none.
    """
    try:
        import huggingface_hub
        from huggingface_hub import constants
        from huggingface_hub.utils import (
            build_hf_headers,  # pyright: ignore[reportUnknownVariableType] - a bare `dict` in it
        )
    except ValueError as error:  # it reads its variables when it is imported
        raise UsageError(f"A variable HF_… of the environment is not valid: {error}.") from error

    from mlx_stack import __version__

    # no request for the sake of telemetry: a pull asks what it needs to know and nothing else
    constants.HF_HUB_DISABLE_TELEMETRY = True
    limit_s = float(constants.HF_HUB_DOWNLOAD_TIMEOUT) if timeout_s is None else timeout_s
    _limit_every_wait(limit_s)
    if not is_web_address(constants.ENDPOINT):
        raise UsageError(
            f"HF_ENDPOINT is no web address: {constants.ENDPOINT!r}.",
            hint="Unset it, or set it to one like https://huggingface.co.",
        )
    token = huggingface_hub.get_token()
    if token is not None and not token.isascii():
        raise UsageError("The token (HF_TOKEN) holds characters that no token has.")
    headers: dict[str, str] = build_hf_headers(  # pyright: ignore[reportUnknownVariableType]
        token=token or False, library_name="mlx-stack", library_version=__version__
    )
    return Hub(
        endpoint=constants.ENDPOINT.rstrip("/"),
        token=token,
        is_offline=huggingface_hub.is_offline_mode(),
        cache=Path(constants.HF_HUB_CACHE),
        headers=headers,
        timeout_s=limit_s,
    )


def _limit_every_wait(limit_s: float) -> None:
    """Give huggingface_hub's requests a time limit: it lists trees without any."""
    import huggingface_hub

    def limit(request: "httpx2.Request") -> None:
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), limit_s)

    session = huggingface_hub.get_session()
    hooks = session.event_hooks
    session.event_hooks = {**hooks, "request": [*hooks["request"], limit]}


def _record(entry: "RepoFile") -> FileRecord:
    """What the Hub says of a file.

    Raises:
        ValueError: It makes no sense.
        PullError: There is no hash.
    """
    if entry.lfs is None:
        algorithm, digest, size = "git-sha1", entry.blob_id, entry.size
    elif _SHA256.match(entry.lfs.sha256) is not None:
        algorithm, digest, size = "sha256", entry.lfs.sha256, entry.lfs.size
    else:
        raise PullError(f"The Hub gives no hash for {entry.path}.")
    fields = {"path": entry.path, "size_bytes": size, "algorithm": algorithm, "digest": digest}
    return msgspec.convert(fields, FileRecord)
