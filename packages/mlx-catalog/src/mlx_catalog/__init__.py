"""A curated catalog of MLX models: geometry, repositories and figures, each with its source.

`mlx_catalog.hub`, which asks a model hub, is imported by name: it needs the `hub` extra.
"""

from mlx_catalog.catalog import Catalog as Catalog
from mlx_catalog.catalog import Resolution as Resolution
from mlx_catalog.catalog import load_catalog as load_catalog
from mlx_catalog.catalog import load_entries as load_entries
from mlx_catalog.division import Division as Division
from mlx_catalog.division import division_of_entry as division_of_entry
from mlx_catalog.engine import EngineFit as EngineFit
from mlx_catalog.engine import ServingEngine as ServingEngine
from mlx_catalog.engine import engine_fit as engine_fit
from mlx_catalog.errors import CatalogError as CatalogError
from mlx_catalog.errors import GatedRepoError as GatedRepoError
from mlx_catalog.errors import HubConnectionError as HubConnectionError
from mlx_catalog.errors import HubError as HubError
from mlx_catalog.errors import InvalidCatalogError as InvalidCatalogError
from mlx_catalog.errors import Problem as Problem
from mlx_catalog.errors import RepoNotFoundError as RepoNotFoundError
from mlx_catalog.errors import RevisionNotFoundError as RevisionNotFoundError
from mlx_catalog.errors import TokenRefusedError as TokenRefusedError
from mlx_catalog.errors import UnknownModelError as UnknownModelError
from mlx_catalog.errors import UnreadableCatalogError as UnreadableCatalogError
from mlx_catalog.errors import UnreadableModelError as UnreadableModelError
from mlx_catalog.model_files import ModelReading as ModelReading
from mlx_catalog.model_files import read_model as read_model
from mlx_catalog.model_files import read_role as read_role
from mlx_catalog.roles import ModelRole as ModelRole
from mlx_catalog.schema import PRECISIONS as PRECISIONS
from mlx_catalog.schema import BenchmarkFigure as BenchmarkFigure
from mlx_catalog.schema import Capabilities as Capabilities
from mlx_catalog.schema import CatalogEntry as CatalogEntry
from mlx_catalog.schema import DraftAcceptance as DraftAcceptance
from mlx_catalog.schema import EightBitCache as EightBitCache
from mlx_catalog.schema import Experts as Experts
from mlx_catalog.schema import Geometry as Geometry
from mlx_catalog.schema import Quality as Quality
from mlx_catalog.schema import Quant as Quant
from mlx_catalog.schema import RecurrentState as RecurrentState
from mlx_catalog.schema import Source as Source
from mlx_catalog.schema import Sources as Sources

__version__ = "0.1.0"
