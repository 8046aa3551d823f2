"""To which Macs a model is copied."""

from mlx_catalog import ServingEngine
from mlx_stack.nodes.copy_model import hosts_of
from mlx_stack.stack import Host, Tier


def tier(name: str, *hosts: Host) -> Tier:
    return Tier(
        name=name,
        model="m",
        quant=None,
        source="o/r",
        port=8000,
        vllm_flags={},
        engine=ServingEngine.MLX_LM,
        hosts=hosts,
    )


def test_a_model_goes_into_each_state_folder_that_its_tiers_use_once() -> None:
    usual, other = Host(host="b"), Host(host="b", home="/other")
    spelled = Host(host="b", home="~/.mlx-stack", address="10.0.0.2")
    tiers = (tier("one", usual), tier("two", other), tier("three", spelled))
    assert [each.home for each in hosts_of(tiers, "m")] == ["~/.mlx-stack", "/other"]
