"""What a benchmark of a role sends and counts.

A further role is a module with a `RoleWorkload`, and a row in `roles.known`.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from mlx_bench.errors import ParametersError
from mlx_bench.metrics import Count
from mlx_bench.request import PlainRequest
from mlx_bench.workload import PromptMaker, new_seed

REAL_TIME = "x real time"
"""The unit of the real-time factor: seconds of sound per second of work."""


class RoleLoad(msgspec.Struct, frozen=True, kw_only=True):
    """The load under which requests of a role are compared.

    Attributes:
        items: So many texts, documents, images or sounds in a request.
        size: Of each, in the unit of its role.
        concurrency: Requests at once.
    """

    items: Count
    size: Count
    concurrency: Count = 1


@dataclass(frozen=True, slots=True)
class RoleAnswer:
    """What an answer comes to.

    Attributes:
        amount: What was done, in the unit that the role's rate is of a second.
        tokens: How many tokens the server read, by its own count; None where it doesn't say.
    """

    amount: float
    tokens: int | None = None


@dataclass(slots=True)
class FreshMaterial:
    """Texts and randomness that no request was made of before, the same for the same seed."""

    prompts: PromptMaker
    seed: int
    made: int = 0

    def text(self, tokens: int) -> str:
        """A text of so many tokens, as exactly as the server's count allows."""
        self.made += 1
        return self.prompts.make(tokens, seed=self.seed, index=self.made)

    def texts(self, load: RoleLoad) -> list[str]:
        """As many texts as a request at a load holds."""
        return [self.text(load.size) for _ in range(load.items)]

    def draw(self) -> random.Random:
        """Randomness for whatever isn't a text."""
        self.made += 1
        return random.Random(f"{self.seed}/{self.made}")  # noqa: S311 - reproducible, no secret


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleWorkload:
    """How a role is measured.

    Attributes:
        role: Its name.
        unit: Of the rate, as `texts/s`.
        item: One of what a request holds, and several, in words.
        size_unit: Of their size, as `tokens`.
        items: The numbers of items that are measured unless others are asked for.
        sizes: Likewise.
        make: The request to a model of that name at a load.
        read: What the answer to a request at a load comes to; ValueError says in words why it is
            none.
        probe: The request whose answer counts a text's tokens; None where sizes aren't tokens.
        most_items: As many as a request takes; None where any number goes.
        largest_size: Of an item; None where any size goes.
        streams: Whether the answer comes while it is made, so that its first byte has a time.
    """

    role: str
    unit: str
    item: tuple[str, str]
    size_unit: str
    items: tuple[int, ...]
    sizes: tuple[int, ...]
    make: Callable[[str, RoleLoad, FreshMaterial], PlainRequest]
    read: Callable[[bytes, RoleLoad], RoleAnswer]
    probe: Callable[[str, str], PlainRequest] | None = None
    most_items: int | None = None
    largest_size: int | None = None
    streams: bool = False

    def require(self, items: Sequence[int], sizes: Sequence[int]) -> None:
        """Refuse requests that no server takes.

        Raises:
            ParametersError: They hold too many items, or too large ones.
        """
        if self.most_items is not None and max(items, default=0) > self.most_items:
            item = self.item[self.most_items != 1]
            raise ParametersError(
                f"A request of the role {self.role} takes {self.most_items} {item} at most."
            )
        if self.largest_size is not None and max(sizes, default=0) > self.largest_size:
            raise ParametersError(
                f"The role {self.role} takes sizes of {self.largest_size:,} "
                f"{self.size_unit} at most."
            )


_MOST = {"items": 2_048, "sizes": 1_000_000, "concurrency": 256}
"""More than any server takes; a mistyped number mustn't fill the memory."""


class RoleParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be measured of a role.

    Attributes:
        iterations: Waves of requests at each load; with `precision`, the least.
        warm_up: Waves before them, which don't count.
        items: How many items a request has, one load each.
        sizes: How large they are, one load each.
        concurrency: Requests at once, one load each.
        seed: Of the material and of the bootstrap; a new one unless given.
        precision: Go on until the 95 % interval of the rate is within this share of the median on
            either side, or None to stop after `iterations`.
        max_iterations: Where `precision` gives up.
    """

    iterations: int = 3
    warm_up: int = 1
    items: tuple[int, ...]
    sizes: tuple[int, ...]
    concurrency: tuple[int, ...] = (1,)
    seed: int = msgspec.field(default_factory=new_seed)
    precision: float | None = None
    max_iterations: int = 30

    def __post_init__(self) -> None:
        """Refuse what makes no sense, and measure nothing twice.

        Raises:
            ParametersError: A number is out of range or a list empty.
        """
        for name, most in _MOST.items():
            given: tuple[int, ...] = getattr(self, name)
            if not given or min(given) < 1:
                raise ParametersError("Items, sizes and concurrency must be at least 1.")
            if max(given) > most:
                raise ParametersError(f"{name.capitalize()} must be at most {most:,}.")
            msgspec.structs.force_setattr(self, name, tuple(dict.fromkeys(given)))
        if self.iterations < 1 or self.warm_up < 0:
            raise ParametersError("Iterations must be at least 1, and warm-up can't be negative.")
        if self.precision is not None and not 0 < self.precision < 1:
            raise ParametersError("The precision is a share between 0 and 1, e.g. 0.02.")

    @property
    def loads(self) -> tuple[RoleLoad, ...]:
        """Every load, the sizes one after the other."""
        return tuple(
            RoleLoad(items=items, size=size, concurrency=concurrency)
            for size in self.sizes
            for items in self.items
            for concurrency in self.concurrency
        )


def json_request(path: str, body: Mapping[str, object]) -> PlainRequest:
    """A request with a JSON body."""
    return PlainRequest(path, msgspec.json.encode(body))


def decoded[T](body: bytes, kind: type[T]) -> T:
    """What a server answered with.

    Raises:
        ValueError: It is something else.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"the answer is something else: {error}") from error
