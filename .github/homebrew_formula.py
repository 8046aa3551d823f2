"""Print a Homebrew formula for mlx-stack: its wheels, and everything they need, as uv.lock pins it.

Usage: homebrew_formula.py WHEEL_FOLDER DOWNLOAD_URL HOMEPAGE > mlx-stack.rb

DOWNLOAD_URL is where the release has its files. Every package is installed from a wheel with its
hash, so that Homebrew compiles nothing and asks no index.
"""

import hashlib
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from packaging.markers import Marker
from packaging.tags import Tag, cpython_tags, mac_platforms
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent
APPLICATION = "mlx-stack"
PYTHON = (3, 13)
OLDEST_MACOS = (14, 0)
"""What the engines need; wheels for a newer macOS are left out."""
ENVIRONMENT = {
    "os_name": "posix",
    "platform_machine": "arm64",
    "platform_python_implementation": "CPython",
    "platform_system": "Darwin",
    "python_full_version": "3.13.0",
    "python_version": "3.13",
    "sys_platform": "darwin",
    "implementation_name": "cpython",
    "implementation_version": "3.13.0",
    "platform_release": "",
    "platform_version": "",
}

type Package = dict[str, Any]


class File(NamedTuple):
    """A wheel: whose it is, where it can be downloaded, and its hash."""

    package: str
    url: str
    sha256: str


def main(wheels: Path, download_url: str, homepage: str) -> int:
    """Print the formula."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    packages = {package["name"]: package for package in lock["package"]}
    ours = {file.package: file for file in built(wheels, download_url)}
    files = [ours[name] if name in ours else wheel_of(packages[name]) for name in needed(packages)]
    version = packages[APPLICATION]["version"]
    print(formula(version, homepage, files))
    return 0


def built(wheels: Path, download_url: str) -> Iterator[File]:
    """Our own wheels, as the release offers them."""
    for path in sorted(wheels.glob("*.whl")):
        name = canonicalize_name(parse_wheel_filename(path.name)[0])
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        yield File(name, f"{download_url}/{path.name}", digest)


def needed(packages: Mapping[str, Package]) -> list[str]:
    """The application and all packages that it needs on a Mac, by name, the application first."""
    wanted: set[tuple[str, str]] = set()
    pending = [(APPLICATION, "")]
    while pending:
        name, extra = pending.pop()
        if (name, extra) in wanted:
            continue
        wanted.add((name, extra))
        package = packages[name]
        if extra:
            dependencies = package.get("optional-dependencies", {}).get(extra, ())
        else:
            dependencies = package.get("dependencies", ())
        for each in dependencies:
            if "marker" not in each or Marker(each["marker"]).evaluate(ENVIRONMENT):
                pending += [(each["name"], extra) for extra in ("", *each.get("extra", ()))]
    others = {name for name, _ in wanted} - {APPLICATION}
    return [APPLICATION, *sorted(others)]


def wheel_of(package: Package) -> File:
    """The wheel that fits such a Mac best.

    Raises:
        LookupError: When there is none.
    """
    ranks = {tag: rank for rank, tag in enumerate(accepted_tags())}
    best: tuple[int, File] | None = None
    for wheel in package.get("wheels", ()):
        tags = parse_wheel_filename(wheel["url"].rpartition("/")[2])[3]
        rank = min((ranks[tag] for tag in tags if tag in ranks), default=None)
        if rank is not None and (best is None or rank < best[0]):
            digest = wheel["hash"].removeprefix("sha256:")
            best = (rank, File(package["name"], wheel["url"], digest))
    if best is None:
        raise LookupError(f"{package['name']} {package['version']} has no wheel for a Mac")
    return best[1]


def accepted_tags() -> Iterator[Tag]:
    """The tags of wheels that run on such a Mac, the best first."""
    platforms = list(mac_platforms(OLDEST_MACOS, "arm64"))
    yield from cpython_tags(PYTHON, platforms=platforms)
    for platform in (*platforms, "any"):
        yield Tag("py3", "none", platform)
        yield Tag("py2.py3", "none", platform)


def formula(version: str, homepage: str, files: list[File]) -> str:
    """The formula as Ruby."""
    application, *others = files
    resources = "\n".join(
        f'  resource "{file.package}" do\n'
        f'    url "{file.url}", using: :nounzip\n'
        f'    sha256 "{file.sha256}"\n'
        "  end\n"
        for file in others
    )
    return f"""\
# Generated from uv.lock by .github/homebrew_formula.py.
class MlxStack < Formula
  include Language::Python::Virtualenv

  desc "Always-on local LLM server for Apple Silicon"
  homepage "{homepage}"
  url "{application.url}", using: :nounzip
  version "{version}"
  sha256 "{application.sha256}"
  license "Apache-2.0"

  depends_on arch: :arm64
  depends_on macos: :sonoma
  depends_on "python@{PYTHON[0]}.{PYTHON[1]}"

{resources}
  def install
    virtualenv_create(libexec, "python{PYTHON[0]}.{PYTHON[1]}")
    resources.each {{ |resource| resource.stage buildpath }}
    system "python{PYTHON[0]}.{PYTHON[1]}", "-m", "pip", "--python=#{{libexec}}/bin/python",
           "install", "--no-deps", "--no-index", *Dir[buildpath/"*.whl"]
    bin.install_symlink Dir[libexec/"bin/mlx-*"]
    man1.install_symlink libexec/"share/man/man1/mlx-stack.1"
  end

  test do
    assert_match version.to_s, shell_output("#{{bin}}/mlx-stack --version")
  end
end"""


if __name__ == "__main__":
    if not re.fullmatch(r"https://\S+", sys.argv[2]):
        sys.exit(f"{sys.argv[2]}: not an https address")
    sys.exit(main(Path(sys.argv[1]), sys.argv[2].rstrip("/"), sys.argv[3]))
