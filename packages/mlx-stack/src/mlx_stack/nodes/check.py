"""Every node asked at once: does it answer, who is it, how good is the link, what does it serve."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from mlx_stack import __version__
from mlx_stack.nodes.client import LinkSpeed, NodeAnswer, NodeUnreachableError, ask, measure
from mlx_stack.nodes.description import NodeModel, digest_of
from mlx_stack.nodes.file import Node, load_nodes
from mlx_stack.nodes.group_check import Group, Member, Refusal, look, refusals
from mlx_stack.nodes.manage import require_node, shown
from mlx_stack.nodes.own_door import closed_because
from mlx_stack.open_stack import OpenStack
from mlx_stack.stack import Tier

LARGEST_SKEW_S = 5.0
"""More than that makes times in two Macs' logs and ledgers hard to compare."""


@dataclass(frozen=True, slots=True)
class CheckedNode:
    """What was found of one node.

    Attributes:
        problem: Why it is of no use now; None where it answered.
        same_weights: For each of its tiers, whether a tier of that name here has the same files;
            None where either side doesn't know, or there is no such tier here.
        notes: What to look at, in sentences.
    """

    node: Node
    problem: str | None
    hint: str | None = None
    answer: NodeAnswer | None = None
    link: LinkSpeed | None = None
    same_weights: tuple[bool | None, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def models(self) -> tuple[NodeModel, ...]:
        """What it serves."""
        return self.answer.description.models if self.answer is not None else ()

    def to_document(self) -> dict[str, object]:
        """One row of the JSON answer."""
        answer, link = self.answer, self.link
        said = answer.description if answer is not None else None
        return {
            **shown(self.node),
            "reachable": self.problem is None,
            "problem": self.problem,
            "host_name": said.name if said is not None else None,
            "version": said.version if said is not None else None,
            "chip": said.chip if said is not None else None,
            "gpu_cores": said.gpu_cores if said is not None else None,
            "memory_bytes": said.memory_bytes if said is not None else None,
            "os_version": said.os_version if said is not None else None,
            "round_trip_ms": round(link.round_trip_s * 1000, 2) if link is not None else None,
            "link_bytes_per_s": round(link.bytes_per_s) if link is not None else None,
            "clock_ahead_s": round(answer.clock_ahead_s, 3) if answer is not None else None,
            "models": [
                {
                    "tier": model.tier,
                    "model": model.model,
                    "quant": model.quant,
                    "context_tokens": model.context_tokens,
                    "concurrency": model.concurrency,
                    "digest": model.digest,
                    "same_as_here": same,
                }
                for model, same in zip(self.models, self.same_weights, strict=True)
            ],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class CheckedGroup:
    """What was found of the Macs of one tier."""

    group: Group

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """What speaks against a start."""
        return refusals(self.group)

    def to_document(self) -> dict[str, object]:
        """One row of the JSON answer."""
        return {
            "tier": self.group.tier,
            "hosts": [_said_of(each) for each in self.group.members],
            "refusals": [each.to_document() for each in self.refusals],
        }


def _said_of(member: Member) -> dict[str, object]:
    facts, interface = member.facts, member.interface
    return {
        "host": member.node,
        "reachable": facts is not None,
        "address": member.address,
        "interface": interface.interface if interface is not None else None,
        "os_version": facts.os_version if facts is not None else None,
        "os_build": facts.os_build if facts is not None else None,
        "python": facts.python if facts is not None else None,
        "mlx": facts.packages.get("mlx") if facts is not None else None,
        "mlx_lm": facts.packages.get("mlx-lm") if facts is not None else None,
        "memory_bytes": facts.memory_bytes if facts is not None else None,
        "gpu_limit_bytes": facts.gpu_limit_bytes if facts is not None else None,
        "needs_bytes": member.needs_bytes,
        "rdma_devices": facts.rdma_devices if facts is not None else None,
    }


@dataclass(frozen=True, slots=True)
class NodesCheck:
    """What was found of all.

    Attributes:
        door_problem: Why other Macs can't reach this one though they should; None where they can.
        groups: The tiers that run on several Macs.
    """

    nodes: tuple[CheckedNode, ...]
    door_problem: str | None = None
    groups: tuple[CheckedGroup, ...] = ()

    @property
    def is_well(self) -> bool:
        """Whether every node answered, and every tier on several Macs could be started."""
        answered = all(each.problem is None for each in self.nodes)
        return answered and not any(each.refusals for each in self.groups)

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {
            "nodes": [each.to_document() for each in self.nodes],
            "door_problem": self.door_problem,
            "groups": [each.to_document() for each in self.groups],
        }


def check_nodes(opened: OpenStack, name: str | None = None) -> NodesCheck:
    """Ask every node, or the one of that `name`, all at once; changes nothing.

    So are the Macs in `hosts` of tiers, which needn't be nodes.

    Raises:
        UsageError: When there is no such node, and no such Mac in `hosts`.
        InvalidFileError: When the file is damaged.
        MissingError: When a tier runs on several Macs, and there is no `ssh` on this one.
    """
    known = load_nodes(opened.home.nodes)
    stack = opened.readable_stack
    tiers = stack.tiers if stack is not None else ()
    grouped = [tier for tier in tiers if tier.workers]
    if name is not None:
        grouped = [tier for tier in grouped if name in (each.host for each in tier.workers)]
    is_all = name is None
    nodes = known.nodes if is_all else tuple(each for each in known.nodes if each.name == name)
    if name is not None and not nodes and not grouped:
        require_node(known, name)
    groups = tuple(CheckedGroup(look(opened, tier)) for tier in grouped)
    here = {tier.name: digest_of(opened, tier) for tier in tiers}
    with ThreadPoolExecutor(max_workers=max(len(nodes), 1)) as pool:
        checked = tuple(pool.map(partial(_check, here, tiers), nodes))
    return NodesCheck(checked, closed_because(opened), groups)


def _check(here: dict[str, str | None], tiers: Sequence[Tier], node: Node) -> CheckedNode:
    try:
        answer = ask(node)
        link = measure(node)
    except NodeUnreachableError as error:
        return CheckedNode(node, error.message, error.hint)
    models = answer.description.models
    same = tuple(same_weights(here.get(each.tier), each.digest) for each in models)
    lacking = missing_replicas(tiers, node.name, [each.tier for each in models])
    notes = (*_notes(answer, zip(models, same, strict=True)), *lacking)
    return CheckedNode(node, None, None, answer, link, same, notes)


def same_weights(here: str | None, there: str | None) -> bool | None:
    """Whether two models have the same files; None where that is unknown."""
    return None if here is None or there is None else here == there


def missing_replicas(tiers: Iterable[Tier], node: str, there: Collection[str]) -> Iterator[str]:
    """What a node doesn't serve though `replicas` say so, in sentences.

    Args:
        there: The tiers that our key may use on that node.
    """
    for tier in tiers:
        for each in tier.replicas:
            if each.node == node and each.tier not in there:
                yield (
                    f"The tier {tier.name!r} has the replica {each.shown(each.tier)}, but there "
                    "is no such tier for this Mac's key."
                )


def _notes(answer: NodeAnswer, models: Iterable[tuple[NodeModel, bool | None]]) -> Iterable[str]:
    version, ahead_s = answer.description.version, answer.clock_ahead_s
    if version != __version__:
        yield f"It runs mlx-stack {version}; this Mac runs {__version__}."
    if abs(ahead_s) > LARGEST_SKEW_S + answer.clock_within_s:
        how = "ahead" if ahead_s > 0 else "behind"
        yield f"Its clock is {abs(ahead_s):.0f} s {how}: let both Macs set it automatically."
    for model, same in models:
        if same is False:
            yield f"The tier {model.tier!r} there has other weights than the one here."
