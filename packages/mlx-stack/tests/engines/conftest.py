"""A wheelhouse: wheels made on the spot, which real uv installs without a network."""

import base64
import hashlib
import os
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mlx_stack.engines.environment import Lock
from mlx_stack.engines.uv_process import Toolchain, own_toolchain


@dataclass
class Wheelhouse:
    """A folder of wheels, and the lock that names them."""

    folder: Path
    lines: list[str] = field(default_factory=list)

    def add(self, name: str, version: str, **more_files: str) -> None:
        """Make a wheel of one module, with `more_files` beside it, and pin it."""
        module = name.replace("-", "_")
        info = f"{module}-{version}.dist-info"
        files = {
            f"{module}/__init__.py": "VALUE = 1\n",
            **{f"{module}/{file}": text for file, text in more_files.items()},
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(
            f"{path},sha256={_urlsafe(text)},{len(text)}\n" for path, text in files.items()
        )
        files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
        wheel = self.folder / f"{module}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, text in files.items():
                archive.writestr(path, text)
        self.pin(name, version, hashlib.sha256(wheel.read_bytes()).hexdigest())

    def pin(self, name: str, version: str, sha256: str, *, marker: str = "") -> None:
        """Pin a wheel, whether it is there or not."""
        condition = f" ; {marker}" if marker else ""
        self.lines += [f"{name}=={version}{condition} \\", f"    --hash=sha256:{sha256}"]

    @property
    def lock(self) -> Lock:
        return Lock("\n".join(self.lines) + "\n")

    @property
    def toolchain(self) -> Toolchain:
        """The real uv, which finds these wheels and nothing else."""
        return own_toolchain(
            {
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "UV_CACHE_DIR": str(self.folder / "cache"),
                "UV_FIND_LINKS": str(self.folder),
                "UV_NO_INDEX": "1",
                "UV_OFFLINE": "1",
            }
        )


def _urlsafe(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@pytest.fixture(scope="session")
def make_wheelhouse() -> Callable[[Path], Wheelhouse]:
    """Makes a wheelhouse with vllm-mlx 0.6.0 and one package that it needs, in a new folder."""

    def make(folder: Path) -> Wheelhouse:
        folder.mkdir()
        house = Wheelhouse(folder)
        house.add("vllm-mlx", "0.6.0")
        house.add("some-dependency", "1.2")
        return house

    return make


@pytest.fixture
def wheelhouse(tmp_path: Path, make_wheelhouse: Callable[[Path], Wheelhouse]) -> Wheelhouse:
    return make_wheelhouse(tmp_path / "wheels")


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    return tmp_path / "engines"


@pytest.fixture
def python() -> Path:
    return Path(sys.executable)
