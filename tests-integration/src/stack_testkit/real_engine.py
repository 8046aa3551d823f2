"""vllm-mlx and the embedded model, for those who measure the real engine."""

from pathlib import Path

from mlx_stack.engines.embedded_model import make_embedded_model
from mlx_stack.engines.environment import EngineName, Environment
from mlx_stack.engines.install import install
from mlx_stack.engines.uv_process import own_toolchain


def real_engine(home: Path) -> tuple[Environment, Path]:
    """The engine in `home`, and the folder of the embedded model there; what is missing is made."""
    toolchain = own_toolchain()
    engine = install(EngineName.VLLM_MLX, home / "engines", toolchain)
    return engine, make_embedded_model(home / "models", engine, toolchain)
