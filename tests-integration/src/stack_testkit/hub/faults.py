"""What can go wrong on the way, as data: how the hub behaves, and what it does to which request."""

import fnmatch
import threading
from collections.abc import Iterable
from typing import Literal

import msgspec

type Kind = Literal[
    "status", "cut", "stall", "slow", "wrong-size", "wrong-hash", "expired", "endless"
]


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that goes wrong.

    Attributes:
        kind: `status` answers with `status`; `cut` closes the connection after `after_bytes` of
            the body; `stall` goes silent there; `slow` sends at `rate_bytes_s`; `wrong-size`
            announces one byte more; `wrong-hash` flips a bit; `expired` refuses a signed address;
            `endless` announces a body with a redirect and never sends it.
        path: Which files (or API paths), as a shell pattern.
        times: How often; None always.
        skip: How many matching requests are left alone first.
        after_bytes: Where in the body it happens.
        status: The status of `status`.
        retry_after: The header of that name, in seconds or as a date.
        rate_bytes_s: The rate of `slow`.
        message: The header `X-Error-Message` of `status`.
    """

    kind: Kind
    path: str = "*"
    times: int | None = None
    skip: int = 0
    after_bytes: int = 0
    status: int = 503
    retry_after: str | None = None
    rate_bytes_s: int = 1000
    message: str | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the hub behaves.

    Attributes:
        faults: What goes wrong; the first that matches a request happens to it.
        page_size: Entries on one page of a tree.
        lfs_from_bytes: Files of this size and more are LFS files, kept on the other origin.
        latency_s: Before every answer.
        rate_bytes_s: What one connection carries at most; None for no limit.
        ignores_ranges: Whether a range request gets the whole file.
        quotes_badly: Whether the addresses of LFS files hold spaces and such as they are.
        keeps_alive: Whether a connection takes another request after an answer.
        offers_xet: Whether LFS files can be had from Xet storage as well.
        gated: As in the model's record: False, or how access is granted.
        gated_path: Of which paths that is so, as a shell pattern.
        token: The token that may read gated repositories.
    """

    faults: tuple[Fault, ...] = ()
    page_size: int = 1000
    lfs_from_bytes: int = 100_000
    latency_s: float = 0.0
    rate_bytes_s: int | None = None
    ignores_ranges: bool = False
    quotes_badly: bool = False
    keeps_alive: bool = True
    offers_xet: bool = False
    gated: Literal[False, "auto", "manual"] = False
    gated_path: str = "*"
    token: str = "hf_right"

    def gate_of(self, path: str) -> Literal[False, "auto", "manual"]:
        """How access to a path's repository is granted; False where it is open."""
        return self.gated if fnmatch.fnmatch(path, self.gated_path) else False


class Faults:
    """The faults of some settings, counted as they happen; used by many threads."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._faults = list(faults)
        self._seen = [0] * len(self._faults)
        self._lock = threading.Lock()

    def next(self, path: str, kinds: frozenset[str]) -> Fault | None:
        """What happens to a request of `path`, among these kinds; None lets it pass."""
        with self._lock:
            for number, fault in enumerate(self._faults):
                if fault.kind not in kinds or not fnmatch.fnmatchcase(path, fault.path):
                    continue
                last = None if fault.times is None else fault.skip + fault.times
                if last is not None and self._seen[number] >= last:
                    continue
                self._seen[number] += 1
                if self._seen[number] > fault.skip:
                    return fault
        return None
