"""What replaces an engine or a model has to do as well first: stand-ins, the installed program."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from mlx_stack.engines.environment import EngineName, current_environment
from stack_testkit.home import define_stack, install_another_engine, install_fake_engines
from stack_testkit.program import Finished, Program

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
UPGRADE_S = 400.0


@dataclass
class Client:
    """Someone who goes on asking while something is replaced."""

    program: Program
    failures: list[str] = field(default_factory=list[str])
    answers: int = 0

    def ask(self, stop: threading.Event) -> None:
        while not stop.wait(1.0):
            done = self.program.run("ask", "hello", timeout_s=UPGRADE_S)
            self.answers += done.code == 0
            if done.code != 0:
                self.failures.append(done.err)


@contextmanager
def asking(program: Program) -> Iterator[None]:
    """A client asks all the time, and always gets an answer."""
    client, stop = Client(program), threading.Event()
    thread = threading.Thread(target=client.ask, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert client.failures == []
    assert client.answers > 0


def upgrade(program: Program, *more: str) -> Finished:
    return program.run("engines", "upgrade", "vllm-mlx", "--json", *more, timeout_s=UPGRADE_S)


def in_use(program: Program) -> str:
    """The version of the engine that the next start takes."""
    used = current_environment(program.home.engines, EngineName.VLLM_MLX)
    assert used is not None
    return used.version


@pytest.fixture
def served(program: Program) -> Program:
    """A stack of one tier that runs."""
    install_fake_engines(program.home, engine_options=GOOD)
    define_stack(program.home, {"standard": {}})
    done = program.run("up")
    assert done.code == 0, done.err
    return program


def test_an_engine_that_does_as_well_is_switched_to(served: Program) -> None:
    newer = install_another_engine(served.home, GOOD)
    with asking(served):
        done = upgrade(served)
    assert done.code == 0, done.err
    (tier,) = done.document["health"]["tiers"]
    assert (tier["skipped"], tier["worse"]) == (None, [])
    assert tier["verdict"] == "agent-ready: 36 of 36"  # no context is planned
    assert in_use(served) == newer.version


@pytest.mark.parametrize(("options", "figure"), PLANTED.values(), ids=PLANTED)
def test_an_engine_that_does_worse_is_refused_and_the_figure_named(
    options: Sequence[str], figure: str, served: Program
) -> None:
    before = in_use(served)
    install_another_engine(served.home, options)
    with asking(served):
        done = upgrade(served)

    assert done.code == 1
    error = done.document["error"]
    assert error["type"] == "engine-worse"
    assert f"standard: {figure}: " in error["message"]
    assert "--force" in error["hint"]
    assert in_use(served) == before


def test_force_switches_all_the_same_and_rollback_returns(served: Program) -> None:
    before = in_use(served)
    newer = install_another_engine(served.home, PLANTED["parser"][0])
    done = upgrade(served, "--force")
    assert done.code == 0, done.err
    (tier,) = done.document["health"]["tiers"]
    assert "check" in {each["figure"] for each in tier["worse"]}
    assert in_use(served) == newer.version
    assert done.document["restart"] == ["standard"]
    assert served.run("up").code == 0

    back = served.run("engines", "rollback", "vllm-mlx", "--json")
    assert back.code == 0, back.err
    assert in_use(served) == before
    assert served.run("up").code == 0
    assert served.run("ask", "hello").code == 0


def test_a_tier_that_does_not_run_and_was_never_measured_is_not_compared(
    program: Program,
) -> None:
    install_fake_engines(program.home, engine_options=GOOD)
    define_stack(program.home, {"standard": {}})
    install_another_engine(program.home, GOOD)
    done = upgrade(program)
    assert done.code == 0, done.err
    (tier,) = done.document["health"]["tiers"]
    assert "isn't running" in tier["skipped"]
