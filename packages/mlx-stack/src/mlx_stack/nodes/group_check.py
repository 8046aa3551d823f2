"""Whether one model can be started over several Macs, and if not, what to do.

`refusals` decides, over facts; `look` asks all Macs side by side.
"""

import ipaddress
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

from mlx_catalog import CatalogError, UnreadableModelError
from mlx_procsup import locate
from mlx_recommend import SplitKind, split
from mlx_stack.engines.errors import EngineMissingError
from mlx_stack.format import format_bytes
from mlx_stack.models.disk.layout import places_of
from mlx_stack.models.find import local_model_of, pull_name
from mlx_stack.models.serving import LAYER_INDEX, entry_of, fit_and_shape, memory_of, split_of
from mlx_stack.nodes.facts import (
    Facts,
    FactsQuestion,
    HashedFile,
    InterfaceAddress,
    ask_facts,
    own_facts,
)
from mlx_stack.nodes.facts_script import BEGINNING
from mlx_stack.nodes.group import address_of, way_to
from mlx_stack.nodes.private_link import is_private, reaches
from mlx_stack.nodes.ssh import SshError, threads
from mlx_stack.open_stack import OpenStack
from mlx_stack.stack import HERE, USUAL_HOME, Host, Tier

_WEIGHTS = (".safetensors", ".py")
"""Of what is in a model's folder, the engine takes any file of these kinds for a part of it."""
_RDMA_SINCE = (26, 2)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a model can't be started over several Macs.

    Attributes:
        node: The Mac that it is about, as the stack file calls it.
        message: One sentence, which names the Mac.
        fix: What to do about it, with the command.
    """

    node: str
    message: str
    fix: str

    def to_document(self) -> dict[str, object]:
        """One row of the JSON answer."""
        return {"node": self.node, "message": self.message, "fix": self.fix}


@dataclass(frozen=True, slots=True)
class Member:
    """A Mac of a group, with what is known of it.

    Attributes:
        node: What the stack file calls it.
        address: Its IPv4 address on the link between the Macs; None where it isn't known.
        port: Where the ring listens there; None where it already does.
        facts: What it says of itself; None where it couldn't be asked.
        problem: Why it couldn't.
        reached_from: The address of this Mac from which that one is reached; None for this Mac,
            or where there is no way.
        link_is_private: Whether the user said that nobody else can listen on the way there.
        needs_bytes: What its share of the model takes; None where that isn't known.
        beside_bytes: What it holds of the stack's other divided models.
        rdma: The devices that lead from it to the others; none where they use MLX's ring.
    """

    node: str
    address: str | None
    port: int | None
    facts: Facts | None
    problem: Refusal | None = None
    reached_from: str | None = None
    link_is_private: bool = False
    needs_bytes: int | None = None
    beside_bytes: int = 0
    rdma: tuple[str, ...] = ()

    @property
    def interface(self) -> InterfaceAddress | None:
        """The one that has its address on the link; None where none has."""
        found = (each for each in self.interfaces if each.address == self.address)
        return next(found, None)

    @property
    def interfaces(self) -> tuple[InterfaceAddress, ...]:
        """All of them."""
        return self.facts.addresses if self.facts is not None else ()


@dataclass(frozen=True, slots=True)
class Group:
    """The Macs that a tier's model is divided between.

    Attributes:
        tier: Its name.
        members: By rank; the first of them is this Mac.
        pull: What `pull` needs for its model, as a user types it.
        indivisible: Why the model can't be divided between so many in the way that the tier says,
            each as a sentence without a full stop; none where it can, or where that isn't known.
        divides_otherwise: Whether it can be divided in the other way.
        by_layers: Whether the tier says that each Mac gets some of the layers (`pipeline`).
    """

    tier: str
    members: tuple[Member, ...]
    pull: str
    indivisible: tuple[str, ...] = ()
    divides_otherwise: bool = False
    by_layers: bool = False

    @property
    def lacks_index(self) -> bool:
        """Whether the model is here, and mlx-lm can't find its layers."""
        facts = self.members[0].facts
        model = facts.model if facts is not None else None
        return model is not None and LAYER_INDEX not in model.sizes


def check_group(opened: OpenStack, tier: Tier, *, is_starting: bool = False) -> tuple[Refusal, ...]:
    """Why `tier` can't be started over its Macs; nothing where it can. Changes nothing.

    Args:
        is_starting: As of `look`.

    Raises:
        MissingError: When there is no `ssh` on this Mac.
        InvalidFileError: When the configuration is damaged.
    """
    return refusals(look(opened, tier, is_starting=is_starting))


def look(opened: OpenStack, tier: Tier, *, is_starting: bool = False) -> Group:
    """The Macs of `tier`, all asked at once.

    Args:
        is_starting: Whether it is being started, perhaps again: its ports aren't looked at then,
            since former parts may still listen there until they have ended.

    Raises:
        MissingError: When there is no `ssh` on this Mac.
        InvalidFileError: When the configuration is damaged.
    """
    workers, variables = tier.workers, opened.variables
    runs = is_starting or locate(opened.home.state_dirs, tier.name).own is not None
    ports = [None if runs else tier.ring_port(rank) for rank in range(tier.macs)]
    local = local_model_of(opened, tier)
    folder = (
        local.path
        if local is not None
        else places_of(opened.config.model_dir, tier.source).published
    )

    def ask_here(own: str | None) -> Member:
        question = FactsQuestion(folder=str(folder), address=own, ports=_given(ports[0]))
        said = _said_by(HERE, partial(own_facts, opened.home, question, variables))
        return Member(HERE, own, ports[0], *said)

    def ask_there(worker: Host, port: int | None, address: str | None) -> Member:
        question = FactsQuestion(folder=folder.name, address=address, ports=_given(port))
        home = worker.home or USUAL_HOME
        said = _said_by(worker.host, partial(ask_facts, worker.host, home, question, variables))
        return Member(
            *(worker.host, address, port, *said),
            reached_from=way_to(address) if address is not None else None,
            link_is_private=worker.private_link,
        )

    with threads(tier.macs) as pool:
        addresses = list(pool.map(partial(address_of, variables=variables), workers))
        first = addresses[0] if addresses else None
        own = tier.own_address or (way_to(first) if first is not None else None)
        here = pool.submit(ask_here, own)
        there = list(pool.map(ask_there, workers, ports[1:], addresses))
        members = (here.result(), *there)
    parts = _Parts() if local is None else _parts_of(opened, tier, local.path)
    needed = parts.needs_bytes or (None,) * len(members)
    devices = tier.rdma_devices or ((),) * len(members)
    beside = _beside(opened, tier)
    return Group(
        tier.name,
        tuple(
            replace(
                each,
                needs_bytes=n,
                beside_bytes=beside[each.node],
                rdma=tuple(name for name in names if name is not None),
            )
            for each, n, names in zip(members, needed, devices, strict=True)
        ),
        _pull_of(opened, tier),
        parts.indivisible,
        parts.divides_otherwise,
        by_layers=bool(tier.mlx_lm_flags.get("pipeline")),
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """What each Mac gets of a model, by rank; nothing where that isn't known."""

    needs_bytes: tuple[int | None, ...] = ()
    indivisible: tuple[str, ...] = ()
    divides_otherwise: bool = False


def _parts_of(opened: OpenStack, tier: Tier, folder: Path) -> _Parts:
    """How mlx-lm divides the model of a tier: each layer, unless the tier says otherwise."""
    try:
        fit, shape = fit_and_shape(entry_of(opened.catalog, tier), tier, folder)
    except (UnreadableModelError, CatalogError):
        return _Parts()
    if shape is None:
        return _Parts()
    divided = split_of(shape, tier)
    other = next(kind for kind in SplitKind if kind is not divided.kind)
    otherwise = not split(shape, divided.macs, other).refusals
    if divided.refusals:
        return _Parts(indivisible=divided.refusals, divides_otherwise=otherwise)
    planned = (memory_of(shape, fit, tier, share.rank) for share in divided.shares)
    needs = tuple(each.total_bytes if each is not None else None for each in planned)
    return _Parts(needs, divides_otherwise=otherwise)


def _beside(opened: OpenStack, tier: Tier) -> Counter[str]:
    """What other Macs hold of the models of other tiers that are always loaded, in bytes."""
    found, stack = Counter[str](), opened.defined_stack
    for each in stack.tiers if stack is not None else ():
        if each.name == tier.name or each.lazy or not each.workers:
            continue
        local = local_model_of(opened, each)
        needs = _parts_of(opened, each, local.path).needs_bytes if local is not None else ()
        for worker, needed in zip(each.workers, needs[1:], strict=False):
            found[worker.host] += needed or 0
    return found


def _said_by(node: str, ask: Callable[[], Facts]) -> tuple[Facts | None, Refusal | None]:
    """What a Mac says of itself, or why it can't be asked."""
    try:
        return ask(), None
    except SshError as error:
        return None, Refusal(node, error.message, error.hint or f"`ssh -v {node}` shows why.")
    except EngineMissingError as error:
        return None, Refusal(node, error.message, error.hint or "")


def _given(port: int | None) -> tuple[int, ...]:
    return () if port is None else (port,)


def _pull_of(opened: OpenStack, tier: Tier) -> str:
    """What `pull` needs for a tier's weights, as a user types it."""
    return pull_name(opened, tier) or shlex.quote(tier.source)


def refusals(group: Group) -> tuple[Refusal, ...]:
    """What speaks against a start, the worst of each Mac first."""
    found = [each.problem for each in group.members if each.problem is not None]
    found += _division(group)
    found += _same_macs(group)
    found += _links(group.members)
    here = group.members[0]
    for each in group.members:
        if each.facts is None:
            continue
        if each is not here and here.facts is not None:
            found += _engine(each.node, here.facts, each.facts)
        found += _model(each, here, group.pull)
        found += _rdma(each, here, group.tier)
        found += _port(each, group.tier)
        found += _share(each, group.tier)
    return tuple(found)


def _division(group: Group) -> Iterator[Refusal]:
    """Why the model can't be divided in the way that the tier says."""
    fix = f"Name another number of Macs in `hosts` of {group.tier} in the stack file."
    if group.divides_otherwise and group.by_layers:
        fix = (
            f"Without `pipeline` in `mlx_lm_flags` of {group.tier} in the stack file, each Mac "
            "gets a part of every layer instead."
        )
    elif group.divides_otherwise and not group.lacks_index:
        fix = (
            f"`mlx_lm_flags: {{pipeline: true}}` of {group.tier} in the stack file gives each Mac "
            "some of its layers instead."
        )
    for reason in group.indivisible:
        message = f"The model can't be divided between {len(group.members)} Macs: {reason}."
        yield Refusal(HERE, message, fix)
    if group.by_layers and group.lacks_index and not group.indivisible:
        if not group.divides_otherwise:
            fix = "Choose weights that have this file: those that mlx-lm has converted do."
        message = f"The model has no {LAYER_INDEX}, by which mlx-lm finds the layers of each Mac."
        yield Refusal(HERE, message, fix)


def _same_macs(group: Group) -> Iterator[Refusal]:
    """Which Macs are named more than once, or are this one: each would hold several parts."""
    for position, each in enumerate(group.members):
        for other in group.members[:position]:
            if _is_same(each, other):
                whose = "this Mac" if other.node == HERE else f"the same Mac as {other.node}"
                yield Refusal(
                    each.node,
                    f"{each.node} is {whose}: both have the address {each.address}.",
                    f"Take it out of `hosts` of {group.tier} in the stack file.",
                )
                break


def _is_same(one: Member, other: Member) -> bool:
    """Whether two names stand for one Mac. Over loopback, a tunnel may lead to another one."""
    if one.facts is None or other.facts is None or one.address != other.address:
        return False
    return one.interface is not None and (
        not ipaddress.IPv4Address(one.interface.address).is_loopback
        or one.facts.home == other.facts.home
    )


def _links(members: tuple[Member, ...]) -> Iterator[Refusal]:
    """What is wrong with the addresses, and the ways between Macs that are next to each other."""
    for each in members:
        yield from _address(each)
    settled = [each for each in members if each.interface is not None and _may_listen(each)]
    known = {each.node for each in settled}
    ring = [*members, members[0]] if len(members) > 2 else members
    for one, other in pairwise(ring):
        if {one.node, other.node} <= known:
            yield from _way(one, other)


def _may_listen(member: Member) -> bool:
    return member.address is not None and is_private(member.address)


def _address(member: Member) -> Iterator[Refusal]:
    node, address = member.node, member.address
    if address is None:
        if member.problem is None:
            yield Refusal(
                node,
                f"The address of {_whose(node)} on the link is not known.",
                f"Give it in the stack file: `{{host: {node}, address: …}}` in `hosts`.",
            )
    elif not is_private(address):
        yield Refusal(
            node,
            f"{address} of {_whose(node)} is a public internet address: what the Macs exchange is "
            "neither encrypted nor checked.",
            f"Give its address on a cable or a private network: `{{host: {node}, address: …}}` in "
            "`hosts` of the stack file.",
        )
    elif member.facts is not None and member.interface is None:
        there = ", ".join(f"{each.address} ({each.interface})" for each in member.interfaces)
        yield Refusal(
            node,
            f"{_subject(node)} has no address {address}; it has {there or 'none'}.",
            f"Give one of these in the stack file: `{{host: {node}, address: …}}` in `hosts`.",
        )


def _way(one: Member, other: Member) -> Iterator[Refusal]:
    """What is wrong with the link between two Macs whose addresses are right."""
    for near, far in ((one, other), (other, one)):
        assert near.interface is not None
        assert far.address is not None
        if reaches(near.interface, far.address):
            continue
        named = far if far.node != HERE else near
        through = [each for each in near.interfaces if reaches(each, far.address)]
        if through:
            yield Refusal(
                named.node,
                f"{far.address} of {_whose(far.node)} is in the network of {through[0].interface} "
                f"of {_whose(near.node)}, and not in that of {near.interface.interface}, which has "
                f"{near.address}.",
                f"Give both addresses of one network in the stack file: "
                f"`{{host: {named.node}, address: …}}` in `hosts`.",
            )
            return
        if not all(each.link_is_private or each.node == HERE for each in (one, other)):
            yield Refusal(
                named.node,
                f"{far.address} of {_whose(far.node)} is in no network that {_whose(near.node)} is "
                "in: others on the route could read and change what the Macs exchange.",
                "Connect them with a cable, and set its addresses in `hosts` of the stack file. "
                "If no one else can listen on the route, set `private_link: true` there, or use "
                "`init --private-link`.",
            )
            return
    here, far = (one, other) if one.node == HERE else (other, one)
    if here.node == HERE and far.reached_from != here.address:
        through = next(
            (each.interface for each in here.interfaces if each.address == far.reached_from), None
        )
        way = f"from {far.reached_from} ({through})" if through is not None else "not at all"
        yield Refusal(
            far.node,
            f"{far.address} of {far.node} is reached {way}, and {here.address} was configured.",
            f"`{{host: {HERE}, address: …}}` in `hosts` of the stack file gives another address of "
            f"this Mac; `route get {far.address}` shows the route.",
        )


def _engine(node: str, here: Facts, there: Facts) -> Iterator[Refusal]:
    if there.lock_sha256 is None or there.lock_sha256 != here.lock_sha256:
        own, its = here.packages.get("mlx-lm"), there.packages.get("mlx-lm")
        versions = f": {its or 'unknown'} there, {own or 'unknown'} here" if own != its else ""
        yield Refusal(
            node,
            f"{node} has another version of the engine than this Mac{versions}.",
            f"Install the same version of mlx-stack on both (`mlx-stack upgrade`); then on {node}: "
            "`mlx-stack engines install mlx-lm`.",
        )
    elif _minor(here.python) != _minor(there.python):
        yield Refusal(
            node,
            f"The engine of {node} runs on Python {there.python}, that of this Mac on "
            f"{here.python}.",
            f"On {node}: install mlx-stack with Python {_minor(here.python)}, then "
            "`mlx-stack engines install mlx-lm`.",
        )


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _model(member: Member, here: Member, pull: str) -> Iterator[Refusal]:
    assert member.facts is not None
    problem = _model_problem(member, here)
    if problem is not None:
        is_here = member.node == HERE
        fix = f"`mlx-stack pull {pull}` completes it."
        yield Refusal(
            member.node,
            problem,
            fix if is_here else f"`mlx-stack pull {pull} --nodes` copies it there.",
        )


def _model_problem(member: Member, here: Member) -> str | None:
    assert member.facts is not None
    model, node = member.facts.model, member.node
    if model is None:
        return f"The model is not on {_whose(node)}."
    wrong = next(
        (each.path for each in model.files if model.sizes.get(each.path) != each.size_bytes), None
    )
    if wrong is not None or model.damaged:
        return f"The model on {_whose(node)} is incomplete: {wrong or model.damaged[0]}."
    if member is here or here.facts is None or here.facts.model is None:
        return None
    own = here.facts.model
    for each, whose in ((own, _whose(here.node)), (model, node)):
        if (
            each.files
            and all(file.algorithm == BEGINNING for file in each.files)
            and ({file.algorithm for file in (*own.files, *model.files)} != {BEGINNING})
        ):
            return f"The model on {whose} was not pulled: its hashes are not known."
    if (different := _difference(own.files, model.files)) is not None:
        return f"The model on {node} is not the one on this Mac: {different} differs."
    known = {each.path for each in model.files}
    more = next((path for path in model.sizes if path not in known and _counts(path)), None)
    if more is not None and more not in own.sizes:
        return f"The model on {node} has a file that the one on this Mac lacks: {more}."
    return None


def _difference(one: Iterable[HashedFile], other: Iterable[HashedFile]) -> str | None:
    """The path of a file that is not the same in both; None where all are."""
    return min((each.path for each in set(one) ^ set(other)), default=None)


def _counts(path: str) -> bool:
    return path.endswith(_WEIGHTS)


def _rdma(member: Member, here: Member, tier: str) -> Iterator[Refusal]:
    """What keeps a Mac from using the devices that the stack file names for it."""
    assert member.facts is not None
    node, facts = member.node, member.facts
    version, there = facts.os_version, facts.rdma_devices or ()
    own = here.facts.os_version if here.facts is not None else None
    missing = next((each for each in member.rdma if each not in there), None)
    if missing is None:
        if member.rdma and version is not None and own is not None and version != own:
            yield Refusal(
                node,
                f"{node} has macOS {version}, and this Mac has {own}: RDMA needs the same on all.",
                "Update macOS on both.",
            )
    elif version is not None and _numbers(version) < _RDMA_SINCE:
        yield Refusal(
            node,
            f"{_subject(node)} has macOS {version}, and RDMA needs 26.2 or later.",
            f"Update macOS there, or leave `rdma` out of `hosts` of {tier} in the stack file.",
        )
    elif not there:
        yield Refusal(
            node,
            f"RDMA is off on {_whose(node)}, or its Thunderbolt ports don't have it.",
            "It needs Thunderbolt 5. Start that Mac in recoveryOS, run `rdma_ctl enable` in its "
            "Terminal, and restart; `ibv_devices` then lists the ports. Without `rdma` in `hosts` "
            f"of {tier} in the stack file, the Macs use TCP.",
        )
    else:
        yield Refusal(
            node,
            f"{_subject(node)} has no RDMA device {missing}; it has {', '.join(there)}.",
            f"Name one of these as `rdma` in `hosts` of {tier} in the stack file.",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(each) for each in version.split(".") if each.isdecimal())


def _port(member: Member, tier: str) -> Iterator[Refusal]:
    assert member.facts is not None
    for port in member.facts.ports_taken:
        if port == member.port:
            yield Refusal(
                member.node,
                f"Another program on {_whose(member.node)} listens on port {port}.",
                f"`lsof -nP -iTCP:{port}` there shows which; another `port` of {tier} in the stack "
                "file moves it.",
            )


def _share(member: Member, tier: str) -> Iterator[Refusal]:
    assert member.facts is not None
    limit, needs, beside = member.facts.gpu_limit_bytes, member.needs_bytes, member.beside_bytes
    if limit is not None and needs is not None and needs + beside > limit:
        more = f", other tiers take {format_bytes(beside)} there" if beside else ""
        yield Refusal(
            member.node,
            f"The share of {_whose(member.node)} takes {format_bytes(needs)}{more}, and its GPU "
            f"may use {format_bytes(limit)}.",
            f"A smaller `context_tokens` or `concurrency` of {tier} in the stack file, or more "
            "Macs in `hosts`.",
        )


def _whose(node: str) -> str:
    return "this Mac" if node == HERE else node


def _subject(node: str) -> str:
    return "This Mac" if node == HERE else node
