"""Refuse a release tag that disagrees with the package's version or changelog.

Usage: check_release.py mlx-hwprobe-v0.2.0
"""

import re
import sys
import tomllib
from pathlib import Path


def main(tag: str) -> int:
    """0 if the tag may be released; else says why not."""
    package, separator, version = tag.rpartition("-v")
    folder = Path("packages") / package
    if not separator or not (folder / "pyproject.toml").is_file():
        print(f"{tag}: there is no package {package!r}", file=sys.stderr)
        return 1
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if project["version"] != version:
        print(f"{tag}: pyproject.toml says {project['version']}", file=sys.stderr)
        return 1
    changelog = (folder / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = re.search(r"^## (?P<title>.+)$", changelog, re.MULTILINE)
    title = heading["title"] if heading else ""
    if not title.startswith(f"{version} (") or "unreleased" in title:
        print(f"{tag}: CHANGELOG.md begins with {title!r}, not with a date", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
