"""State folders for tests: fake engines installed as real ones are, tiny models, stack files."""

import json
import os
import platform
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from mlx_catalog import Quant
from mlx_stack import json_file
from mlx_stack.config import ConfigValue, save_values
from mlx_stack.engines.environment import (
    MARKER,
    EngineName,
    Environment,
    Receipt,
    environment_for,
    shipped_lock,
    use_environment,
)
from mlx_stack.home import Home
from mlx_stack.models.disk.manifest import Manifest, write_manifest
from mlx_stack.models.own_code import code_digest
from mlx_stack.services.ports import free_ports
from mlx_stack.stack import FlagValue, Stack, Tier, save_stack
from stack_testkit import fake_reader

_MODULES = {EngineName.VLLM_MLX: "fake_engine", EngineName.LITELLM: "fake_litellm"}


def install_fake_engines(
    home: Home, *, engine_options: Sequence[str] = (), litellm_options: Sequence[str] = ()
) -> None:
    """Put the fake engine and the fake LiteLLM where the real ones would be.

    Args:
        home: The state folder.
        engine_options: More arguments for every engine; a single tier's go into its `vllm_flags`.
        litellm_options: More arguments for LiteLLM.
    """
    home.create()
    options = {EngineName.VLLM_MLX: engine_options, EngineName.LITELLM: litellm_options}
    for engine, module in _MODULES.items():
        environment = Environment(engine, home.engines / engine / "0.0.0-fake0000")
        make_environment(environment)
        if engine is EngineName.VLLM_MLX:
            _write_package(environment, module, options[engine])
        else:
            _write_program(environment.program(engine), module, options[engine])
        installed_at = "2026-01-01T00:00:00+00:00"
        receipt = Receipt(lock_sha256="", records_sha256="", installed_at=installed_at)
        json_file.write(environment.path / MARKER, receipt)
        use_environment(home.engines, environment)


def install_another_engine(home: Home, engine_options: Sequence[str]) -> Environment:
    """The fake engine where `engines upgrade` looks for the version to switch to."""
    lock = shipped_lock(EngineName.VLLM_MLX)
    environment = environment_for(home.engines, EngineName.VLLM_MLX, lock)
    make_environment(environment)
    _write_package(environment, _MODULES[EngineName.VLLM_MLX], engine_options)
    at = "2026-01-02T00:00:00+00:00"
    receipt = Receipt(lock_sha256=lock.digest, records_sha256="", installed_at=at)
    json_file.write(environment.path / MARKER, receipt)
    return environment


def make_model_folder(folder: Path) -> Path:
    """A folder that looks like a model to whoever doesn't load it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "llama", "quantization": {"group_size": 32, "bits": 4}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    header = b"{}      "
    weights = len(header).to_bytes(8, "little") + header
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def allow_code(folder: Path) -> None:
    """What `pull --allow-code` leaves: the model's own Python may run, as it is now."""
    manifest = Manifest(
        repo=f"tests/{folder.name}",
        revision="0" * 40,
        quant=None,
        origin="downloaded",
        files=(),
        allowed_code=code_digest(folder),
    )
    write_manifest(folder, manifest)


def ports_of_tiers(count: int) -> list[int]:
    """Free ports for tiers and a gateway, so that no tier's Macs use one among themselves."""
    apart = {port % 1000: port for port in free_ports(20 * count) if port >= 28_000}
    return list(apart.values())[:count]


def define_stack(
    home: Home,
    tiers: Mapping[str, Mapping[str, FlagValue]],
    *,
    config: Mapping[str, ConfigValue] | None = None,
    fields: Mapping[str, Mapping[str, object]] = {},
) -> Stack:
    """Write a stack file and a configuration on free ports, with a model for each tier.

    Args:
        home: The state folder.
        tiers: For each tier's name its `vllm_flags`, which the fake engine obeys.
        config: More configuration.
        fields: More fields for a tier, by its name.
    """
    *ports, gateway_port = ports_of_tiers(len(tiers) + 1)
    stack = Stack(
        schema_version=1,
        tiers=tuple(
            msgspec.convert(
                {
                    "name": name,
                    "model": f"{name}-model",
                    "quant": Quant.INT4,
                    "source": str(make_model_folder(home.models / f"{name}-model")),
                    "port": port,
                    "vllm_flags": dict(flags),
                    **fields.get(name, {}),
                },
                Tier,
            )
            for (name, flags), port in zip(tiers.items(), ports, strict=True)
        ),
    )
    home.create()
    save_stack(home.stack, stack)
    save_values(home, {"litellm-port": gateway_port, **(config or {})})
    return stack


def make_environment(environment: Environment) -> None:
    """A virtual environment that sees the packages of this process, and may have its own."""
    packages = environment.path / "lib" / "python3.13" / "site-packages"
    packages.mkdir(parents=True, exist_ok=True)
    environment.python.parent.mkdir(parents=True, exist_ok=True)
    if not environment.python.exists():
        environment.python.symlink_to(sys.executable)
    base = Path(getattr(sys, "_base_executable", sys.executable)).parent
    settings = (
        f"home = {base}\nversion_info = {platform.python_version()}\n"
        "include-system-site-packages = false\n"  # Python takes them in if nothing is said
    )
    (environment.path / "pyvenv.cfg").write_text(settings, encoding="utf-8")
    folders = "\n".join(path for path in sys.path if Path(path).is_dir())
    (packages / "testkit.pth").write_text(f"{folders}\n", encoding="utf-8")


def _write_package(environment: Environment, module: str, options: Sequence[str]) -> None:
    """What the guard starts: `vllm_mlx.cli.main`, or what serves tiers that don't chat."""
    assert environment.site_packages is not None  # made above
    fake_reader.write_package(environment.site_packages)
    package = environment.site_packages / "vllm_mlx"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").touch()
    lines = (
        "import sys",
        f"from stack_testkit import {module}",
        f"main = lambda: {module}.main(sys.argv[1:] + {list(options)!r})",
    )
    (package / "cli.py").write_text("\n".join(lines) + os.linesep, encoding="utf-8")


def _write_program(path: Path, module: str, options: Sequence[str]) -> None:
    command = [sys.executable, "-m", f"stack_testkit.{module}"]
    lines = [
        f"#!{sys.executable}",
        "import os, sys",
        f"command = {command!r} + sys.argv[1:] + {list(options)!r}",
        "os.execv(command[0], command)",
    ]
    path.write_text("\n".join(lines) + os.linesep, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
