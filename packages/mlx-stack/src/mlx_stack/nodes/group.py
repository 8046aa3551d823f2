"""One model on several Macs: what is run where, and what is known of each part.

The parts are ranks, as MLX calls them: rank 0 is here, the others are on the Macs that the tier
names. `group_process` starts them, and writes down how they fare in a file that others read.
"""

import socket
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from mlx_stack import atomic_file
from mlx_stack.engines.mlx_lm_start import RDMA_MEETING
from mlx_stack.nodes.facts import InterfaceAddress
from mlx_stack.nodes.facts_script import addresses
from mlx_stack.nodes.private_link import open_to_others
from mlx_stack.nodes.ssh import host_name
from mlx_stack.stack import HERE, Host, Tier

SSH_AGENT = "SSH_AUTH_SOCK"
"""The variable that says where the agent is that holds the user's keys."""


class AddressError(Exception):
    """A Mac whose address on the ring isn't known, or may not be used."""


class RankState(StrEnum):
    """How a rank fares, as far as the group's program knows."""

    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"


class Rank(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a rank.

    Attributes:
        host: The Mac that it runs on, as `ssh` calls it.
        address: Where it waits for its neighbour on the ring.
        reason: Why it has ended; None while it hasn't, and if another was first.
    """

    rank: int
    host: str
    address: str
    state: RankState = RankState.STARTING
    reason: str | None = None


class Ranks(msgspec.Struct, frozen=True, kw_only=True):
    """The ranks of a tier, as its program has written them down.

    Attributes:
        pid: That program.
    """

    schema_version: int = 1
    pid: int
    ranks: tuple[Rank, ...]

    def of(self, rank: int, host: str, pid: int | None) -> Rank | None:
        """The rank on that Mac, if it is one of that program's; None of another's."""
        if pid != self.pid:
            return None
        return next((each for each in self.ranks if (each.rank, each.host) == (rank, host)), None)


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the group's program is to run besides the engine here.

    Attributes:
        run: The folder for what is known of the ranks.
        own_address: This Mac's address on the ring; None for the one that reaches the first other.
        ring_port: The port of rank 0 there; those of the others follow.
        rdma: The device that leads from each Mac to each, by rank; none where they use the ring.
        workers: The other Macs, by rank.
        model: The name of the model's folder.
        arguments: What the engine is called with there, but for the model.
        environment: What it needs in its environment.
        keeps_awake: Whether those Macs are kept from sleeping meanwhile.
        check: What finds out what speaks against this start, and prints it as `Objections`; nothing
            where nobody does.
    """

    tier: str
    run: str
    own_address: str | None
    ring_port: int
    rdma: tuple[tuple[str | None, ...], ...] = ()
    workers: tuple[Host, ...]
    model: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    keeps_awake: bool
    check: tuple[str, ...] = ()


class Objection(msgspec.Struct, frozen=True, kw_only=True):
    """Why the Macs can't run a model together.

    Attributes:
        host: The Mac that it is about; `HERE` for this one.
        words: What is wrong, and what to do about it.
    """

    host: str
    words: str


type Objections = tuple[Objection, ...]
"""What the check of a start prints, as JSON."""


class Meeting(msgspec.Struct, frozen=True, kw_only=True):
    """How MLX is told where the ranks are.

    Attributes:
        variable: What names the file in the environment.
        content: What is in the file, as JSON.
        environment: What else is to be in the environment.
    """

    variable: str
    content: tuple[tuple[str | None, ...], ...]
    environment: dict[str, str] = {}


def meeting_of(plan: Plan, addresses: Sequence[str]) -> Meeting:
    """How the ranks find one another: over RDMA where the plan names devices, else on the ring.

    MLX isn't told of both ways, so that it can't take the other one.

    Args:
        addresses: `IP:PORT` of each rank; over RDMA, only that of rank 0 is used.
    """
    if not plan.rdma:
        return Meeting(variable="MLX_HOSTFILE", content=tuple((each,) for each in addresses))
    return Meeting(
        variable="MLX_IBV_DEVICES",
        content=plan.rdma,
        environment={RDMA_MEETING: addresses[0]},
    )


def rank_name(tier: str, rank: int) -> str:
    """What a rank is called where services are listed: `huge.rank1`."""
    return f"{tier}.rank{rank}"


def ranks_file(run: Path, tier: str) -> Path:
    """Where the ranks of a tier are written down; not a name that a service's file has."""
    return run / f"{tier}.ranks"


def addresses_file(run: Path, tier: str) -> Path:
    """Where MLX reads the addresses of a tier's ranks, or the devices between them."""
    return run / f"{tier}.addresses"


def write_ranks(run: Path, tier: str, ranks: Ranks) -> None:
    """Write the ranks of a tier down."""
    atomic_file.write_text(ranks_file(run, tier), msgspec.json.encode(ranks).decode())


def forget_ranks(run: Path, tier: str) -> None:
    """Remove what the program of a tier that has ended has written down, if it has."""
    for path in (ranks_file(run, tier), addresses_file(run, tier)):
        path.unlink(missing_ok=True)


def read_ranks(run: Path, tier: str) -> Ranks | None:
    """The ranks of a tier as they were last written down; None where that can't be read."""
    try:
        return msgspec.json.decode(ranks_file(run, tier).read_bytes(), type=Ranks)
    except (OSError, ValueError, RecursionError):
        return None


def ring_addresses(plan: Plan, variables: Mapping[str, str]) -> tuple[str, ...]:
    """The IPv4 address of each rank on the ring, this Mac's first.

    Args:
        variables: The environment that `ssh` may see a part of.

    Raises:
        AddressError: When one isn't known.
    """
    others = [_known(each.host, address_of(each, variables)) for each in plan.workers]
    return (plan.own_address or _known(HERE, way_to(others[0])), *others)


def require_private(plan: Plan, found: Sequence[str]) -> None:
    """Nothing, if the addresses of the ring are on a private link, as seen from this Mac.

    They were checked before the first start. Since then, a name may have come to stand for another
    address, and this Mac may have moved to another network.

    Raises:
        AddressError: When they aren't.
    """
    own, *others = found
    workers = tuple(zip(plan.workers, others, strict=True))
    why = open_to_others(own, workers, msgspec.convert([*addresses()], list[InterfaceAddress]))
    if why is not None:
        raise AddressError(f"{why}: `mlx-stack nodes check` says what to do")


def _known(host: str, address: str | None) -> str:
    if address is None:
        raise AddressError(f"{host} has no IPv4 address: give it an `address` in `hosts`")
    return address


def address_of(worker: Host, variables: Mapping[str, str]) -> str | None:
    """The IPv4 address of another Mac on the link; None where its name has none.

    That is the one in the stack file, or what the name means to `ssh`.
    """
    if worker.address is not None:
        return worker.address
    try:
        return socket.gethostbyname(host_name(worker.host, variables))
    except (OSError, UnicodeError):
        return None


def way_to(address: str) -> str | None:
    """This Mac's address from which it reaches another one; None where there is no way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect((address, 9))  # sends nothing
        except OSError:
            return None
        return str(asked.getsockname()[0])


def command(plan: Plan, here: Sequence[str]) -> tuple[str, ...]:
    """The command line of the program that runs a group.

    Args:
        here: What runs the engine on this Mac.
    """
    said = msgspec.json.encode(plan).decode()
    return (sys.executable, "-P", "-m", "mlx_stack.nodes.group_process", said, *here)


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """What that program needs in its environment, besides what every child has."""
    return {SSH_AGENT: variables[SSH_AGENT]} if SSH_AGENT in variables else {}


def hosts_of(plan: Plan | Tier) -> tuple[str, ...]:
    """The Macs by rank, this one first."""
    return (HERE, *(each.host for each in plan.workers))
