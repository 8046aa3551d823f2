"""One installation of the real engines and one embedded model, shared by all tests that need them.

They are kept in pytest's cache, or where MLX_STACK_TEST_ENGINES says, from one run to the next; a
lock file among them makes sharing between test processes safe.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import pytest

from mlx_procsup import (
    HttpReadiness,
    ProcessSpec,
    ShutdownResult,
    StateDirs,
    start_service,
    stop_service,
)
from mlx_procsup import wait_for_healthy as wait_until_ready
from mlx_stack.child_environment import inherited_environment
from mlx_stack.engines import guard, vllm_mlx
from mlx_stack.engines.embedded_model import make_embedded_model
from mlx_stack.engines.environment import EngineName, Environment
from mlx_stack.engines.install import install
from mlx_stack.engines.kept_on_disk import VARIABLE, DiskBounds
from mlx_stack.engines.uv_process import own_toolchain
from mlx_stack.engines.vllm_mlx import Serving
from mlx_stack.home import Home
from mlx_stack.services.ports import free_ports
from mlx_stack.stack import Tier
from stack_testkit.scripted_model import make_scripted_model
from stack_testkit.tiny_families import make_tiny_family
from stack_testkit.tiny_model import make_tiny_model

type MakeModel = Callable[..., Path]

READY_WITHIN_S = 110
"""The first start of a new environment compiles its byte code."""


@pytest.fixture(scope="session")
def engines_home(pytestconfig: pytest.Config) -> Path:
    """The folder that holds `engines/` and `models/` for all tests and runs."""
    named = os.environ.get("MLX_STACK_TEST_ENGINES")
    return Path(named) if named else Path(pytestconfig.cache.mkdir("real-engines"))


@pytest.fixture(scope="session")
def vllm_mlx_environment(engines_home: Path) -> Environment:
    return install(EngineName.VLLM_MLX, engines_home / "engines", own_toolchain())


@pytest.fixture(scope="session")
def litellm_environment(engines_home: Path) -> Environment:
    return install(EngineName.LITELLM, engines_home / "engines", own_toolchain())


@pytest.fixture(scope="session")
def mlx_lm_environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """One that isn't where `up` looks for it."""
    return install(EngineName.MLX_LM, tmp_path_factory.mktemp("maker"), own_toolchain())


@pytest.fixture(scope="session")
def embedded_model(engines_home: Path, vllm_mlx_environment: Environment) -> Path:
    """SmolLM2-135M-Instruct: slow on a CPU, and right."""
    return make_embedded_model(engines_home / "models", vllm_mlx_environment, own_toolchain())


@pytest.fixture(scope="session")
def make_model(
    embedded_model: Path,
    vllm_mlx_environment: Environment,
    tmp_path_factory: pytest.TempPathFactory,
) -> MakeModel:
    """Call it with what makes a model, a name and the model's own measures."""

    def make(maker: Callable[..., Path], name: str, **fields: object) -> Path:
        return maker(
            tmp_path_factory.mktemp("models") / name,
            tokenizer_of=embedded_model,
            engine_python=vllm_mlx_environment.python,
            **fields,
        )

    return make


@pytest.fixture(scope="session")
def tiny_model(make_model: MakeModel) -> Path:
    """A model that answers gibberish, quickly."""
    return make_model(make_tiny_model, "tiny")


@pytest.fixture(scope="session")
def heavy_model(make_model: MakeModel) -> Path:
    """A model that answers gibberish, and takes 260 MB of memory."""
    return make_model(make_tiny_model, "heavy", hidden_size=1024)


@pytest.fixture(scope="session")
def scripted_model(make_model: MakeModel) -> Path:
    """A model that says what it is told to say."""
    return make_model(make_scripted_model, "scripted")


@pytest.fixture(scope="session")
def tiny_family(make_model: MakeModel) -> Callable[[str], Path]:
    """Call it with the name of one of the `FAMILIES`: a model of that family, made once."""
    return cache(lambda name: make_model(make_tiny_family, "tiny", family=name))


@pytest.fixture(scope="module")
def stack_home(
    engines_home: Path, vllm_mlx_environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Home:
    """A state folder with the real engines and nothing else."""
    assert vllm_mlx_environment.state == "ready"
    home = Home(tmp_path_factory.mktemp("stack") / "home")
    home.create()
    home.engines.symlink_to(engines_home / "engines")
    return home


_WITH_ADDITIONS = f"""
import runpy, sys
for name in {guard.ADDITIONS!r}:
    runpy.run_path({str(Path(guard.__file__).parent)!r} + f"/{{name}}.py")["apply"]()
from vllm_mlx.cli import main
sys.argv[0] = "vllm-mlx"
main()
"""

type Serve = Callable[..., str]


@pytest.fixture
def serve(vllm_mlx_environment: Environment, tmp_path: Path) -> Iterator[Serve]:
    """Call it with a model folder and the fields of a tier: a real engine serves it, at the URL.

    `traits` are those of the model, by default what suits any; with `has_additions` the engine has
    what the guard adds to it, as those of a stack do.
    """
    with _serving(vllm_mlx_environment, tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def serve_all(
    vllm_mlx_environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serve]:
    """The same for engines that all tests of a module share."""
    with _serving(vllm_mlx_environment, tmp_path_factory.mktemp("engines")) as start:
        yield start


@pytest.fixture
def stop(tmp_path: Path) -> Callable[[str], ShutdownResult]:
    """Call it with a tier's name: the engine that serves it is stopped."""
    return lambda name: stop_service(name, _dirs(tmp_path))


def _dirs(folder: Path) -> StateDirs:
    return StateDirs(folder / "pids", folder / "run", folder / "logs")


@contextmanager
def _serving(environment: Environment, folder: Path) -> Iterator[Serve]:
    dirs = _dirs(folder)
    dirs.create()
    with ExitStack() as engines:

        def start(
            model: Path,
            *,
            traits: Serving | None = None,
            has_additions: bool = False,
            kept: DiskBounds | None = None,
            **fields: object,
        ) -> str:
            tier = _tier(model, fields)
            # without the guard, so that a test may ask it as it likes
            start_with = (str(environment.python), "-u", str(environment.program("vllm-mlx")))
            if has_additions:
                start_with = (str(environment.python), "-I", "-u", "-c", _WITH_ADDITIONS)
            command = vllm_mlx.command(start_with, tier, model, traits)
            more = {VARIABLE: kept.render()} if kept is not None else {}
            engines.enter_context(_running(tier, command, dirs, folder, more))
            return f"http://127.0.0.1:{tier.port}"

        yield start


@contextmanager
def _running(
    tier: Tier, command: tuple[str, ...], dirs: StateDirs, cwd: Path, more: dict[str, str]
) -> Iterator[None]:
    spec = ProcessSpec(
        name=tier.name,
        command=command,
        env={**inherited_environment(), **vllm_mlx.environment(cwd / "huggingface"), **more},
        cwd=cwd,
        readiness=HttpReadiness(f"http://127.0.0.1:{tier.port}/v1/models"),
    )
    started = start_service(spec, dirs)
    try:
        wait_until_ready(started, READY_WITHIN_S)
        yield
    finally:
        stop_service(tier.name, dirs)


def _tier(model: Path, fields: dict[str, object]) -> Tier:
    usual = {
        "name": "standard",
        "model": model.name,
        "quant": "int4",
        "source": str(model),
        "port": free_ports(1)[0],
        "vllm_flags": {},
    }
    return Tier(**{**usual, **fields})
