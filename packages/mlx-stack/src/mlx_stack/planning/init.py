"""Define a stack: the recommended tiers, with what the user adds and removes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from mlx_recommend import MissingTier
from mlx_stack.config import Config, load_config, read_values, save_values
from mlx_stack.errors import InvalidFileError, NoStackError, StackError, UsageError
from mlx_stack.home import Home
from mlx_stack.models.disk import find_local
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.estimate import HubReader
from mlx_stack.planning.recommend import Recommendation, Wishes, recommend
from mlx_stack.planning.tiers import (
    PlannedTier,
    added_tier,
    planned_memory_bytes,
    recommended_tier,
)
from mlx_stack.planning.wording import missing_document
from mlx_stack.services.assembly import gateway_settings, write_gateway_files
from mlx_stack.services.ports import is_free, next_free_port
from mlx_stack.services.service import GATEWAY
from mlx_stack.stack import (
    DEFAULT_PORTS,
    RESERVED_NAMES,
    SCHEMA_VERSION,
    Stack,
    Tier,
    contradiction,
    load_stack,
    save_stack,
)

_FIRST_OTHER_PORT = max(DEFAULT_PORTS.values()) + 1


@dataclass(frozen=True, slots=True)
class Addition:
    """A model that the user wants served.

    Attributes:
        model: A catalog id, a Hub repository, or a model folder.
        tier: The tier that is to serve it; None names one after the model.
    """

    model: str
    tier: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a stack is to be.

    Attributes:
        wishes: What to recommend by.
        additions: Models to serve, whatever is recommended.
        removals: Tiers to leave out.
        only_additions: Serve the additions and nothing else.
        replaces: Whether a stack that is defined may be replaced by a new one.
    """

    wishes: Wishes = field(default_factory=Wishes)
    additions: tuple[Addition, ...] = ()
    removals: tuple[str, ...] = ()
    only_additions: bool = False
    replaces: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A stack that is not written yet.

    Attributes:
        home: Where it would be written.
        stack: What would be written.
        tiers: Its tiers, with what they take and whether their models are here.
        budget_bytes: What they share; None where nobody knows this machine's memory.
        missing: Usual tiers that it does without.
        gateway_port: The port that the gateway will have.
        notes: What the user should know.
        recommendation: What it was made from; None where nothing had to be recommended.
    """

    home: Home
    stack: Stack
    tiers: tuple[PlannedTier, ...]
    budget_bytes: int | None
    missing: tuple[MissingTier, ...]
    gateway_port: int
    notes: tuple[str, ...]
    recommendation: Recommendation | None

    @property
    def total_bytes(self) -> int | None:
        """What the tiers take together; None where one of them is unknown."""
        sizes = [tier.memory_bytes for tier in self.tiers]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {
            "stack_file": str(self.home.stack),
            "gateway_config": str(self.home.gateway_settings),
            "gateway_port": self.gateway_port,
            "tiers": [tier.to_document() for tier in self.tiers],
            "missing_tiers": [missing_document(each) for each in self.missing],
            "budget_bytes": self.budget_bytes,
            "total_bytes": self.total_bytes,
            "notes": list(self.notes),
        }


def draft_stack(home: Home, request: Request, *, read_hub: HubReader | None = None) -> Draft:
    """The stack that `request` asks for; writes nothing.

    With additions or removals a defined stack is changed: its other tiers stay as they are.

    Raises:
        StackError: A stack is defined and may not be replaced, or nothing fits.
        UsageError: A tier's name is no name, is given twice, or is not there to be removed.
        UnknownModelError: An added model is none.
    """
    defined = _defined(home, request)
    is_change = defined is not None and not request.replaces
    if is_change and not (request.additions or request.removals):
        raise StackError(
            f"A stack is defined already: {home.stack}.",
            hint="`--force` replaces it; `--add` and `--remove` change some of its tiers.",
        )
    opened = OpenStack(home)
    config = opened.config
    added = _added(opened, request, read_hub)
    found = None
    if is_change:
        assert defined is not None
        tiers = [PlannedTier(tier, planned_memory_bytes(opened, tier)) for tier in defined.tiers]
    elif request.only_additions:
        tiers = []
    else:
        reserved = sum(tier.memory_bytes or 0 for tier in added)
        found = recommend(home, replace(request.wishes, reserved_bytes=reserved))
        tiers = [recommended_tier(each) for each in found.plan.tiers]
    tiers = _combined(tiers, added, request.removals)
    if not tiers:
        raise _nothing_fits(found)
    tiers = _with_ports(tiers, defined, config.litellm_port)
    stack = Stack(
        schema_version=SCHEMA_VERSION,
        hardware_profile=_profile_id(found, defined),
        intent=request.wishes.intent.value if defined is None or found else defined.intent,
        aliases=_aliases(defined, tiers) if is_change else {},
        tiers=tuple(each.tier for each in tiers),
    )
    problem = contradiction(stack)
    if problem is not None:
        raise UsageError(f"That would be no stack: {problem}.")
    return _draft(home, config, stack, tiers, found, request)


def write_draft(home: Home, draft: Draft) -> None:
    """Write the stack file and the gateway's configuration.

    Raises:
        OSError: A file can't be written.
    """
    home.create()
    config = load_config(home)
    if draft.gateway_port != config.litellm_port:
        save_values(home, {**read_values(home), "litellm-port": draft.gateway_port})
        config = load_config(home)
    save_stack(home.stack, draft.stack)
    write_gateway_files(home, gateway_settings(draft.stack, config))


def _defined(home: Home, request: Request) -> Stack | None:
    """The stack that is defined; a damaged one counts as none where it may be replaced."""
    try:
        return load_stack(home.stack)
    except NoStackError:
        return None
    except InvalidFileError:
        if request.replaces:
            return None
        raise


def _added(opened: OpenStack, request: Request, read_hub: HubReader | None) -> list[PlannedTier]:
    tiers = [
        added_tier(
            opened,
            each.model,
            each.tier,
            context_tokens=request.wishes.context_tokens,
            concurrency=request.wishes.concurrency,
            read_hub=read_hub,
        )
        for each in request.additions
    ]
    names = [each.tier.name for each in tiers]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"Two models are to be tier {name!r}.", hint="Name tiers with --as.")
        if name in RESERVED_NAMES:
            raise UsageError(f"A tier can't be called {name!r}: that is a service of its own.")
    return tiers


def _combined(
    tiers: Sequence[PlannedTier], added: Sequence[PlannedTier], removals: Sequence[str]
) -> list[PlannedTier]:
    """The tiers with additions in place of those of the same name, or at the end."""
    by_name = {each.tier.name: each for each in tiers} | {each.tier.name: each for each in added}
    usual = set(DEFAULT_PORTS)
    for name in removals:
        if name not in by_name and name not in usual:
            there = ", ".join(by_name) or "none"
            raise UsageError(
                f"There is no tier {name!r} to remove.", hint=f"The stack has: {there}."
            )
    return [each for name, each in by_name.items() if name not in removals]


def _with_ports(
    tiers: Sequence[PlannedTier], defined: Stack | None, gateway_port: int
) -> list[PlannedTier]:
    """The tiers on ports of their own: those they had, else free ones.

    A port that the defined stack uses may well be in use: by this stack.
    """
    had = {tier.name: tier.port for tier in defined.tiers} if defined is not None else {}
    taken = {gateway_port, *(had[each.tier.name] for each in tiers if each.tier.name in had)}
    placed: list[PlannedTier] = []
    for each in tiers:
        name = each.tier.name
        port = had.get(name)
        if port is None:
            port = next_free_port(DEFAULT_PORTS.get(name, _FIRST_OTHER_PORT), taken)
        taken.add(port)
        placed.append(replace(each, tier=_on_port(each.tier, port)))
    return placed


def _on_port(tier: Tier, port: int) -> Tier:
    return msgspec.structs.replace(tier, port=port)


def _profile_id(found: Recommendation | None, defined: Stack | None) -> str | None:
    if found is not None:
        return found.hardware.profile_id
    return defined.hardware_profile if defined is not None else None


def _aliases(defined: Stack | None, tiers: Sequence[PlannedTier]) -> dict[str, str]:
    """The aliases whose tiers are still there."""
    names = {each.tier.name for each in tiers}
    aliases = defined.aliases if defined is not None else {}
    return {alias: name for alias, name in aliases.items() if name in names}


def _draft(
    home: Home,
    config: Config,
    stack: Stack,
    tiers: Sequence[PlannedTier],
    found: Recommendation | None,
    request: Request,
) -> Draft:
    gateway_port = _gateway_port(home, config, tiers)
    draft = Draft(
        home=home,
        stack=stack,
        tiers=tuple(
            replace(each, is_present=_is_present(config.model_dir, each.tier)) for each in tiers
        ),
        budget_bytes=found.budget_bytes if found is not None else None,
        missing=tuple(
            each
            for each in (found.plan.missing if found is not None else ())
            if stack.tier(each.tier) is None and each.tier not in request.removals
        ),
        gateway_port=gateway_port,
        notes=(),
        recommendation=found,
    )
    notes = [each.note for each in tiers if each.note]
    if gateway_port != config.litellm_port:
        notes.append(
            f"Port {config.litellm_port} is in use: the gateway gets {gateway_port} (litellm-port)."
        )
    total, budget = draft.total_bytes, draft.budget_bytes
    if total is not None and budget is not None and total > budget:
        notes.append(
            f"The tiers take {total / 1e9:.1f} GB together, more than the budget of"
            f" {budget / 1e9:.1f} GB."
        )
    return replace(draft, notes=tuple(notes))


def _gateway_port(home: Home, config: Config, tiers: Sequence[PlannedTier]) -> int:
    """The configured port, or a free one above it where another program listens there."""
    port = config.litellm_port
    is_ours = (home.pids / f"{GATEWAY}.pid").exists()
    if is_ours or is_free(port):
        return port
    return next_free_port(port, {each.tier.port for each in tiers})


def _is_present(model_dir: Path, tier: Tier) -> bool:
    model = find_local(model_dir, tier.source, tier.quant)
    return model is not None and model.is_whole


def _nothing_fits(found: Recommendation | None) -> StackError:
    if found is None:
        return UsageError("A stack needs at least one tier.")
    smallest = min((each.smallest_bytes or 0 for each in found.plan.missing), default=0)
    return StackError(
        f"No model fits the budget of {found.budget_bytes / 1e9:.1f} GB;"
        f" the smallest takes {smallest / 1e9:.1f} GB.",
        hint="Give more with `--budget-pct`, or name a model with `--add`.",
    )
