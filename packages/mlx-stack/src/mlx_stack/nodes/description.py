"""What a Mac tells another that takes it for a node: itself, and the models it serves."""

import hashlib
import time

import msgspec

from mlx_gateway.access import machine_name
from mlx_hwprobe import HwprobeError
from mlx_stack import __version__
from mlx_stack.errors import StackError
from mlx_stack.hardware import known_hardware
from mlx_stack.models.disk.manifest import Manifest, read_manifest
from mlx_stack.models.find import local_model_of
from mlx_stack.open_stack import OpenStack
from mlx_stack.stack import Tier

SCHEMA_VERSION = 1


class NodeModel(msgspec.Struct, frozen=True, kw_only=True):
    """A tier as another Mac sees it.

    Attributes:
        digest: One hash over those of all files of the model; None where they are unknown, as of a
            folder that was not pulled.
    """

    tier: str
    model: str
    quant: str | None
    context_tokens: int | None
    concurrency: int
    digest: str | None


class NodeDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What a Mac says of itself. Unknown is None.

    Attributes:
        name: Its host name, without a domain.
        version: Of mlx-stack.
        time: Its clock, in seconds since the epoch.
        models: Those that the asking key may use.
    """

    schema_version: int
    name: str
    version: str
    chip: str | None
    gpu_cores: int | None
    memory_bytes: int | None
    os_version: str | None
    time: float
    models: tuple[NodeModel, ...]


def describe(opened: OpenStack) -> NodeDescription:
    """What this machine says of itself; no secret, and nothing of what is asked of it."""
    try:
        hardware = known_hardware(opened.home)
    except (HwprobeError, StackError, OSError):
        hardware = None
    stack = opened.readable_stack
    return NodeDescription(
        schema_version=SCHEMA_VERSION,
        name=machine_name(),
        version=__version__,
        chip=hardware.chip if hardware is not None else None,
        gpu_cores=hardware.gpu_cores if hardware is not None else None,
        memory_bytes=hardware.memory_bytes if hardware is not None else None,
        os_version=hardware.os_version if hardware is not None else None,
        time=time.time(),
        models=tuple(_model(opened, tier) for tier in (stack.tiers if stack is not None else ())),
    )


def digest_of(opened: OpenStack, tier: Tier) -> str | None:
    """One hash over those of all files of a tier's model, without reading them; None if unknown."""
    try:
        found = local_model_of(opened, tier)
        manifest = read_manifest(found.path) if found is not None else None
    except (StackError, OSError):
        return None
    return digest_in(manifest) if manifest is not None else None


def digest_in(manifest: Manifest) -> str | None:
    """The same for a manifest; None where it lists no file."""
    lines = sorted(f"{each.path}\0{each.algorithm}\0{each.digest}\n" for each in manifest.files)
    return hashlib.sha256("".join(lines).encode()).hexdigest() if lines else None


def _model(opened: OpenStack, tier: Tier) -> NodeModel:
    return NodeModel(
        tier=tier.name,
        model=tier.model,
        quant=tier.quant.value if tier.quant is not None else None,
        context_tokens=tier.context_tokens,
        concurrency=tier.concurrency,
        digest=digest_of(opened, tier),
    )
