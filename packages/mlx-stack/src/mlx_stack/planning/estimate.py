"""Will a model run on a machine, in how much memory, how fast."""

from collections.abc import Sequence
from dataclasses import dataclass

from mlx_catalog import Quant
from mlx_hwprobe import HardwareProfile
from mlx_recommend import (
    Estimate,
    Measurement,
    Workload,
    estimate,
    reference_measurements,
)
from mlx_stack.config import load_config
from mlx_stack.hardware import asked_hardware
from mlx_stack.home import Home
from mlx_stack.models.find import HubReader, NamedModel, find_model, read_from_hub
from mlx_stack.planning.evidence import (
    measurements_of,
    measurements_of_source,
    saved_benchmarks,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEstimate:
    """A model on a machine.

    Attributes:
        model: The model.
        hardware: The machine.
        workload: What the model is to do.
        estimate: What to expect; None where nothing is known of the model's parameters.
    """

    model: NamedModel
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
    read_hub: HubReader = read_from_hub,
) -> ModelEstimate:
    """What to expect of a model; reads only.

    Args:
        home: For the configuration, saved results and the user's own catalog entries.
        name: A catalog id, a Hub repository, a model folder or a `config.json`.
        hardware_spec: The machine; None is this one.
        quant: The precision; None is the model's own, or for a catalog entry the default.
        workload: Context and concurrency; None is the defaults.
        use_measured: Whether saved and published figures replace computed ones.
        read_hub: Asks the Hub.
    """
    config = load_config(home)
    default_quant = as_quant(config.default_quant)
    model = find_model(
        home,
        name,
        model_dir=config.model_dir,
        quant=quant,
        default_quant=default_quant,
        read_hub=read_hub,
    )
    hardware = asked_hardware(home, hardware_spec)
    workload = workload or Workload()
    if model.shape is None:
        return ModelEstimate(model=model, hardware=hardware, workload=workload, estimate=None)
    known = _measurements(home, model, hardware, default_quant) if use_measured else ()
    expected = estimate(model.shape, hardware, workload, known)
    return ModelEstimate(model=model, hardware=hardware, workload=workload, estimate=expected)


def as_quant(text: str) -> Quant:
    """A precision that the configuration has already validated, as the catalog's type."""
    match text:
        case "int8" | "bf16":
            return text
        case _:
            return "int4"


def _measurements(
    home: Home, model: NamedModel, hardware: HardwareProfile, default_quant: Quant
) -> Sequence[Measurement]:
    saved = saved_benchmarks(home.benchmarks, hardware)
    if model.entry is None:
        return measurements_of_source(model.name, model.quant, saved)
    return (
        *reference_measurements(model.entry, hardware),
        *measurements_of(model.entry, saved, default_quant=default_quant),
    )
