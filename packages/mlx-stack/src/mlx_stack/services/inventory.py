"""Everything that a request may start: the tiers, and the models on this disk.

Apart from `on_demand`, since it loads the catalog and reads models' files.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from mlx_catalog import CatalogError
from mlx_gateway.settings import GatewaySettings
from mlx_procsup import locate
from mlx_stack.errors import StackError
from mlx_stack.gateway.settings import TierAtGateway, with_model, with_names
from mlx_stack.home import Home
from mlx_stack.models.disk.layout import incoming
from mlx_stack.models.disk.local import model_folders
from mlx_stack.models.serving import serving_of
from mlx_stack.models.shelf import ModelOnDisk, claim_of, models_on_disk
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.assembly import at_gateway, memory_budget, model_folder, recorded_port
from mlx_stack.services.ports import is_free, next_free_port
from mlx_stack.services.service import litellm_port
from mlx_stack.services.sleeper import SleepPlan
from mlx_stack.stack import Tier

_FIRST_PORT = 8100
"""Of models without a tier, which take free ones from here on."""
_GUESTS, _LAZY, _EAGER = range(3)
"""How important: what nobody defined makes room first, what `up` starts last."""

type _Stamp = tuple[str, int, int, int] | None
type _Stamps = tuple[_Stamp, ...]
type FindTier = Callable[[OpenStack], Tier | None]


@dataclass(frozen=True, slots=True)
class Held:
    """Something that a request may start.

    Attributes:
        name: What it is called at the gateway.
        find_tier: What it serves, read again when it is called.
    """

    name: str
    service: str
    plan: SleepPlan
    find_tier: FindTier


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What there is.

    Attributes:
        signature: What it was read from; the same again means the same.
        budget_bytes: What all engines together may hold; None where nobody knows.
        held: The tiers, then the models without one.
        guests: The models without a tier, and what the gateway must know of each.
        unusable: Why a model can't be served, and what cures it, by each of its names.
        nicknames: More names for tiers, by the tier.
        aliases: What the stack file calls tiers and models.
        ports: The ports of models without a tier, by service.
    """

    signature: object
    budget_bytes: int | None
    held: tuple[Held, ...]
    guests: tuple[tuple[ModelOnDisk, TierAtGateway], ...]
    unusable: Mapping[str, str]
    nicknames: Mapping[str, tuple[str, ...]]
    aliases: Mapping[str, str]
    ports: Mapping[str, int]

    def why_unusable(self, name: str) -> str | None:
        """Why a model of that name, or of an alias for it, is on this disk and can't be served."""
        for _ in self.aliases:  # an alias may mean another
            name = self.aliases.get(name, name)
        return self.unusable.get(name)

    def extended(self, settings: GatewaySettings) -> GatewaySettings:
        """The settings of the tiers, with the models on this disk."""
        for tier, names in self.nicknames.items():
            if tier in settings.models:
                settings = with_names(settings, tier, names)
        for model, known in self.guests:
            settings = with_model(settings, model.tier, known, model.names)
        left = dict(self.aliases)  # one may mean another that comes after it
        while known := [
            alias
            for alias, target in left.items()
            if target in settings.models or target in settings.aliases
        ]:
            for alias in known:
                settings = with_names(settings, left.pop(alias), (alias,))
        return settings


def take(home: Home, before: Inventory | None) -> Inventory:
    """What there is now; `before` itself where nothing has changed.

    A model without a tier keeps its port, unless another program has taken it meanwhile.

    Raises:
        StackError: When a file is damaged.
        OSError: When the models folder can't be read.
    """
    opened = OpenStack(home)
    try:
        signature = _sign(opened)
        if (
            before is not None
            and before.signature == signature
            and not any(_is_lost(opened, *each) for each in before.ports.items())
        ):
            return before
        return _take(opened, signature, before.ports if before is not None else {})
    except CatalogError as error:
        raise StackError(str(error)) from error


def _take(opened: OpenStack, signature: object, ports: Mapping[str, int]) -> Inventory:
    budget = memory_budget(opened)
    shelf = models_on_disk(opened, budget)
    stack = opened.defined_stack
    tiers = stack.tiers if stack is not None else ()
    held = [
        Held(tier.name, tier.name, _plan(opened, tier), partial(_defined, name=tier.name))
        for tier in tiers
    ]
    nicknames = {
        tier.name: tuple(
            name for model in shelf.models if model.served_by == tier.name for name in model.names
        )
        for tier in tiers
    }
    given = dict[str, int]()
    taken = {opened.config.litellm_port, *(tier.port for tier in tiers)}
    if stack is not None:
        taken.add(litellm_port(stack, opened.config))
    guests: list[tuple[ModelOnDisk, TierAtGateway]] = []
    known_names = {each.name for each in held} | {*(stack.aliases if stack is not None else ())}
    for model in shelf.models:
        if model.served_by is not None or model.names[0] in known_names:
            continue
        service = model.tier.name
        port = ports.get(service) or recorded_port(opened.home.state_dirs, service)
        if port is None or port in taken or _is_lost(opened, service, port):
            port = next_free_port(_FIRST_PORT, taken)
        taken.add(port)
        given[service] = port
        tier = msgspec.structs.replace(model.tier, port=port)
        guest = ModelOnDisk(
            names=model.names, served_by=None, tier=tier, claim_bytes=model.claim_bytes
        )
        guests.append(
            (guest, at_gateway(tier, serving_of(opened.catalog, tier, Path(tier.source))))
        )
        plan = SleepPlan(
            idle_s=tier.idle_unload_s,
            claim_bytes=model.claim_bytes,
            importance=_GUESTS,
            ends_when_gone=True,
            made_of=(model.tier, _stamps_in(Path(tier.source))),
        )
        held.append(Held(model.names[0], service, plan, partial(_same, tier=tier)))
    return Inventory(
        signature=signature,
        budget_bytes=budget,
        held=tuple(held),
        guests=tuple(guests),
        unusable=shelf.unusable,
        nicknames=nicknames,
        aliases=stack.aliases if stack is not None else {},
        ports=given,
    )


def _is_lost(opened: OpenStack, service: str, port: int) -> bool:
    """Whether something else listens where a service would."""
    return not is_free(port) and locate(opened.home.state_dirs, service).own is None


def _plan(opened: OpenStack, tier: Tier) -> SleepPlan:
    claim_bytes, files = 0, ()
    with suppress(StackError):  # what can't be started needs no room: the start says why
        folder = model_folder(opened, tier)
        claim_bytes, files = claim_of(opened, tier, folder), _stamps_in(folder)
    return SleepPlan(
        idle_s=tier.idle_unload_s,
        keeps_running=not tier.lazy,
        claim_bytes=claim_bytes,
        importance=_LAZY if tier.lazy else _EAGER,
        pinned=tier.pinned,
        made_of=(tier, files),
    )


def _defined(opened: OpenStack, *, name: str) -> Tier | None:
    return opened.stack.tier(name)


def _same(opened: OpenStack, *, tier: Tier) -> Tier:
    del opened
    return tier


def _sign(opened: OpenStack) -> object:
    """What everything depends on: the state folder's files, and those of each model."""
    home, model_dir, stack = opened.home, opened.config.model_dir, opened.defined_stack
    elsewhere = {Path(tier.source) for tier in stack.tiers} if stack is not None else set[Path]()
    folders = (
        *model_folders(model_dir),
        *model_folders(incoming(model_dir)),
        *sorted(path for path in elsewhere if path.is_absolute() and path.parent != model_dir),
    )
    files = (home.stack, home.config, home.profile, home.catalog, *folders)
    return (
        str(model_dir),
        *map(_stamp, (*files, *sorted(home.catalog.glob("*.yaml")))),
        *map(_stamps_in, folders),
    )


def _stamps_in(folder: Path) -> _Stamps:
    """A mark of each file in a folder; of none where they can't be read."""
    try:
        return tuple(map(_stamp, sorted(folder.iterdir())))
    except OSError:
        return ()


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return path.name, status.st_ino, status.st_size, status.st_mtime_ns
