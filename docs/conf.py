"""How the documentation is built: `uv run just docs`."""

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import override

from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

PACKAGES = Path(__file__).parent.parent / "packages"


def find_repository() -> str | None:
    """The repository's address: what GitHub says in a workflow, else the clone's `origin`."""
    if name := os.environ.get("GITHUB_REPOSITORY"):
        return f"https://github.com/{name}"
    asked = subprocess.run(
        ("git", "remote", "get-url", "origin"),  # noqa: S607
        cwd=PACKAGES,
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.fullmatch(
        r"(?:https://|git@|ssh://git@)(?P<host>git(?:hub|lab)\.com)[:/](?P<name>[\w./-]+?)(?:\.git)?",
        asked.stdout.strip(),
    )
    return f"https://{found['host']}/{found['name']}" if found else None


project = "mlx-stack"
author = "The mlx-stack developers"
release = tomllib.loads((PACKAGES / "mlx-stack" / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]["version"]
repository = find_repository()

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_reredirects",
]
exclude_patterns = ["_build"]
# an option is two hyphens, not a dash
smartquotes = False

html_theme = "furo"
html_title = f"mlx-stack {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["search-numbers.js"]
html_show_copyright = False
html_search_scorer = str(Path(__file__).parent / "static" / "scorer.js")
html_show_sphinx = False
html_theme_options = {
    "footer_icons": [
        {"name": "Repository", "url": repository, "html": "Repository", "class": ""},
    ]
    if repository
    else [],
}
if repository:
    html_theme_options |= {
        "source_repository": repository,
        "source_branch": "main",
        "source_directory": "docs/",
    }
redirects = {"tutorial": "getting-started.html"}
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# READMEs and other files of the repository are linked to as files, not as pages
suppress_warnings = ["myst.xref_missing"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_use_ivar = True


class SearchWithNumbers(SearchEnglish):
    """Sphinx's English search, which also finds numbers: someone will look for 401."""

    @override
    def word_filter(self, word: str) -> bool:
        return word not in self.stopwords


def name_repository(_app: Sphinx, _page: str, source: list[str]) -> None:
    """Put the repository's address, if it is known, into the commands that need one."""
    source[0] = source[0].replace("REPO=https://…  ", f"REPO={repository or 'https://…'}  ")


def setup(app: Sphinx) -> None:
    """Register the search, and what fills in the address."""
    app.add_search_language(SearchWithNumbers)
    app.connect("source-read", name_repository)
