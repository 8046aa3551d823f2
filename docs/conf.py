"""How the documentation is built: `uv run just docs`."""

import tomllib
from pathlib import Path

PACKAGES = Path(__file__).parent.parent / "packages"

project = "mlx-stack"
author = "The mlx-stack developers"
release = tomllib.loads((PACKAGES / "mlx-stack" / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "mlx-stack"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# READMEs and other files of the repository are linked to as files, not as pages
suppress_warnings = ["myst.xref_missing"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_use_ivar = True
