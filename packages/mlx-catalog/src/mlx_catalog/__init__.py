"""A curated catalog of MLX models: geometry, repositories and figures, each with its source."""

__version__ = "0.1.0"
