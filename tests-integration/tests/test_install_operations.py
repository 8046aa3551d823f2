"""What `install`, `install --status` and `uninstall` do to a Mac, with every part of it in hand."""

import os
import plistlib
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mlx_launchd import DisabledError, LaunchdError
from mlx_procsup import run_as
from mlx_stack import __version__
from mlx_stack.autostart.install import install, uninstall
from mlx_stack.autostart.job import LABEL, job_label, require_lasting
from mlx_stack.autostart.mac import Mac, this_mac
from mlx_stack.autostart.status import read_install_status
from mlx_stack.engines.errors import EngineMissingError
from mlx_stack.errors import MissingError, NoStackError, StackError, UsageError
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.service import WATCHDOG
from stack_testkit.fake_mac import FakeMac
from stack_testkit.home import define_stack, install_fake_engines
from stack_testkit.launchd_world import GUI
from stack_testkit.simulated_processes import Behaviour, SimulatedProcesses, VirtualClock


@dataclass
class World:
    """Alice's Mac, her home, and a stack in it."""

    folder: Path
    clock: VirtualClock = field(default_factory=VirtualClock)

    def __post_init__(self) -> None:
        self.processes = SimulatedProcesses(self.clock)
        self.fake = FakeMac.make(
            self.folder / "mac", now=self.clock.monotonic, processes=self.processes
        )
        self.user_home = self.folder / "alice"
        self.home = Home(self.user_home / ".mlx-stack")
        self.interpreter = self.user_home / ".local/share/uv/tools/mlx-stack/bin/python"
        self.interpreter.parent.mkdir(parents=True)
        self.interpreter.symlink_to(sys.executable)
        self.daemons = self.folder / "LaunchDaemons"
        self.daemons.mkdir()
        install_fake_engines(self.home)
        define_stack(self.home, {"standard": {}})

    def mac(self, **changes: Any) -> Mac:
        parts: dict[str, Any] = {
            "run": self.fake.run,
            "run_privileged": self.fake.run,
            "sudo_program": "/usr/bin/sudo",
            "environment": {},
            "user_home": self.user_home,
            "daemons": self.daemons,
            "interpreter": self.interpreter,
            "has_terminal": True,
            "clock": self.clock,
        }
        return Mac(**(parts | changes))

    def opened(self) -> OpenStack:
        return OpenStack(self.home)

    @property
    def agent(self) -> Path:
        return self.user_home / "Library" / "LaunchAgents" / f"{LABEL}.plist"

    @property
    def daemon(self) -> Path:
        return self.daemons / f"{LABEL}.plist"

    def jobs(self) -> dict[str, Any]:
        with self.fake.launchd.state() as state:
            return dict(state["jobs"])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_agent_runs_the_watchdog_of_this_installation_and_starts_the_stack(
    world: World,
) -> None:
    report = install(world.opened(), world.mac())
    assert (report.outcome, report.status.kind, report.status.domain) == (
        "installed",
        "agent",
        "gui/501",
    )
    assert report.status.job.pid in world.processes.alive
    entries = plistlib.loads(world.agent.read_bytes())
    assert entries["ProgramArguments"] == [
        str(world.interpreter),
        "-P",
        "-m",
        "mlx_stack",
        "watch",
        "--up",
    ]
    assert entries["EnvironmentVariables"]["MLX_STACK_HOME"] == str(world.home.root)
    assert entries["EnvironmentVariables"]["PATH"].split(":")[0] == str(world.interpreter.parent)
    assert entries["ProcessType"] == "Interactive"
    assert entries["KeepAlive"] is True
    assert entries["ExitTimeOut"] == 30
    assert entries["ThrottleInterval"] == 10
    assert "SoftResourceLimits" not in entries  # each service raises its own
    assert entries["StandardErrorPath"] == str(world.home.logs / "watchdog.log")
    assert world.home.logs.is_dir()
    assert "UserName" not in entries


def test_installing_again_touches_nothing_and_after_an_upgrade_brings_it_up_to_date(
    world: World,
) -> None:
    first = install(world.opened(), world.mac())
    again = install(world.opened(), world.mac())
    assert (again.outcome, again.status.job.pid) == ("unchanged", first.status.job.pid)
    elsewhere = world.mac(interpreter=Path("/opt/homebrew/bin/python3.13"))
    upgraded = install(world.opened(), elsewhere)
    assert upgraded.outcome == "updated"
    assert upgraded.status.job.pid != first.status.job.pid
    assert len(world.processes.alive) == 1


def test_a_daemon_runs_as_the_user_before_any_login_and_shows_each_step_of_root(
    world: World,
) -> None:
    steps: list[str] = []
    report = install(world.opened(), world.mac(), system=True, on_step=steps.append)
    assert (report.status.kind, report.status.domain) == ("daemon", "system")
    entries = plistlib.loads(world.daemon.read_bytes())
    assert entries["UserName"] == "alice"
    assert entries["EnvironmentVariables"]["HOME"] == str(world.user_home)
    assert "SoftResourceLimits" not in entries
    assert steps == [
        f"/usr/bin/sudo /usr/bin/tee {world.daemon}",
        f"/usr/bin/sudo /bin/chmod 0644 {world.daemon}",
        f"/usr/bin/sudo /bin/launchctl enable system/{LABEL}",
        f"/usr/bin/sudo /bin/launchctl bootstrap system {world.daemon}",
    ]
    assert not (world.home.root / "launchd").exists()
    assert report.status.outlook.comes_back is True


def test_without_a_password_nothing_is_installed_and_the_way_to_one_is_said(world: World) -> None:
    world.fake.change(sudo=False)
    with pytest.raises(StackError, match="a password is required") as raised:
        install(world.opened(), world.mac(has_terminal=False), system=True)
    assert "ssh -t" in (raised.value.hint or "")
    assert not world.jobs()
    assert not world.daemon.exists()


@pytest.mark.parametrize("system", [True, False])
def test_agent_and_daemon_replace_each_other(world: World, *, system: bool) -> None:
    install(world.opened(), world.mac(), system=not system)
    install(world.opened(), world.mac(), system=system)
    assert [job["domain"] for job in world.jobs().values()] == ["system" if system else "gui/501"]
    assert world.daemon.exists() is system
    assert world.agent.exists() is not system
    assert len(world.processes.alive) == 1


@pytest.mark.parametrize("system", [True, False])
def test_where_the_other_kind_is_refused_the_one_before_is_put_back(
    world: World, *, system: bool
) -> None:
    install(world.opened(), world.mac(), system=not system)
    world.fake.change(faults=[{"verb": "bootstrap", "code": 122, "text": "Load failed: 122"}])
    with pytest.raises(LaunchdError, match="122"):
        install(world.opened(), world.mac(), system=system)
    assert [job["domain"] for job in world.jobs().values()] == ["gui/501" if system else "system"]
    assert world.daemon.exists() is not system
    assert world.agent.exists() is system


@pytest.mark.parametrize("system", [True, False])
def test_uninstalling_leaves_nothing_of_it(world: World, *, system: bool) -> None:
    install(world.opened(), world.mac(), system=system)
    assert uninstall(world.home, world.mac()).removed == (("daemon",) if system else ("agent",))
    assert not world.jobs()
    assert not world.processes.alive
    assert not list(world.daemons.iterdir())
    assert not list(world.agent.parent.iterdir() if world.agent.parent.exists() else [])
    assert uninstall(world.home, world.mac()).removed == ()


def test_only_the_daemon_can_be_uninstalled(world: World) -> None:
    install(world.opened(), world.mac())
    assert uninstall(world.home, world.mac(), system=True).removed == ()
    assert list(world.jobs()) == [f"gui/501/{LABEL}"]
    install(world.opened(), world.mac(), system=True)
    assert uninstall(world.home, world.mac(), system=True).removed == ("daemon",)
    assert not world.jobs()


def test_a_plist_that_others_may_write_is_put_right(world: World) -> None:
    install(world.opened(), world.mac())
    world.agent.chmod(0o666)
    assert install(world.opened(), world.mac()).outcome == "updated"
    assert world.agent.stat().st_mode & 0o777 == 0o644


def test_a_second_state_folder_has_a_job_of_its_own(world: World) -> None:
    other = Home(world.user_home / "second")
    install_fake_engines(other)
    define_stack(other, {"standard": {}})
    install(world.opened(), world.mac())
    install(OpenStack(other), world.mac())
    assert len(world.jobs()) == 2
    assert job_label(other, world.user_home).startswith(f"{LABEL}.")
    uninstall(other, world.mac())
    assert list(world.jobs()) == [f"gui/501/{LABEL}"]


@pytest.mark.parametrize(
    "interpreter",
    [
        "/Users/alice/.cache/uv/archive-v0/Xa81kq/bin/python",
        "/Users/alice/.cache/uv/environments-v2/mlx-stack-0c1f/bin/python3",
        "/Users/alice/.local/pipx/.cache/1f2e3d/bin/python",
        "/private/tmp/try/bin/python",
        "/private/var/folders/q1/abc/T/try/bin/python",
        "/var/folders/q1/abc/T/try/bin/python",
        "/private/var/folders/q1/AppTranslocation/9A/d/Stack.app/Contents/MacOS/python",
        "/nix/store/7rj9-python3.13-mlx-stack/bin/python3",
        f"/Users/alice/.local/share/mise/installs/pipx-mlx-stack/{__version__}/bin/python",
        "/usr/local/Cellar/mlx-stack/0.3.1/libexec/bin/python",
    ],
)
def test_a_program_that_will_be_gone_one_day_is_refused(world: World, interpreter: str) -> None:
    with pytest.raises(StackError) as raised:
        install(world.opened(), world.mac(interpreter=Path(interpreter)))
    assert interpreter in raised.value.message
    assert "mlx-stack install" in (raised.value.hint or "")
    assert not world.agent.exists()


@pytest.mark.parametrize(
    "interpreter",
    [
        "/Users/alice/.local/share/uv/tools/mlx-stack/bin/python",
        "/Users/alice/.local/pipx/venvs/mlx-stack/bin/python",
        "/opt/homebrew/opt/mlx-stack/libexec/bin/python",
        "/Users/alice/code/mlx-stack/.venv/bin/python3",
        "/Library/Frameworks/Python.framework/Versions/3.13/bin/python3.13",
    ],
)
def test_a_program_that_stays_is_named_as_it_is(world: World, interpreter: str) -> None:
    assert require_lasting(Path(interpreter), world.fake.run) == Path(interpreter)


INSIDE = {
    "Internal": True,
    "RemovableMediaOrExternalDevice": False,
    "Ejectable": False,
    "FileVault": False,
}


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (INSIDE, None),
        (INSIDE | {"FileVault": True}, "it is encrypted, and may be locked then"),
        (INSIDE | {"FileVault": None}, "diskutil doesn't say whether it is encrypted"),
        (INSIDE | {"Internal": False}, "it is not a disk inside the Mac"),
        (INSIDE | {"RemovableMediaOrExternalDevice": True}, "it is not a disk inside the Mac"),
        (INSIDE | {"Ejectable": True}, "it is not a disk inside the Mac"),
        ({}, "it is not a disk inside the Mac"),
        (INSIDE | {"MountPoint": "/"}, "diskutil doesn't know it"),
        (None, "diskutil doesn't know it"),
    ],
    ids=[
        *("inside", "encrypted", "perhaps-encrypted", "external", "card", "image", "silent"),
        *("only-a-folder", "unknown"),
    ],
)
def test_a_program_on_a_second_disk_is_accepted_only_where_the_disk_is_there_at_boot(
    world: World, facts: dict[str, Any] | None, why: str | None
) -> None:
    known = {} if facts is None else {k: v for k, v in facts.items() if v is not None}
    world.fake.change(volumes={} if facts is None else {"/Volumes/Big Disk": known})
    interpreter = Path("/Volumes/Big Disk/venv/bin/python")
    if why is None:
        assert require_lasting(interpreter, world.fake.run) == interpreter
        return
    with pytest.raises(StackError) as raised:
        install(world.opened(), world.mac(interpreter=interpreter))
    assert f"on the volume /Volumes/Big Disk, which may be missing when the Mac starts: {why} " in (
        raised.value.message
    )
    assert str(interpreter) in raised.value.message
    assert "mlx-stack install" in (raised.value.hint or "")
    assert not world.agent.exists()


def test_a_folder_that_is_a_link_to_a_passing_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "venv").symlink_to("/private/tmp/try")
    with pytest.raises(StackError, match="temporary folder"):
        require_lasting(tmp_path / "venv" / "bin" / "python", FakeMac.make(tmp_path / "mac").run)


@dataclass
class Homebrew:
    """Homebrew's folders, with one formula in one or more versions."""

    prefix: Path

    def pour(self, version: str) -> Path:
        """Install a version, as `brew upgrade` does; its interpreter."""
        keg = self.prefix / "Cellar" / "mlx-stack" / version
        (keg / "libexec" / "bin").mkdir(parents=True)
        (keg / "libexec" / "bin" / "python").symlink_to(sys.executable)
        opt = self.prefix / "opt" / "mlx-stack"
        opt.parent.mkdir(exist_ok=True)
        opt.unlink(missing_ok=True)
        opt.symlink_to(Path("../Cellar/mlx-stack") / version)
        return keg / "libexec" / "bin" / "python"

    def clean_up(self, version: str) -> None:
        """Remove a version, as `brew cleanup` does."""
        shutil.rmtree(self.prefix / "Cellar" / "mlx-stack" / version)


def test_a_homebrew_keg_is_named_by_the_link_that_outlives_an_upgrade(world: World) -> None:
    brew = Homebrew(world.folder / "homebrew")
    install(world.opened(), world.mac(interpreter=brew.pour("0.1.0")))
    brew.pour("0.2.0")
    brew.clean_up("0.1.0")
    entries = plistlib.loads(world.agent.read_bytes())
    program = entries["ProgramArguments"][0]
    assert program == str(brew.prefix / "opt/mlx-stack/libexec/bin/python")
    assert entries["EnvironmentVariables"]["PATH"].split(":")[0] == str(Path(program).parent)
    assert Path(program).exists()
    assert read_install_status(world.home, world.mac()).missing_program is None


def test_an_old_keg_that_homebrew_no_longer_links_is_refused(world: World) -> None:
    brew = Homebrew(world.folder / "homebrew")
    old = brew.pour("0.1.0")
    brew.pour("0.2.0")
    with pytest.raises(StackError, match="brew upgrade") as raised:
        install(world.opened(), world.mac(interpreter=old))
    assert "brew reinstall mlx-stack" in (raised.value.hint or "")


@pytest.mark.parametrize("is_running", [True, False])
def test_a_program_that_an_upgrade_removed_is_named_and_never_comes_back(
    world: World, *, is_running: bool
) -> None:
    program = world.interpreter
    install(world.opened(), world.mac(), system=True)
    before = read_install_status(world.home, world.mac())
    assert (before.missing_program, before.outlook.comes_back) == (None, True)
    program.unlink()
    if not is_running:
        world.fake.launchd.power_cut()
    status = read_install_status(world.home, world.mac())
    assert (status.running, status.missing_program) == (is_running, str(program))
    assert status.outlook.comes_back is False
    assert (status.outlook.findings[0].name, status.outlook.findings[0].verdict) == (
        "program",
        "prevents",
    )
    assert str(program) in status.outlook.findings[0].message


def test_a_home_on_another_disk_is_named_with_the_way_out(tmp_path: Path) -> None:
    volume = "/Volumes/Big Disk"
    (tmp_path / "alice").symlink_to(f"{volume}/alice")
    world = World(tmp_path / "disk")
    world.fake.change(
        faults=[
            {
                "verb": "bootstrap",
                "code": 5,
                "text": "Bootstrap failed: 5: Input/output error\n"
                "Try re-running the command as root for richer errors.",
                "times": 99,
            }
        ]
    )
    with pytest.raises(LaunchdError, match="Bootstrap failed: 5") as raised:
        world.mac().agent_installer(501).jobs.load(
            LABEL, tmp_path / "alice/Library/LaunchAgents/a.plist", GUI
        )
    assert volume in raised.value.hint
    assert "mlx-stack install --system" in raised.value.hint
    assert "as root" not in raised.value.message + raised.value.hint


def test_over_ssh_with_nobody_logged_in_a_daemon_is_offered(world: World) -> None:
    world.fake.change(console_uid=0, gui=[])
    over_ssh = world.mac(environment={"SSH_CONNECTION": "192.0.2.7 51000 192.0.2.8 22"})
    with pytest.raises(StackError, match="came over SSH") as raised:
        install(world.opened(), over_ssh)
    assert "--system" in (raised.value.hint or "")
    install(world.opened(), over_ssh, system=True)
    assert read_install_status(world.home, over_ssh).running


def test_root_is_sent_back_to_the_user(world: World) -> None:
    world.fake.change(uid=0, user="root")
    with pytest.raises(UsageError, match="this is root"):
        install(world.opened(), world.mac())


def test_without_a_stack_there_is_nothing_to_keep_up(world: World) -> None:
    world.home.stack.unlink()
    with pytest.raises(NoStackError):
        install(world.opened(), world.mac())


def test_without_engines_a_watchdog_that_cannot_start_anything_is_not_installed(
    world: World,
) -> None:
    shutil.rmtree(world.home.engines)
    with pytest.raises(EngineMissingError):
        install(world.opened(), world.mac())
    assert not world.jobs()


def test_a_watchdog_that_launchd_did_not_start_is_in_the_way(world: World) -> None:
    with (
        run_as(WATCHDOG, world.home.state_dirs),
        pytest.raises(StackError, match=f"PID {os.getpid()}"),
    ):
        install(world.opened(), world.mac())
    assert not world.jobs()


def test_a_job_barred_in_login_items_is_told_and_leaves_no_plist(world: World) -> None:
    world.fake.change(login_items_off=[LABEL])
    with pytest.raises(DisabledError) as raised:
        install(world.opened(), world.mac())
    assert "Login Items" in raised.value.hint
    assert not world.agent.exists()


def test_a_watchdog_that_cannot_start_is_reported_with_its_exit_code(world: World) -> None:
    world.processes.behaviours[str(world.interpreter)] = Behaviour(ends_after_s=0.2, exit_code=2)
    with pytest.raises(LaunchdError, match="exited with 2"):
        install(world.opened(), world.mac())
    status = read_install_status(world.home, world.mac())
    assert (status.kind, status.domain, status.job.last_exit_code) == ("agent", "gui/501", 2)


def test_the_status_follows_the_job_through_its_life(world: World) -> None:
    before = read_install_status(world.home, world.mac())
    assert (before.kind, before.domain, before.outlook.comes_back) == (None, None, False)
    report = install(world.opened(), world.mac())
    running = read_install_status(world.home, world.mac())
    assert (running.kind, running.running, running.job.pid) == (
        "agent",
        True,
        report.status.job.pid,
    )
    assert report.status.job.pid is not None
    world.processes.kill(report.status.job.pid)
    crashed = read_install_status(world.home, world.mac())
    assert (crashed.domain, crashed.running, crashed.job.state) == (
        "gui/501",
        False,
        "spawn scheduled",
    )
    assert crashed.job.last_terminating_signal == 9
    world.clock.sleep(10)
    restarted = read_install_status(world.home, world.mac())
    assert restarted.running
    assert (restarted.job.runs, restarted.job.last_terminating_signal) == (2, 9)


@pytest.mark.parametrize(
    ("system", "machine", "comes_back"),
    [
        (True, {}, True),
        (False, {}, False),
        (False, {"auto_login_user": "alice"}, True),
        (True, {"filevault": True}, False),
        (True, {"autorestart": 0}, False),
        (True, {"autorestart": 0, "battery": True}, True),
    ],
)
def test_what_is_promised_of_a_power_cut_is_what_happens(
    world: World, *, system: bool, machine: dict[str, Any], comes_back: bool
) -> None:
    world.fake.change(**machine)
    install(world.opened(), world.mac(), system=system)
    assert read_install_status(world.home, world.mac()).outlook.comes_back is comes_back

    world.fake.launchd.power_cut()
    assert not world.processes.alive
    if world.fake.starts_by_itself():
        world.fake.launchd.boot(daemons=world.daemons, agents=world.agent.parent)

    world.jobs()
    assert bool(world.processes.alive) is comes_back


def test_where_there_is_no_launchctl_nothing_is_tried(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as raised:
        this_mac({"PATH": str(tmp_path)})
    assert "systemd" in (raised.value.hint or "")
