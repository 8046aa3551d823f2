"""One model: what the catalog says of it, where it is on this disk, and how it would run."""

from dataclasses import dataclass

from mlx_catalog import CatalogEntry
from mlx_stack.models.find import local_models
from mlx_stack.models.local import ListedModel, list_models
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.estimate import ModelEstimate, estimate_model
from mlx_stack.planning.listings import entry_document


@dataclass(frozen=True, slots=True)
class ShownModel:
    """What is known of a model.

    Attributes:
        local: Its folders on this disk, whole or not.
    """

    expected: ModelEstimate
    local: tuple[ListedModel, ...]

    @property
    def entry(self) -> CatalogEntry | None:
        """The catalog's entry, where it has one."""
        return self.expected.model.entry

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        expected = self.expected.to_document()
        return {
            "model": expected.pop("model"),
            "catalog": entry_document(self.entry) if self.entry is not None else None,
            "local": [model.to_document() for model in self.local],
            "estimate": expected,
        }


def show_model(opened: OpenStack, name: str, *, hardware_spec: str | None = None) -> ShownModel:
    """What is known of the model `name`; reads only, and asks the Hub where nothing else knows it.

    Raises:
        UnknownModelError: When there is no such model; with the nearest names of the catalog.
        StackError: When the Hub doesn't answer, or has no such repository.
    """
    expected = estimate_model(opened, name, hardware_spec=hardware_spec)
    paths = {model.path.resolve() for model in local_models(opened, expected.model.found)}
    local = (m for m in list_models(opened).models if m.local.path.resolve() in paths)
    return ShownModel(expected, tuple(local))
