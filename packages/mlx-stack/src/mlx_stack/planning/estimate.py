"""Will a model run on a machine, in how much memory, how fast."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_catalog import CatalogEntry, Quant, read_model
from mlx_catalog.geometry import load_config as load_model_config
from mlx_hwprobe import HardwareProfile
from mlx_recommend import (
    Estimate,
    Measurement,
    ModelShape,
    Workload,
    estimate,
    reference_measurements,
    shape_of_config,
    shape_of_entry,
)
from mlx_stack.errors import MissingError
from mlx_stack.hardware import asked_hardware
from mlx_stack.home import Home
from mlx_stack.models.find import FoundModel, find, guessing, local_models
from mlx_stack.models.hub.environment import read_environment
from mlx_stack.models.name import HubRepo
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.evidence import (
    measurements_of,
    measurements_of_source,
    saved_benchmarks,
)

if TYPE_CHECKING:
    from mlx_catalog.hub import RepoReading

type HubReader = Callable[[HubRepo], "RepoReading"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedModel:
    """A model that was named, and what is known of it without running it.

    Attributes:
        found: What the name means.
        quant: The precision asked for, or what the files have.
        shape: What memory and speed follow from; None where the files don't tell enough.
        note: What the user should know about the name or the figures, or "".
    """

    found: FoundModel
    quant: str
    shape: ModelShape | None
    note: str = ""

    @property
    def name(self) -> str:
        """The catalog id, the repository, or the path."""
        return self.found.entry.id if self.found.entry is not None else self.found.name

    @property
    def entry(self) -> CatalogEntry | None:
        """The catalog's entry, where it has one."""
        return self.found.entry


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEstimate:
    """A model on a machine.

    Attributes:
        model: The model.
        hardware: The machine.
        workload: What the model is to do.
        estimate: What to expect; None where nothing is known of the model's parameters.
    """

    model: DescribedModel
    hardware: HardwareProfile
    workload: Workload
    estimate: Estimate | None


def estimate_model(
    home: Home,
    name: str,
    *,
    hardware_spec: str | None = None,
    quant: Quant | None = None,
    workload: Workload | None = None,
    use_measured: bool = True,
    read_hub: HubReader | None = None,
) -> ModelEstimate:
    """What to expect of a model; reads only.

    Args:
        home: For the configuration, saved results and the user's own catalog entries.
        name: A catalog id, a Hub repository, a model folder or a `config.json`.
        hardware_spec: The machine; None is this one.
        quant: The precision; None is the model's own, or for a catalog entry the default.
        workload: Context and concurrency; None is the defaults.
        use_measured: Whether saved and published figures replace computed ones.
        read_hub: Asks the Hub; None is the one that the environment names.

    Raises:
        UnknownModelError: When nothing is called so; with the nearest names of the catalog.
        UnreadableModelError: When the local files are damaged.
        StackError: When the Hub doesn't answer, or has no such repository.
    """
    opened = OpenStack(home)
    default_quant = as_quant(opened.config.default_quant)
    model = describe_model(opened, name, quant, default_quant, read_hub)
    hardware = asked_hardware(home, hardware_spec)
    workload = workload or Workload()
    if model.shape is None:
        return ModelEstimate(model=model, hardware=hardware, workload=workload, estimate=None)
    known = _measurements(home, model, hardware, default_quant) if use_measured else ()
    expected = estimate(model.shape, hardware, workload, known)
    return ModelEstimate(model=model, hardware=hardware, workload=workload, estimate=expected)


def describe_model(
    opened: OpenStack,
    text: str,
    quant: Quant | None,
    default_quant: Quant,
    read_hub: HubReader | None = None,
) -> DescribedModel:
    """The model that `text` means, from the catalog, its files here, or the Hub, in this order.

    Args:
        opened: Where the catalog and the models folder are.
        text: What the user typed.
        quant: The precision asked for, or None.
        default_quant: What a catalog entry is estimated at otherwise.
        read_hub: Asks the Hub, only where nothing else answers; None as for `estimate_model`.
    """
    found = find(opened, text)
    if found.entry is not None:
        own = found.entry.quant_of(found.repo.repo) if found.repo is not None else None
        wanted = quant or own or default_quant
        shape = shape_of_entry(found.entry, wanted)
        return DescribedModel(found=found, quant=wanted, shape=shape, note=found.note)
    if found.path is not None:
        return _of_files(found, found.path, quant)
    local = next(iter(local_models(opened, found, quant)), None)
    if local is not None and local.is_whole:
        return _of_files(found, local.path, quant)
    assert found.repo is not None
    with guessing(opened, found.repo):
        reading = (read_hub or read_from_hub)(found.repo)
    weights_bytes = reading.weights_bytes or None
    shape = shape_of_config(reading.repo, reading.config, quant=quant, weights_bytes=weights_bytes)
    said = quant or reading.model.quant or reading.model.quantization
    return _described(found, said, shape, reading.model.notes)


def read_from_hub(repo: HubRepo) -> "RepoReading":
    """What the Hub says of a repository, with the user's endpoint and token.

    Raises:
        MissingError: When `HF_HUB_OFFLINE` forbids asking.
        StackError: When it doesn't answer, or has no such repository.
    """
    from mlx_stack.models.hub.client import open_hub

    environment = read_environment()
    if environment.is_offline:
        raise MissingError(
            f"{repo.repo} is not in the catalog, and HF_HUB_OFFLINE forbids asking the Hub.",
            hint="Unset HF_HUB_OFFLINE, or name a local folder.",
        )
    where = (repo.repo, repo.revision or "main")
    with open_hub(environment.ready(), *where) as hub:
        return hub.read(*where)


def shape_of_folder(path: Path, quant: Quant | None = None) -> ModelShape | None:
    """The shape of the model in a folder, or of a `config.json` alone; None where it isn't told.

    Raises:
        UnreadableModelError: When the files are damaged.
    """
    reading = read_model(path)
    config = load_model_config(path / "config.json" if path.is_dir() else path)
    return shape_of_config(
        path.name,
        config,
        quant=quant,
        weights_bytes=reading.weights_bytes,
        params=reading.params,
    )


def _of_files(found: FoundModel, path: Path, quant: Quant | None) -> DescribedModel:
    reading, shape = read_model(path), shape_of_folder(path, quant)
    said = quant or reading.quant or reading.quantization
    return _described(found, said, shape, reading.notes)


def _described(
    found: FoundModel, quant: str, shape: ModelShape | None, notes: tuple[str, ...]
) -> DescribedModel:
    note = "; ".join(notes)
    if (shape is None or shape.weights_bytes is None) and not note:
        note = "its configuration doesn't tell how many parameters it has"
    if shape is not None:
        quant = shape.quant
    return DescribedModel(found=found, quant=quant, shape=shape, note=note)


def as_quant(text: str) -> Quant:
    """A precision that the configuration has already validated, as the catalog's type."""
    match text:
        case "int8" | "bf16":
            return text
        case _:
            return "int4"


def _measurements(
    home: Home, model: DescribedModel, hardware: HardwareProfile, default_quant: Quant
) -> Sequence[Measurement]:
    saved = saved_benchmarks(home.benchmarks, hardware)
    if model.entry is None:
        found = model.found
        source = found.repo.repo if found.repo is not None else str(found.folder)
        return measurements_of_source(source, model.quant, saved)
    return (
        *reference_measurements(model.entry, hardware),
        *measurements_of(model.entry, saved, default_quant=default_quant),
    )
