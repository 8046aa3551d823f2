"""The stack definition: which tiers there are, and the one reader and writer of its file."""

import ipaddress
import re
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated

import msgspec

from mlx_catalog import ModelRole, Quant, ServingEngine, yaml12
from mlx_gateway.settings import NameAtGateway
from mlx_stack import atomic_file, yaml_file
from mlx_stack.errors import InvalidFileError, NoStackError, StackError, UsageError

SCHEMA_VERSION = 1
DEFAULT_PORTS = {"standard": 8000, "fast": 8001, "longctx": 8002}
"""The ports of the usual tiers; a tier of the user's own takes the next free one."""

type Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
TIER_NAME = r"\A[a-z][a-z0-9-]{0,31}\Z"
type TierName = Annotated[str, msgspec.Meta(pattern=TIER_NAME)]
NODE_NAME = r"\A[a-z0-9][a-z0-9-]{0,31}\Z"
type NodeName = Annotated[str, msgspec.Meta(pattern=NODE_NAME)]
type FlagValue = bool | int | float | str

_HINT = "Fix the file, or write a new one with `mlx-stack init --force`."
_FOREIGN_HINT = (
    "Another program called mlx-stack wrote the file; `mlx-stack init --import {path} --force` "
    "imports its models and keeps a copy."
)
RESERVED_NAMES = frozenset({"gateway", "litellm", "watchdog"})
"""Names of services that aren't tiers."""
_FLAG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_LOOPBACK_HOSTS = ("127.0.0.1", "localhost")
_ENGINE_FLAGS = frozenset(
    {
        *("help", "enable-auto-tool-choice", "tool-call-parser"),
        *("api-key", "auto-unload-idle-seconds", "cache-memory-mb", "cache-memory-percent"),
        *("chunked-prefill-tokens", "completion-batch-size", "continuous-batching"),
        *("default-chat-template-kwargs", "default-min-p", "default-mllm-draft"),
        *("default-presence-penalty", "default-repetition-penalty", "default-temperature"),
        *("default-thinking-token-budget", "default-top-k", "default-top-p"),
        *("disable-prefix-cache", "download-retries", "download-timeout"),
        *("embedding-max-length", "embedding-model", "embedding-overflow-policy"),
        *("enable-metrics", "enable-mtp", "enable-prefix-cache", "gpu-memory-utilization"),
        *("host", "kv-cache-min-quantize-tokens", "kv-cache-quantization"),
        *("kv-cache-quantization-bits", "kv-cache-quantization-group-size", "lazy-load-model"),
        *("max-audio-upload-mb", "max-cache-blocks", "max-kv-size", "max-num-seqs"),
        *("max-request-tokens", "max-tokens", "max-tts-input-chars", "mcp-config"),
        *("memory-budget-gb", "mllm", "mllm-draft-block-size", "mllm-draft-kind"),
        *("mllm-draft-model", "mllm-prefill-step-size", "models-config"),
        *("mtp-num-draft-tokens", "mtp-optimistic", "no-memory-aware-cache", "offline"),
        *("paged-cache-block-size", "port", "prefill-batch-size", "prefill-step-size"),
        *("prefix-cache-size", "prefix-trie-cache", "prefix-trie-cache-memory-mb"),
        *("prefix-trie-cache-size", "rate-limit", "reasoning-parser", "rerank-model"),
        *("served-model-name", "specprefill", "specprefill-backbone-pct"),
        *("specprefill-draft-model", "specprefill-keep-pct", "specprefill-threshold"),
        *("ssd-cache-dir", "ssd-cache-max-gb", "stream-interval", "timeout"),
        *("trust-remote-code", "use-paged-cache", "warm-prompts"),
    }
)
"""What `vllm-mlx serve` (0.6.0) knows. It takes any unambiguous beginning for the flag itself."""


_MLX_LM_FLAGS = frozenset(
    {
        *("chat-template-args", "decode-concurrency", "kv-bits", "kv-group-size", "max-tokens"),
        *("min-p", "pipeline", "prefill-step-size", "prompt-cache-bytes", "prompt-cache-size"),
        *("prompt-concurrency", "quantized-kv-start", "temp", "top-k", "top-p"),
        *("use-default-chat-template",),
    }
)
"""What may be said to mlx_lm.server (0.32.2): nothing that opens it, or loads something else."""


HERE = "here"
"""What an item of `hosts` calls this Mac."""
SSH_NAME = r"\A(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,63}@)?[A-Za-z0-9_][A-Za-z0-9._-]{0,252}\Z"
"""What `ssh` may be asked for: nothing that it could take for an option, a port or an address."""
type SshName = Annotated[str, msgspec.Meta(pattern=SSH_NAME)]
MOST_HOSTS = 7
"""How many Macs besides this one a tier may run on."""
USUAL_HOME = "~/.mlx-stack"
_RDMA_DEVICE = re.compile(r"rdma_[a-z]{1,10}[0-9]{1,4}")
"""What macOS calls a Thunderbolt port that it offers for RDMA."""
_HOME = re.compile(r"(~|/|~?/[^\0-\x1f\x7f\\]{1,1000})")
"""Without backslashes, which not every login shell over there reads alike."""
_RING_PORTS = 20_000
_PORTS_OF_A_RING = MOST_HOSTS + 1
_RINGS = 1000


class Host(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A Mac that a part of a tier's model runs on.

    Attributes:
        host: What `ssh` calls it, or `HERE`.
        address: Its IPv4 address on the link between the Macs; None for the one that its name
            stands for, or here for the one that reaches the first of the others.
        home: Its state folder, where it isn't the usual one; `~` is the user's home over there.
        private_link: Whether the user said that nobody else can listen on the way there, though
            routers are on it.
        rdma: The device that leads from it to the other Mac; where there are more, one to each of
            the Macs by rank, and None for itself. None of all leaves them to MLX's ring.
    """

    host: SshName
    address: str | None = None
    home: str | None = None
    private_link: bool = False
    rdma: str | tuple[str | None, ...] | None = None


class Replica(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another Mac that serves a tier as well.

    Attributes:
        node: The Mac, as `nodes.yaml` calls it.
        tier: The tier there.
    """

    node: NodeName
    tier: TierName

    def shown(self, name: str) -> str:
        """What the tier `name` is called when this Mac answers for it: `standard@studio`."""
        return f"{name}@{self.node}"


class Tier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One engine process: a model on a port.

    Attributes:
        name: The tier's name, which is also a model name at the gateway.
        model: The catalog id, or the user's own name for it; also a model name at the gateway.
        quant: The precision of the weights; None where it is none of those with a name.
        source: The Hub repository that the weights come from, or the absolute path of a folder.
        port: Where the engine listens, on loopback.
        vllm_flags: More flags for `vllm-mlx serve`, by name without the leading dashes; `true`
            gives the bare flag, `false` leaves it out, a value follows it.
        context_tokens: The context length that memory is planned for; None leaves it to the model.
        lazy: Start the engine with the first request only.
        idle_unload_s: End the engine after so many idle seconds; None never does.
        pinned: Never end the engine to make room for another.
        ssd_cache_gb: Keep conversations on disk, in at most so many gigabytes, so that they survive
            a restart of the engine; None keeps none.
        tuned_by: The result of `bench --tune` that flags in `vllm_flags` come from; None where no
            such result was applied.
        role: What the model is for, which decides which engine serves it.
        engine: Which engine serves it, where its role leaves a choice; None for vllm-mlx.
        mlx_lm_flags: More flags for mlx_lm.server, as in `vllm_flags`, where that is the engine.
        replicas: The other Macs that serve it as well.
        hosts: The Macs that its model is divided between, as the file says it: `workers` are the
            others, and `own_address` is what it says of this one.
    """

    name: TierName
    model: NameAtGateway
    quant: Quant | None
    source: Annotated[str, msgspec.Meta(min_length=1)]
    port: Port
    vllm_flags: dict[str, FlagValue]
    context_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    concurrency: Annotated[int, msgspec.Meta(ge=1)] = 1
    lazy: bool = False
    idle_unload_s: Annotated[int, msgspec.Meta(ge=1)] | None = None
    pinned: bool = False
    ssd_cache_gb: Annotated[int, msgspec.Meta(ge=1)] | None = None
    tuned_by: str | None = None
    role: ModelRole = ModelRole.CHAT
    engine: ServingEngine | None = None
    mlx_lm_flags: dict[str, FlagValue] = {}
    replicas: tuple[Replica, ...] = ()
    hosts: tuple[SshName | Host, ...] = ()

    @property
    def workers(self) -> tuple[Host, ...]:
        """The other Macs that a part of the model runs on, by rank: the first of them has rank 1.

        Nobody, for a tier whose whole model runs on this Mac.
        """
        return tuple(each for each in self.all_hosts if each.host != HERE)

    @property
    def macs(self) -> int:
        """How many Macs the model runs on, this one included."""
        return len(self.workers) + 1

    @property
    def own_address(self) -> str | None:
        """This Mac's address on the link to them, where the file says it."""
        return next((each.address for each in self.all_hosts if each.host == HERE), None)

    def ring_port(self, rank: int) -> int:
        """Where the Mac of that rank waits for its neighbour; it follows from the tier's port."""
        return _RING_PORTS + self.port % _RINGS * _PORTS_OF_A_RING + rank

    @property
    def rdma_devices(self) -> tuple[tuple[str | None, ...], ...]:
        """Which device leads from each Mac to each, by rank; none where they use MLX's ring."""
        here = next((each for each in self.all_hosts if each.host == HERE), Host(host=HERE))
        rows: list[tuple[str | None, ...]] = []
        for rank, each in enumerate((here, *self.workers)):
            if isinstance(each.rdma, str):
                rows.append((None, each.rdma) if rank == 0 else (each.rdma, None))
            elif each.rdma is not None:
                rows.append(each.rdma)
        return tuple(rows)

    @property
    def all_hosts(self) -> tuple[Host, ...]:
        """What the file says of each Mac, in its order."""
        return tuple(Host(host=each) if isinstance(each, str) else each for each in self.hosts)

    @property
    def is_on_mlx_lm(self) -> bool:
        """Whether mlx-lm serves it, and not vllm-mlx or what stands in its environment."""
        return self.engine is ServingEngine.MLX_LM


class Stack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `stacks/default.yaml` says.

    Attributes:
        tiers: In order of importance: fallback goes down the list.
        hardware_profile: The profile id of the machine that the stack was made for.
        aliases: More model names at the gateway, each for a tier or a model on this disk.
    """

    schema_version: int = SCHEMA_VERSION
    tiers: tuple[Tier, ...]
    hardware_profile: str | None = None
    intent: str | None = None
    aliases: dict[NameAtGateway, NameAtGateway] = {}

    @property
    def chatting(self) -> tuple[Tier, ...]:
        """The tiers that write answers, in their order."""
        return tuple(tier for tier in self.tiers if tier.role.chats)

    @property
    def main_tier(self) -> Tier:
        """The first of those.

        Raises:
            StackError: When there is none.
        """
        if not self.chatting:
            raise StackError(
                "No tier of the stack chats.",
                hint="`mlx-stack init --add MODEL` adds one that does.",
            )
        return self.chatting[0]

    def tier(self, name: str) -> Tier | None:
        """The tier of that name, or None."""
        return next((tier for tier in self.tiers if tier.name == name), None)


def require_tier(tier: str, known: Collection[str]) -> None:
    """Nothing, if `tier` is among the known ones.

    Raises:
        UsageError: It isn't; the hint names those that are.
    """
    if tier not in known:
        names = ", ".join(known) or "none yet"
        raise UsageError(f"There is no tier {tier!r}.", hint=f"The stack has: {names}.")


def require_role(tier: Tier, role: ModelRole = ModelRole.CHAT) -> None:
    """Nothing, if the tier's model does the work of a role.

    Whether one that chats reads images as well, only it can say.

    Raises:
        UsageError: It is for something else.
    """
    if role == tier.role or (role.chats and tier.role.chats):
        return
    if role.chats:
        problem = "it writes no answers"
        hint = f"`mlx-stack bench {tier.name}` without options for chats measures what it does."
    else:
        problem, hint = f"it doesn't do the work of the role {role}", None
    raise UsageError(f"{tier.model!r} has the role {tier.role}: {problem}.", hint=hint)


def load_stack(path: Path) -> Stack:
    """The stack that the file at `path` defines.

    Raises:
        NoStackError: When there is no such file.
        InvalidFileError: When it is damaged, of a newer version, or contradicts itself.
    """
    try:
        document = yaml_file.parse(path, hint=_HINT)
    except FileNotFoundError as error:
        raise NoStackError from error
    versioned = document.as_a(_Versioned, hint=_HINT)
    if versioned.schema_version > SCHEMA_VERSION:
        raise InvalidFileError(
            path,
            f"was written by a newer mlx-stack (schema_version {versioned.schema_version}, "
            f"this one reads {SCHEMA_VERSION})",
            hint="Upgrade mlx-stack, or write a new file with `mlx-stack init --force`.",
        )
    if versioned.schema_version < 1:
        raise InvalidFileError(path, "`schema_version` must be 1", hint=_HINT)
    hint = _FOREIGN_HINT.format(path=path) if versioned.created is not None else _HINT
    stack = document.as_a(Stack, hint=hint)
    problem = contradiction(stack)
    if problem is not None:
        raise InvalidFileError(path, problem, hint=_HINT)
    return stack


def save_stack(path: Path, stack: Stack) -> None:
    """Write `stack` to `path` atomically.

    Raises:
        ValueError: When the stack contradicts itself.
        OSError: When the file can't be written; what was there is unchanged.
    """
    problem = contradiction(stack)
    if problem is not None:
        raise ValueError(problem)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_file.write_text(path, render_stack(stack))


def render_stack(stack: Stack) -> str:
    """The YAML text of a stack, fields in the order of their declaration."""
    return yaml12.write(msgspec.to_builtins(stack))


def contradiction(stack: Stack) -> str | None:
    """What is wrong with a stack though each field is valid by itself, or None."""
    names = [tier.name for tier in stack.tiers]
    ports: dict[int, str] = {}
    if not names:
        return "`tiers` is empty: a stack needs at least one"
    for tier in stack.tiers:
        if tier.name in RESERVED_NAMES:
            return f"a tier can't be called {tier.name!r}: that name is reserved"
        if names.count(tier.name) > 1:
            return f"the tier {tier.name!r} is defined twice"
        if tier.port in ports:
            return f"the tiers {ports[tier.port]!r} and {tier.name!r} share port {tier.port}"
        ports[tier.port] = tier.name
        problem = (
            _role_problem(tier)
            or _flag_problem(tier)
            or _replica_problem(tier)
            or _hosts_problem(tier)
        )
        if problem is not None:
            return problem
    problem = _ring_problem(stack.tiers)
    if problem is not None:
        return problem
    for alias, target in stack.aliases.items():
        if alias in names and alias != target:
            return f"the alias {alias!r} is also the name of a tier"
    return None


def _role_problem(tier: Tier) -> str | None:
    """Why nothing serves a tier of this role as it is defined, or None."""
    if tier.ssd_cache_gb is not None and not tier.role.chats:
        return (
            f"the tier {tier.name!r} has `ssd_cache_gb`, but a model of the role {tier.role} has "
            "no conversations"
        )
    if tier.vllm_flags and not tier.role.chats:
        return (
            f"the tier {tier.name!r} has `vllm_flags`, but a model of the role {tier.role} is "
            "served by another engine"
        )
    return _engine_problem(tier)


def _engine_problem(tier: Tier) -> str | None:
    """What of a tier its engine can't have, or None."""
    if tier.engine is not None and not tier.role.chats:
        return (
            f"the tier {tier.name!r} has the role {tier.role}, which leaves no choice of `engine`"
        )
    if not tier.is_on_mlx_lm:
        if tier.mlx_lm_flags:
            return f"the tier {tier.name!r} has `mlx_lm_flags`, but vllm-mlx serves it"
        return None
    if tier.role is ModelRole.VISION:
        return f"the tier {tier.name!r} has the role {tier.role}, but mlx-lm can't read images"
    if tier.ssd_cache_gb is not None:
        return f"the tier {tier.name!r} has `ssd_cache_gb`, but mlx-lm keeps nothing on disk"
    if tier.vllm_flags:
        return f"the tier {tier.name!r} has `vllm_flags`, but mlx-lm serves it: see `mlx_lm_flags`"
    wrong = next((name for name in tier.mlx_lm_flags if name not in _MLX_LM_FLAGS), None)
    if wrong is not None:
        known = ", ".join(sorted(_MLX_LM_FLAGS))
        return (
            f"the tier {tier.name!r} has a flag {wrong!r} in `mlx_lm_flags`; the known flags "
            f"are: {known}"
        )
    return None


def _replica_problem(tier: Tier) -> str | None:
    """What is wrong with the replicas of a tier, or None."""
    nodes = [each.node for each in tier.replicas]
    twice = next((node for node in nodes if nodes.count(node) > 1), None)
    return None if twice is None else f"the tier {tier.name!r} has two replicas on {twice!r}"


def _hosts_problem(tier: Tier) -> str | None:
    """Why a tier can't run on several Macs as it is defined, or None."""
    whose = f"the tier {tier.name!r}"
    if not tier.hosts:
        if tier.mlx_lm_flags.get("pipeline"):
            return f"{whose} has `pipeline` in `mlx_lm_flags`, but no `hosts` to divide it between"
        return None
    if not tier.is_on_mlx_lm:
        return f"{whose} has `hosts`, which needs `engine: mlx-lm`"
    if tier.replicas:
        return f"{whose} has both `hosts` and `replicas`"
    if not 1 <= len(tier.workers) <= MOST_HOSTS:
        return f"{whose} must have 1 to {MOST_HOSTS} other Macs in `hosts`"
    problems = chain(_of_hosts(tier.all_hosts), _of_rdma(tier))
    return next((f"{whose} has `hosts` in which {problem}" for problem in problems), None)


def _of_hosts(hosts: tuple[Host, ...]) -> Iterator[str]:
    """What is wrong with the Macs that a tier names."""
    names = [each.host for each in hosts]
    addresses = [each.address for each in hosts if each.address is not None]
    for each in hosts:
        if names.count(each.host) > 1:
            yield f"{each.host!r} is named twice"
        if each.host == HERE and (
            (each.address is None and each.rdma is None)
            or each.home is not None
            or each.private_link
        ):
            yield f"{HERE!r} must have an `address` or `rdma`, and nothing else"
        if each.home is not None and not _HOME.fullmatch(each.home):
            yield (
                f"the `home` of {each.host!r} isn't an absolute path, or one below `~`, "
                "without backslashes"
            )
        if each.address is None:
            continue
        if not _is_a_macs(each.address):
            yield f"the `address` of {each.host!r} isn't the IPv4 address of a Mac"
        if addresses.count(each.address) > 1:
            yield f"the address {each.address} is named twice"


def _ring_problem(tiers: tuple[Tier, ...]) -> str | None:
    """Why the Macs of a tier would connect to what belongs to another one, or None."""
    for tier in tiers:
        if not tier.hosts:
            continue
        ring = range(tier.ring_port(0), tier.ring_port(len(tier.workers)) + 1)
        for each in tiers:
            if each.port in ring or (
                each.hosts and each is not tier and each.ring_port(0) == ring.start
            ):
                return (
                    f"the port {each.port} of {each.name!r} doesn't go with the port {tier.port} "
                    f"of {tier.name!r}, whose Macs use {ring.start} to {ring[-1]} among themselves"
                )
    return None


def _of_rdma(tier: Tier) -> Iterator[str]:
    """What is wrong with the devices that a tier names: MLX wants one from each Mac to each."""
    named = [each for each in tier.all_hosts if each.rdma is not None]
    if named and len(named) < tier.macs:
        yield f"only some Macs have `rdma`: all must have it, including {HERE!r}, or none"
        return
    for each in named:
        if tier.macs > 2 and isinstance(each.rdma, str):
            yield f"the `rdma` of {each.host!r} must be a list, with a device for each other Mac"
            return
    for rank, devices in enumerate(tier.rdma_devices):
        host = (HERE, *(each.host for each in tier.workers))[rank]
        if any(one is not None and not _RDMA_DEVICE.fullmatch(one) for one in devices):
            yield f"the `rdma` of {host!r} isn't a device of `ibv_devices`, such as `rdma_en5`"
        empty = [at for at, one in enumerate(devices) if one is None]
        if len(devices) != tier.macs or empty != [rank]:
            yield (
                f"the `rdma` of {host!r} must have a device for each Mac in their order, this Mac "
                "first, and null for itself"
            )


def _is_a_macs(address: str) -> bool:
    """Whether a text is an IPv4 address that one machine has: MLX's ring knows no others."""
    try:
        known = ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return not (known.is_multicast or known.is_unspecified or known.is_reserved)


def _flag_problem(tier: Tier) -> str | None:
    """What the engine's flags of a tier may not say, or None."""
    for name, value in tier.vllm_flags.items():
        if not _FLAG_NAME.fullmatch(name):
            return (
                f"the tier {tier.name!r} has a flag {name!r} in `vllm_flags`: write names "
                "without the leading dashes"
            )
        whole = min((flag for flag in _ENGINE_FLAGS if flag.startswith(name)), default=name)
        if whole != name:
            return (
                f"the tier {tier.name!r} has a flag {name!r} in `vllm_flags`, which the engine "
                f"would mistake for another: write it in full ({whole})"
            )
        if name == "served-model-name" and value != tier.model:
            return (
                f"the tier {tier.name!r} has different names in `vllm_flags` "
                "(served-model-name) and `model`"
            )
        if name == "port" and value != tier.port:
            return f"the tier {tier.name!r} has different ports in `vllm_flags` and `port`"
        if name == "host" and value not in _LOOPBACK_HOSTS:
            return (
                f"the tier {tier.name!r} would listen on {value!r}: engines have no key, so they "
                "stay on 127.0.0.1; the gateway is what `gateway-host` opens to the network"
            )
    return None


class _Versioned(msgspec.Struct, frozen=True):
    """The part of the file that says which reader it needs.

    Attributes:
        created: A field that only mlx-stack 0.3, an earlier program of this name, writes.
    """

    schema_version: int
    created: object = None
