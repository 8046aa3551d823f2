"""Whether an upgrade is let through: a new engine next to the one in use, on stand-ins."""

import pytest

from mlx_stack.bench.certify import certify, require_as_good
from mlx_stack.engines.environment import EngineName, current_environment
from mlx_stack.engines.errors import EngineWorseError
from mlx_stack.engines.manage import CertifiedTier, EnginePair
from mlx_stack.open_stack import OpenStack
from stack_testkit.home import define_stack, install_another_engine, install_fake_engines
from stack_testkit.program import Program

pytestmark = pytest.mark.story

PACE = ("--paced", "0.005", "--prefill-tps", "4000")
HELD = ("--ballast-mb", "150")
TOKEN_S = 0.004
GOOD = ("--capable", "ok", "--token-delay", str(TOKEN_S), *PACE, *HELD)
PLANTED = {
    "parser": (("--capable", "tag-leak", *GOOD[2:]), "check"),
    "words": (("--capable", "nonsense", *GOOD[2:]), "coherence"),
    "slow": ((*GOOD, "--token-delay", str(TOKEN_S / 0.85)), "speed"),
    "large": ((*GOOD, "--ballast-mb", "190"), "memory"),
}


def certified(program: Program, options: tuple[str, ...]) -> CertifiedTier:
    """How a running tier does with another engine."""
    install_fake_engines(program.home, engine_options=GOOD)
    define_stack(program.home, {"standard": {}})
    done = program.run("up")
    assert done.code == 0, done.err
    newer = install_another_engine(program.home, options)
    opened = OpenStack(program.home, program.environment)
    (tier,) = certify(opened, EnginePair(newer, None))
    assert tier.skipped is None
    used = current_environment(program.home.engines, EngineName.VLLM_MLX)
    assert used is not None
    assert used != newer
    assert program.run("ask", "hello").code == 0, "the old one serves meanwhile"
    return tier


def test_an_engine_that_does_as_well_is_let_through(program: Program) -> None:
    tier = certified(program, GOOD)

    assert tier.worse == ()
    assert tier.verdict == "agent-ready: 36 of 36"  # no context is planned
    require_as_good([tier])


@pytest.mark.parametrize(("options", "figure"), PLANTED.values(), ids=PLANTED)
def test_an_engine_that_does_worse_is_refused_and_the_figure_named(
    options: tuple[str, ...], figure: str, program: Program
) -> None:
    tier = certified(program, options)

    assert figure in {each.figure for each in tier.worse}
    with pytest.raises(EngineWorseError, match=f"standard: {figure}"):
        require_as_good([tier])


def test_a_tier_that_does_not_run_and_was_never_measured_is_not_compared(
    program: Program,
) -> None:
    install_fake_engines(program.home, engine_options=GOOD)
    define_stack(program.home, {"standard": {}})
    newer = install_another_engine(program.home, GOOD)
    opened = OpenStack(program.home, program.environment)
    (tier,) = certify(opened, EnginePair(newer, None))

    assert tier.skipped is not None
    assert "doesn't run" in tier.skipped
    require_as_good([tier])
