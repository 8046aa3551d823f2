"""A curated catalog of MLX models: geometry, repositories and figures, each with its source."""

from mlx_catalog.catalog import Catalog, Resolution, load_catalog, load_entries
from mlx_catalog.errors import (
    CatalogError,
    InvalidCatalogError,
    Problem,
    UnknownModelError,
    UnreadableCatalogError,
)
from mlx_catalog.schema import (
    BITS_PER_WEIGHT,
    QUANTS,
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
    "BITS_PER_WEIGHT",
    "QUANTS",
    "BenchmarkFigure",
    "Capabilities",
    "Catalog",
    "CatalogEntry",
    "CatalogError",
    "Experts",
    "Geometry",
    "InvalidCatalogError",
    "Problem",
    "Quality",
    "Quant",
    "RecurrentState",
    "Resolution",
    "Source",
    "Sources",
    "UnknownModelError",
    "UnreadableCatalogError",
    "__version__",
    "load_catalog",
    "load_entries",
]
