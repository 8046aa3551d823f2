"""What the page reads: the same documents as the commands print with `--json`."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus

from mlx_gateway.keys import Priority
from mlx_gateway.requests import RequestFilter, read_request, read_requests
from mlx_gateway.usage import By, parse_since
from mlx_stack import gateway, models, planning, services
from mlx_stack.errors import UsageError
from mlx_stack.page.answer import Header, JsonDocument, RefusedError, encode
from mlx_stack.page.command import run_command
from mlx_stack.page.folder import HomeFiles, stamp

_MOST_LINES = 5_000

type EncodedAnswer = tuple[bytes, list[Header]]
type Query = Mapping[str, str]


class Documents:
    """Reads them, two at a time at the most, so that requests for models are not held up."""

    def __init__(self, folder: HomeFiles) -> None:
        self._folder = folder
        self._room = asyncio.Semaphore(2)
        self._makers: dict[tuple[str, ...], Callable[[Query], JsonDocument]] = {
            ("status",): lambda _: services.status.read_status(
                folder.opened(), hardware=folder.hardware()
            ).to_document(),
            ("usage",): self._usage,
            ("predictions",): lambda _: self._predictions(),
            ("models",): lambda _: models.local.list_models(folder.opened()).to_document(),
            ("models", "catalog"): lambda _: planning.listings.list_catalog(
                folder.opened(), planning.listings.ModelFilter()
            ).to_document(),
            ("keys",): lambda _: gateway.keys.list_keys(folder.home).to_document(),
            ("logs",): lambda _: services.logs.find_logs(folder.opened()).to_document(),
            ("requests",): self._requests,
        }

    async def read(self, parts: tuple[str, ...], query: Query) -> EncodedAnswer:
        """The document of that name.

        Raises:
            RefusedError: When there is none.
        """
        if parts in self._makers:
            return encode(await self._make(lambda: self._makers[parts](query))), []
        match parts:
            case ("models", "hub"):
                asked = f"--available={query.get('query', '')}"
                return encode(await self._command("models", "--json", asked)), []
            case ("doctor",):
                return encode(await self._command("doctor", "--json")), []
            case ("autostart",):
                return encode(await self._command("install", "--status", "--json")), []
            case ("logs", name):
                return await self._log(name, query)
            case ("requests", number):
                return encode(await self._make(lambda: self._request(number))), []
            case _:
                raise RefusedError(HTTPStatus.NOT_FOUND, "There is nothing with that name.")

    async def add_key(self, values: Query) -> JsonDocument:
        """A new client's key, which is shown this once.

        Raises:
            UsageError: When it can't be made so.
        """
        most = _number(values.get("max_in_flight", ""))
        is_number = most is not None or not values.get("max_in_flight")
        if not is_number or values.get("priority", "batch") not in Priority:
            raise UsageError("A priority or a number is invalid.")
        return await self._make(
            lambda: gateway.keys.add_key(
                self._folder.opened(),
                values.get("name", ""),
                tiers=values.get("tiers") or None,
                priority=Priority(values.get("priority", Priority.INTERACTIVE)),
                max_in_flight=most,
            ).to_document()
        )

    async def revoke_key(self, name: str) -> JsonDocument:
        """Let a client's key open nothing any more.

        Raises:
            UsageError: When there is no such client.
        """
        return await self._make(
            lambda: gateway.keys.revoke_key(self._folder.home, name).to_document()
        )

    async def _make(self, make: Callable[[], JsonDocument]) -> JsonDocument:
        async with self._room:
            return await asyncio.to_thread(make)

    async def _command(self, *arguments: str) -> JsonDocument:
        async with self._room:
            return await run_command(self._folder.home, *arguments)

    def _predictions(self) -> JsonDocument:
        from mlx_stack import usage  # noqa: PLC0415 - it brings what estimates speeds

        return usage.predict_tiers(self._folder.opened()).to_document()

    def _usage(self, query: Query) -> JsonDocument:
        from mlx_stack import usage  # noqa: PLC0415 - it brings what estimates speeds

        by = query.get("by", By.MODEL)
        if by not in By:
            raise UsageError(f"Requests can't be grouped by {by!r}.")
        since = query.get("since", "7d")
        return usage.report_usage(self._folder.opened(), since=since, by=By(by)).to_document()

    def _requests(self, query: Query) -> JsonDocument:
        failed = {"yes": True, "no": False}.get(query.get("failed", ""))
        since = None
        if query.get("since"):
            with suppress(ValueError):
                since = parse_since(query["since"], time.time())
        wanted = RequestFilter(
            key=query.get("key") or None,
            tier=query.get("tier") or None,
            model=query.get("model") or None,
            program=query.get("program") or None,
            failed=failed,
            since=since,
            before=_number(query.get("before", "")),
        )
        limit = _number(query.get("limit", "")) or 100
        found = read_requests(self._folder.home.ledger, wanted, limit=limit)
        return {"requests": [each.to_document() for each in found]}

    def _request(self, number: str) -> JsonDocument:
        found = read_request(self._folder.home.ledger, _number(number) or 0)
        if found is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "The ledger has no such request.")
        return found.to_document()

    async def _log(self, name: str, query: Query) -> EncodedAnswer:
        """The end of a log; its tag stays as long as nothing is added to it."""
        tail = min(_number(query.get("tail", "")) or 500, _MOST_LINES)

        def read() -> tuple[JsonDocument, object]:
            log = services.logs.read_log(self._folder.opened(), name, tail=tail)
            before = stamp(log.path)
            return log.to_document(), before

        async with self._room:
            document, before = await asyncio.to_thread(read)
        tag = f'"{hash((before, tail)) & 0xFFFFFFFFFFFF:x}"'.encode()
        return encode(document), [(b"etag", tag)]


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None
