"""Whatever is done to a Mac in whatever order, a loaded job has its plist, and a plist its job."""

import plistlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_launchd import (
    Domain,
    DomainKind,
    Installer,
    LaunchAgent,
    Launchctl,
    LaunchctlError,
    LaunchdError,
    Lifecycle,
    UserPlistFiles,
)
from stack_testkit.fake_mac import FakeMac
from stack_testkit.simulated_processes import Behaviour, SimulatedProcesses, VirtualClock

LABEL = "org.quill.indexd"
GUI = Domain(DomainKind.GUI, 501)
AGENT = LaunchAgent(
    LABEL,
    ("/opt/quill/bin/indexd", "--version=1"),
    run_at_load=True,
    keep_alive=True,
    exit_timeout_s=20,
)


@dataclass
class World:
    """A Mac whose clock stands still between two operations."""

    folder: Path
    clock: VirtualClock = field(default_factory=VirtualClock)

    def __post_init__(self) -> None:
        self.processes = SimulatedProcesses(self.clock)
        self.mac = FakeMac.make(
            self.folder / "mac", now=self.clock.monotonic, processes=self.processes
        )
        self.agents = self.folder / "LaunchAgents"
        self.agents.mkdir()
        lifecycle = Lifecycle(Launchctl(self.mac.run), clock=self.clock)
        self.installer = Installer(lifecycle, UserPlistFiles(), self.agents, GUI)

    @property
    def plist(self) -> Path:
        return self.agents / f"{LABEL}.plist"

    def jobs(self) -> dict[str, Any]:
        with self.mac.launchd.state() as state:
            return {t: job for t, job in state["jobs"].items() if job["label"] == LABEL}

    def is_logged_in(self) -> bool:
        with self.mac.launchd.state() as state:
            return bool(state["gui"])

    def check(self) -> None:
        """A loaded job has its plist, and a plist its job, as far as there is a session at all."""
        if self.is_logged_in():
            assert bool(self.jobs()) == self.plist.exists(), (self.jobs(), self.plist.exists())
        # What runs belongs to a loaded job; nothing is left behind.
        assert self.processes.alive == {
            job["pid"] for job in self.jobs().values() if job["pid"] is not None
        }

    def install(self, version: int) -> None:
        agent = replace(
            AGENT, program_arguments=(AGENT.program_arguments[0], f"--version={version}")
        )
        installed = attempt(lambda: self.installer.install(agent))
        if installed is None:
            return
        (job,) = self.jobs().values()
        assert job["entries"] == plistlib.loads(self.plist.read_bytes())
        assert job["entries"]["ProgramArguments"][1] == f"--version={version}"
        assert job["domain"] == "gui/501"
        assert job["pid"] == installed.loaded.job.pid
        assert job["pid"] in self.processes.alive

    def uninstall(self) -> None:
        if attempt(lambda: self.installer.uninstall(LABEL)) is not None:
            assert not self.jobs()
            assert not self.plist.exists()

    def restart(self) -> None:
        before = {job["pid"] for job in self.jobs().values()}
        restarted = attempt(lambda: self.installer.lifecycle.restart(LABEL, GUI))
        if restarted is not None:
            assert restarted.job.pid not in before

    def crash(self) -> None:
        for pid in self.processes.alive:
            self.processes.kill(pid)

    def wait(self, seconds: float) -> None:
        self.clock.sleep(seconds)
        self.jobs()

    def program_becomes(self, behaviour: Behaviour) -> None:
        self.processes.behaviours[AGENT.program_arguments[0]] = behaviour

    def log_out(self) -> None:
        self.mac.launchd.power_cut()

    def log_in(self) -> None:
        if not self.is_logged_in():
            self.mac.launchd.log_in(self.agents)
            if not self.jobs():
                # launchd was told not to load it: its user sees a plist that does nothing, and
                # the next install or uninstall tidies up.
                self.plist.unlink(missing_ok=True)

    def loaded_elsewhere(self) -> None:
        """Another tool has put the job into the user's own domain."""
        if self.plist.exists() and not self.jobs() and self.is_logged_in():
            self.mac.launchd.launchctl(["bootstrap", "user/501", str(self.plist)])


def attempt[T](action: Callable[[], T]) -> T | None:
    """Give what the action gives, or None where it fails with an error that says enough."""
    try:
        return action()
    except LaunchctlError as error:
        complete = bool(error.message and error.hint and error.command)
    except LaunchdError as error:
        complete = bool(error.message)
    assert complete, "an error says what happened and what to do"
    return None


fault = st.builds(
    lambda verb_and_code, times, anyway: {
        "verb": verb_and_code[0],
        "code": verb_and_code[1],
        "text": f"{verb_and_code[0]} failed: {verb_and_code[1]}",
        "times": times,
        "does_it_anyway": anyway,
    },
    st.sampled_from(
        [("bootstrap", code) for code in (1, 2, 5, 17, 37, 119, 122, 125, 141)]
        + [("bootout", code) for code in (1, 5, 36, 125, 141)]
        + [("enable", 1), ("kickstart", 113), ("print", 141), ("print", 1)]
    ),
    st.integers(1, 3),
    st.booleans(),
).filter(
    # A bootout that says "no domain" or an unknown code and does it all the same was never
    # recorded, nor a question answered wrongly for long.
    lambda f: f["verb"] != "print" or f["times"] == 1
)

operations = st.one_of(
    st.tuples(st.just("install"), st.integers(1, 3)),
    st.tuples(st.just("install"), st.integers(1, 3)),
    st.tuples(st.just("uninstall")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("crash")),
    st.tuples(st.just("wait"), st.floats(0, 30)),
    st.tuples(
        st.just("program_becomes"),
        st.sampled_from(
            [
                Behaviour(),
                Behaviour(ends_after_s=0.3, exit_code=1),
                Behaviour(ends_after_s=2.0, exit_code=78),
                Behaviour(ignores_sigterm=True),
                Behaviour(unkillable=True),
            ]
        ),
    ),
    st.tuples(st.just("log_out")),
    st.tuples(st.just("log_in")),
    st.tuples(st.just("loaded_elsewhere")),
    st.tuples(
        st.just("change"),
        st.fixed_dictionaries(
            {
                "faults": st.lists(fault, max_size=2),
                "ghost_s": st.sampled_from([0.0, 0.4, 2.5, 60.0]),
                "teardown_s": st.sampled_from([0.0, 0.6, 4.0]),
                "bootout_code": st.sampled_from([0, 36]),
                "loaded_code": st.sampled_from([5, 37, 17]),
                "login_items_off": st.sampled_from([[], [], [LABEL]]),
                "overrides": st.sampled_from([{}, {"501": {LABEL: True}}]),
                "macos": st.sampled_from(["11.7", "14.2", "15.7.9", "26.5.1", "27.0"]),
            }
        ),
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(operations, min_size=1, max_size=12))
def test_any_sequence_ends_as_asked_or_with_a_clear_error(
    sequence: list[tuple[Any, ...]],
) -> None:
    with TemporaryDirectory() as folder:
        world = World(Path(folder))
        for name, *arguments in sequence:
            if name == "change":
                world.mac.change(**arguments[0])
            else:
                getattr(world, name)(*arguments)
            world.check()
