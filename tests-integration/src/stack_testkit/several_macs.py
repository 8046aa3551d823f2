"""A stack whose tiers run one model on several Macs, which are folders of this machine."""

import os
from collections.abc import Mapping
from pathlib import Path

import psutil

from mlx_catalog import ServingEngine
from mlx_procsup import read_pid
from mlx_stack.config import save_values
from mlx_stack.engines.environment import EngineName, Environment
from mlx_stack.engines.install import install
from mlx_stack.engines.uv_process import own_toolchain
from mlx_stack.home import Home
from mlx_stack.stack import Host, Stack, Tier, save_stack
from stack_testkit.fake_ssh import install_fake_ssh
from stack_testkit.home import ports_of_tiers
from stack_testkit.program import Program


def make_macs(
    root: Path, vllm_mlx: Environment, model: Path, tiers: Mapping[str, tuple[Host, ...]]
) -> Program:
    """A state folder with the real engines, one for each other Mac, and an `ssh` that reaches them.

    Args:
        root: Where all of them are made.
        vllm_mlx: One of the engines that a stack needs; mlx-lm is installed.
        tiers: For each tier's name the Macs that it runs on. There is no
            Mac `nowhere`.
    """
    home = Home(root / "here")
    home.create()
    home.engines.mkdir()
    (home.engines / "vllm-mlx").symlink_to(vllm_mlx.path.parent)
    install(EngineName.MLX_LM, home.engines, own_toolchain())
    for state in {root / "others" / host.host for hosts in tiers.values() for host in hosts}:
        if state.name == "nowhere":
            continue
        make_other_mac(state / ".mlx-stack", home, model)
    tools = install_fake_ssh(root / "bin", root / "others")
    define_tiers(home, model, tiers)
    return Program(home, {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"})


def make_other_mac(state: Path, home: Home, model: Path) -> None:
    """A state folder with the engines of `home` and a model."""
    (state / "models").mkdir(parents=True)
    (state / "engines").symlink_to(home.engines)
    (state / "models" / model.name).symlink_to(model)


def define_tiers(home: Home, model: Path, tiers: Mapping[str, tuple[Host, ...]]) -> None:
    """Write a stack file whose lazy tiers have the same model, and a configuration."""
    gateway_port, *ports = ports_of_tiers(len(tiers) + 1)
    stack = Stack(
        tiers=tuple(
            Tier(
                name=name,
                model=f"{name}-model",
                quant=None,
                source=str(model),
                port=port,
                vllm_flags={},
                engine=ServingEngine.MLX_LM,
                context_tokens=8192,
                hosts=hosts,
                lazy=True,
            )
            for (name, hosts), port in zip(tiers.items(), ports, strict=True)
        )
    )
    save_stack(home.stack, stack)
    save_values(home, {"litellm-port": gateway_port, "litellm": "never", "keep-awake": "never"})


def processes(program: Program, tier: str) -> dict[str, psutil.Process]:
    """Those of a tier on two Macs, by name.

    Here "group", "engine" and "ssh", on the other Mac "keeper" and "other engine".
    """
    pid = read_pid(program.home.state_dirs, tier)
    assert pid is not None
    found = {"group": psutil.Process(pid)}
    for each in found["group"].children():
        found["engine" if "mlx-lm" in each.cmdline() else "ssh"] = each
    for each in found["ssh"].children(recursive=True):
        found["other engine" if "mlx-lm" in each.cmdline() else "keeper"] = each
    return found
