"""A curated catalog of MLX models: geometry, repositories and figures, each with its source.

`mlx_catalog.hub`, which asks a model hub, is imported by name: it needs the `hub` extra.
"""

from mlx_catalog.catalog import Catalog, Resolution, load_catalog, load_entries
from mlx_catalog.engine import EngineFit, engine_fit
from mlx_catalog.errors import (
    CatalogError,
    GatedRepoError,
    HubConnectionError,
    HubError,
    InvalidCatalogError,
    Problem,
    RepoNotFoundError,
    RevisionNotFoundError,
    TokenRefusedError,
    UnknownModelError,
    UnreadableCatalogError,
    UnreadableModelError,
)
from mlx_catalog.model_files import ModelReading, read_model
from mlx_catalog.schema import (
    BenchmarkFigure,
    Capabilities,
    CatalogEntry,
    Experts,
    Geometry,
    Quality,
    Quant,
    RecurrentState,
    Source,
    Sources,
)

__version__ = "0.1.0"

__all__ = [
    "BenchmarkFigure",
    "Capabilities",
    "Catalog",
    "CatalogEntry",
    "CatalogError",
    "EngineFit",
    "Experts",
    "GatedRepoError",
    "Geometry",
    "HubConnectionError",
    "HubError",
    "InvalidCatalogError",
    "ModelReading",
    "Problem",
    "Quality",
    "Quant",
    "RecurrentState",
    "RepoNotFoundError",
    "Resolution",
    "RevisionNotFoundError",
    "Source",
    "Sources",
    "TokenRefusedError",
    "UnknownModelError",
    "UnreadableCatalogError",
    "UnreadableModelError",
    "__version__",
    "engine_fit",
    "load_catalog",
    "load_entries",
    "read_model",
]
