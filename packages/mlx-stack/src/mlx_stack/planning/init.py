"""Define a stack: the recommended tiers, with what the user adds and removes (decision 0043)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from mlx_recommend import READING_TIERS, MissingTier
from mlx_stack import atomic_file, yaml_file
from mlx_stack.config import set_value
from mlx_stack.engines.kept_prompts import tidy
from mlx_stack.errors import InvalidFileError, StackError, UsageError
from mlx_stack.format import format_bytes
from mlx_stack.home import Home
from mlx_stack.models.disk.layout import free_bytes
from mlx_stack.models.find import is_present, pull_name
from mlx_stack.nodes.file import load_nodes
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.recommend import Constraints, Recommendation, missing_document, recommend
from mlx_stack.planning.room import refuse_too_large, room_here
from mlx_stack.planning.tiers import (
    PlannedTier,
    added_tier,
    defined_tier,
    reading_tier,
    recommended_tier,
)
from mlx_stack.services.assembly import gateway_settings, write_gateway_files
from mlx_stack.services.ports import is_free, next_free_port
from mlx_stack.services.service import GATEWAY
from mlx_stack.stack import (
    DEFAULT_PORTS,
    HERE,
    RESERVED_NAMES,
    Host,
    Stack,
    contradiction,
    save_stack,
)

_FIRST_OTHER_PORT = max(DEFAULT_PORTS.values()) + 1


class _ForeignTier(msgspec.Struct, frozen=True):
    name: str
    model: str
    source: str = ""


class _ForeignStack(msgspec.Struct, frozen=True):
    tiers: tuple[_ForeignTier, ...]


@dataclass(frozen=True, slots=True)
class Addition:
    """A model that the user wants served.

    Attributes:
        model: A catalog id, a Hub repository, or a model folder.
        tier: The tier that is to serve it; None names one after the model.
        hosts: The other Macs that it is divided between, each as `NAME` or `NAME=ADDRESS`.
        link_is_private: Whether no one else can listen between them, though there are routers.
    """

    model: str
    tier: str | None = None
    hosts: tuple[str, ...] = ()
    link_is_private: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A stack that is not written yet.

    Attributes:
        budget_bytes: What they share; None where the machine's memory is unknown.
        missing: Usual tiers that it does without.
        warning: That the tiers need more memory than there is for them, one of the notes; or "".
        is_too_large: Whether a tier by itself doesn't fit, so that `up` has to be forced.
        free_disk_bytes: What the disk of the models has to spare.
    """

    home: Home
    stack: Stack
    tiers: tuple[PlannedTier, ...]
    budget_bytes: int | None
    missing: tuple[MissingTier, ...]
    gateway_port: int
    pulls: tuple[str, ...]
    notes: tuple[str, ...]
    warning: str = ""
    is_too_large: bool = False
    free_disk_bytes: int | None = None

    @property
    def download_bytes(self) -> int:
        """What is to be downloaded, about, as far as that is known; once for several tiers."""
        by_source = {each.tier.source: each.download_bytes or 0 for each in self.tiers}
        return sum(by_source.values())

    @property
    def total_bytes(self) -> int | None:
        """What the tiers take together; None where one of them is unknown."""
        return _total_bytes(self.tiers)

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


def draft_stack(
    opened: OpenStack,
    constraints: Constraints | None = None,
    *,
    additions: Sequence[Addition] = (),
    removals: Sequence[str] = (),
    only_additions: bool = False,
    replaces: bool = False,
    allows_too_large: bool = False,
) -> Draft:
    """The stack that is asked for; writes nothing.

    With additions or removals a defined stack is changed: its other tiers stay as they are.

    Args:
        only_additions: Serve the additions and nothing else.
        replaces: Whether a stack that is defined may be replaced by a new one.
        allows_too_large: Whether an addition may need more memory than the GPU may use.

    Raises:
        StackError: When a stack is defined and may not be replaced, or nothing fits.
        ModelTooLargeError: When an addition doesn't fit; the hint names a model that does.
        UsageError: When a tier's name isn't one, is given twice, or isn't there to be removed, or
            roles are asked for where nothing is recommended.
        UnknownModelError: When there is no such model to add.
    """
    constraints = constraints or Constraints()
    defined = _defined(opened, replaces=replaces)
    is_change = defined is not None and not replaces
    if is_change and not (additions or removals):
        raise StackError(
            f"A stack is already defined: {opened.home.stack}.",
            hint="`--force` replaces it; `--add` and `--remove` change some of its tiers.",
        )
    if constraints.roles and (is_change or only_additions):
        raise UsageError(
            "--with is for a new stack, whose tiers are recommended.",
            hint="`--add MODEL` adds an embedder or a reranker to the stack: --add bge-m3.",
        )
    asked = {READING_TIERS[role]: role for role in constraints.roles}
    added, room = _added(opened, additions, constraints), room_here(opened, constraints)
    if not allows_too_large:
        refuse_too_large(opened, added, room)
    found, tiers = None, list[PlannedTier]()
    if defined is not None and is_change:
        tiers = [defined_tier(opened, tier) for tier in defined.tiers]
    elif only_additions:
        tiers, added = added, []
    else:
        reserved = sum(tier.memory_bytes or 0 for tier in added)
        given = {*removals, *(each.tier.name for each in added)}
        roles = (role for name, role in asked.items() if name not in given)
        found = recommend(opened, replace(constraints, roles=tuple(roles)), reserved_bytes=reserved)
        tiers = [recommended_tier(each) for each in found.plan.tiers]
        if tiers:
            tiers += [reading_tier(each) for each in found.plan.reading]
    tiers = _combined(tiers, added, removals, frozenset((*DEFAULT_PORTS, *asked)))
    if not tiers:
        raise _nothing_fits(found)
    tiers = _with_ports(tiers, defined, opened.config.litellm_port)
    profile_id = defined.hardware_profile if defined is not None else None
    stack = Stack(
        hardware_profile=found.hardware.profile_id if found is not None else profile_id,
        intent=constraints.intent.value if defined is None or found else defined.intent,
        aliases=_aliases(defined, tiers) if is_change else {},
        tiers=tuple(each.tier for each in tiers),
    )
    problem = contradiction(stack)
    if problem is not None:
        raise UsageError(f"That stack isn't possible: {problem}.")
    gateway_port = _gateway_port(opened, stack)
    tiers = [replace(each, is_present=is_present(opened, each.tier)) for each in tiers]
    gpu_bytes = sum(each.gpu_bytes or 0 for each in tiers)
    warning = room.warning("Together the tiers need", _total_bytes(tiers), gpu_bytes)
    absent = (pull_name(opened, each.tier) for each in tiers if not each.is_present)
    return Draft(
        home=opened.home,
        stack=stack,
        tiers=tuple(tiers),
        budget_bytes=room.budget_bytes,
        missing=tuple(
            each
            for each in (found.plan.missing if found is not None else ())
            if stack.tier(each.tier) is None and each.tier not in removals
        ),
        gateway_port=gateway_port,
        pulls=tuple(dict.fromkeys(filter(None, absent))),
        free_disk_bytes=free_bytes(opened.config.model_dir),
        notes=tuple(_notes(tiers, opened.config.litellm_port, gateway_port, warning)),
        warning=warning,
        is_too_large=any(room.excludes(each.gpu_bytes) for each in tiers),
    )


def write_draft(opened: OpenStack, draft: Draft) -> None:
    """Write the stack file and the gateway's configuration.

    Raises:
        OSError: When a file can't be written.
    """
    opened.home.create()
    config = replace(opened.config, litellm_port=draft.gateway_port)
    if config != opened.config:
        set_value(opened.home, "litellm-port", str(draft.gateway_port))
    save_stack(opened.home.stack, draft.stack)
    tidy(opened.home.kept_prompts, draft.stack.tiers)
    write_gateway_files(
        opened.home,
        gateway_settings(opened.home, draft.stack, config, load_nodes(opened.home.nodes)),
    )


def read_foreign_stack(opened: OpenStack, path: Path) -> tuple[Addition, ...]:
    """The tiers of a stack file of mlx-stack 0.3, the earlier program of this name.

    Which model serves which tier is imported: its own, or what its id stands for. Ports, parsers
    and engine flags are not: some of the flags are unsafe for some models, and parsers follow from
    the catalog.

    Raises:
        InvalidFileError: When it isn't such a file.
    """
    try:
        tiers = yaml_file.read(path, _ForeignStack).tiers
    except FileNotFoundError as error:
        raise InvalidFileError(path, "there is no such file") from error
    if not tiers:
        raise InvalidFileError(path, "it defines no tier")
    known = opened.catalog
    return tuple(
        Addition(tier.model if tier.model in known else tier.source or tier.model, tier.name)
        for tier in tiers
    )


def keep_copy(path: Path) -> None:
    """Copy an imported file to NAME.imported, since the new stack may take its place.

    Raises:
        OSError: When the copy can't be written.
    """
    copy = path.with_name(f"{path.name}.imported")
    atomic_file.write_text(copy, path.read_text(encoding="utf-8"))


def _defined(opened: OpenStack, *, replaces: bool) -> Stack | None:
    """The stack that is defined; a damaged one counts as none where it may be replaced."""
    try:
        return opened.defined_stack
    except InvalidFileError:
        if replaces:
            return None
        raise


def _added(
    opened: OpenStack, additions: Sequence[Addition], constraints: Constraints
) -> list[PlannedTier]:
    tiers = [
        added_tier(
            opened,
            each.model,
            each.tier,
            context_tokens=constraints.context_tokens,
            concurrency=constraints.concurrency,
            hosts=tuple(_read_host(host, is_private=each.link_is_private) for host in each.hosts),
        )
        for each in additions
    ]
    names = [each.tier.name for each in tiers]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"Two models are to be tier {name!r}.", hint="Name tiers with --as.")
        if name in RESERVED_NAMES:
            raise UsageError(f"A tier can't be called {name!r}: that name is reserved.")
    return tiers


def _read_host(text: str, *, is_private: bool) -> Host:
    """The Mac that `--host` names.

    Raises:
        UsageError: When that can't be a Mac's name.
    """
    name, _, address = text.partition("=")
    is_private = is_private and name != HERE
    fields = {"host": name, "address": address or None, "private_link": is_private}
    try:
        return msgspec.convert(fields, Host)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{name!r} can't be a host for ssh.",
            hint="Use the name of a Mac, `user@name`, or an alias in ~/.ssh/config: "
            "--host studio-b, or --host studio-b=169.254.1.2 with its address on the cable.",
        ) from error


def _combined(
    tiers: Sequence[PlannedTier],
    added: Sequence[PlannedTier],
    removals: Sequence[str],
    usual: frozenset[str],
) -> list[PlannedTier]:
    """The tiers with additions in place of those of the same name, or at the end.

    A tier that is removed and added as well is replaced.

    Args:
        usual: Names that may be removed even where the plan has no such tier.
    """
    there = {each.tier.name: each for each in tiers}
    for name in removals:
        if name not in there and name not in usual:
            names = ", ".join(there) or "none"
            raise UsageError(
                f"There is no tier {name!r} to remove.", hint=f"The stack has: {names}."
            )
    new = {each.tier.name: each for each in added}
    return [each for name, each in (there | new).items() if name in new or name not in removals]


def _with_ports(
    tiers: Sequence[PlannedTier], defined: Stack | None, gateway_port: int
) -> list[PlannedTier]:
    """The tiers on different ports: those they had, else free ones.

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
        placed.append(replace(each, tier=msgspec.structs.replace(each.tier, port=port)))
    return placed


def _aliases(defined: Stack | None, tiers: Sequence[PlannedTier]) -> dict[str, str]:
    """The aliases but for those whose tiers are gone."""
    if defined is None:
        return {}
    gone = {tier.name for tier in defined.tiers} - {each.tier.name for each in tiers}
    return {alias: name for alias, name in defined.aliases.items() if name not in gone}


def _notes(
    tiers: Sequence[PlannedTier],
    configured_port: int,
    gateway_port: int,
    warning: str,
) -> Iterator[str]:
    """What the user should know of a draft."""
    yield from (each.note for each in tiers if each.note)
    if gateway_port != configured_port:
        yield f"Port {configured_port} is in use: the gateway gets {gateway_port} (litellm-port)."
    if warning:
        yield warning


def _total_bytes(tiers: Sequence[PlannedTier]) -> int | None:
    """What the tiers take together; None where one of them is unknown."""
    known = [tier.memory_bytes for tier in tiers if tier.memory_bytes is not None]
    return sum(known) if len(known) == len(tiers) else None


def _gateway_port(opened: OpenStack, stack: Stack) -> int:
    """The configured port, or a free one above it where another program listens there."""
    port = opened.config.litellm_port
    is_ours = (opened.home.pids / f"{GATEWAY}.pid").exists()
    if is_ours or is_free(port):
        return port
    return next_free_port(port, {tier.port for tier in stack.tiers})


def _nothing_fits(found: Recommendation | None) -> StackError:
    if found is None:
        return UsageError("A stack needs at least one tier.")
    smallest = min((each.smallest_bytes or 0 for each in found.plan.missing), default=0)
    return StackError(
        f"No model fits the budget of {format_bytes(found.budget_bytes)};"
        f" the smallest takes {format_bytes(smallest)}.",
        hint="Give more with `--budget-pct`, or name a model with `--add`.",
    )
