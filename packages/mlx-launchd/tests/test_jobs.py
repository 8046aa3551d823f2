"""Each exit code of launchctl, and what becomes of the job.

A `Dialogue` answers launchctl's verbs from a list, the last answer again and again; the clock moves
only while Jobs waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mlx_launchd import (
    SYSTEM,
    Completed,
    DisabledError,
    Domain,
    DomainKind,
    Jobs,
    JobTimeouts,
    Launchctl,
    LaunchctlError,
    LaunchctlStatus,
    NoSessionError,
    NotPermittedError,
    NotRunningError,
    StillStoppingError,
    Verb,
    classify,
)

GUI = Domain(DomainKind.GUI, 502)
LABEL = "org.quill.indexd"
PLIST = Path("/Users/robin/Library/LaunchAgents/org.quill.indexd.plist")

OK = Completed(0)
NOT_LOADED = Completed(113, "", f'Bad request.\nCould not find service "{LABEL}"\n')


def printed(
    *,
    pid: int | None = 900,
    state: str = "running",
    runs: int = 1,
    ending: str = "",
    path: Path = PLIST,
) -> Completed:
    lines = [f"path = {path}", f"state = {state}", "exit timeout = 20", f"runs = {runs}"]
    lines += [] if pid is None else [f"pid = {pid}"]
    lines += [ending] if ending else []
    body = "".join(f"\t{line}\n" for line in lines)
    return Completed(0, f"gui/502/{LABEL} = {{\n{body}}}\n")


def failed(code: int, text: str = "Input/output error") -> Completed:
    return Completed(code, "", f"Bootstrap failed: {code}: {text}\n")


def _verb(words: Sequence[str]) -> str:
    names = [word.rpartition("/")[2] for word in words]
    return words[names.index("launchctl") + 1]


@dataclass
class Dialogue:
    """launchctl as a list of answers a verb; `print` of the job is the verb `job`."""

    answers: dict[str, list[Completed]]
    asked: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    now_s: float = 0.0

    def __call__(self, command: Sequence[str], /) -> Completed:
        words = tuple(command)
        self.asked.append(words)
        verb = _verb(words)
        if verb == "print" and words[-1].endswith(LABEL):
            if words[-1].startswith("user/"):
                return NOT_LOADED
            verb = "job"
        queue = self.answers.get(verb, [OK])
        return queue.pop(0) if len(queue) > 1 else queue[0]

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float, /) -> None:
        self.now_s += seconds

    def verbs(self) -> list[str]:
        return [_verb(words) for words in self.asked]

    @property
    def jobs(self) -> Jobs:
        return Jobs(Launchctl(self), clock=self)


def talk(**answers: list[Completed]) -> Dialogue:
    return Dialogue({verb.replace("_", "-"): queue for verb, queue in answers.items()})


def test_a_job_is_enabled_before_it_is_bootstrapped_and_then_seen_to_run() -> None:
    dialogue = talk(job=[NOT_LOADED, printed()])
    loaded = dialogue.jobs.load(LABEL, PLIST, GUI)
    assert loaded.job.pid == 900
    verbs = dialogue.verbs()
    assert verbs.index("enable") < verbs.index("bootstrap")
    assert verbs[-1] == "print"
    assert dialogue.now_s >= JobTimeouts().steady_s


def test_a_job_that_is_loaded_already_goes_before_the_new_one_comes() -> None:
    dialogue = talk(job=[printed(pid=1), printed(pid=1), NOT_LOADED, printed(pid=2)])
    assert dialogue.jobs.load(LABEL, PLIST, GUI).job.pid == 2
    assert dialogue.verbs().index("bootout") < dialogue.verbs().index("bootstrap")


@pytest.mark.parametrize("code", [5, 37, 17])
def test_a_bootstrap_behind_a_bootout_is_tried_until_the_old_job_is_torn_down(code: int) -> None:
    dialogue = talk(
        job=[NOT_LOADED, NOT_LOADED, NOT_LOADED, printed()],
        bootstrap=[failed(code), failed(code), OK],
    )
    assert dialogue.jobs.load(LABEL, PLIST, GUI).job.pid == 900
    assert dialogue.verbs().count("bootstrap") == 3


@pytest.mark.parametrize("code", [5, 37, 17])
def test_a_bootstrap_that_never_succeeds_is_given_up_with_its_code(code: int) -> None:
    dialogue = talk(job=[NOT_LOADED], bootstrap=[failed(code)])
    with pytest.raises(LaunchctlError) as raised:
        dialogue.jobs.load(LABEL, PLIST, GUI)
    assert raised.value.returncode == code
    assert raised.value.command[1:] == ("bootstrap", "gui/502", str(PLIST))
    assert raised.value.hint
    assert dialogue.verbs().count("bootstrap") == JobTimeouts().bootstrap_tries


def test_a_bootstrap_that_says_5_while_the_job_loads_has_succeeded() -> None:
    dialogue = talk(job=[NOT_LOADED, printed()], bootstrap=[failed(5)])
    assert dialogue.jobs.load(LABEL, PLIST, GUI).job.pid == 900
    assert dialogue.verbs().count("bootstrap") == 1


def test_a_bootstrap_that_says_0_while_no_job_loads_has_failed() -> None:
    dialogue = talk(job=[NOT_LOADED])
    with pytest.raises(LaunchctlError, match="not loaded"):
        dialogue.jobs.load(LABEL, PLIST, GUI)


def test_the_same_label_from_another_file_is_replaced() -> None:
    other = printed(path=Path("/tmp/other.plist"))
    dialogue = talk(job=[NOT_LOADED, other, NOT_LOADED, printed()], bootstrap=[failed(37), OK])
    assert dialogue.jobs.load(LABEL, PLIST, GUI).job.path == str(PLIST)
    assert "bootout" in dialogue.verbs()


def test_a_disabled_label_is_enabled_once_more_and_then_loads() -> None:
    dialogue = talk(
        job=[NOT_LOADED, NOT_LOADED, printed()],
        bootstrap=[failed(119, "Service is disabled"), OK],
    )
    dialogue.jobs.load(LABEL, PLIST, GUI)
    assert dialogue.verbs().count("enable") == 2


def test_a_label_that_stays_disabled_is_said_to_be_disabled() -> None:
    dialogue = talk(job=[NOT_LOADED], bootstrap=[failed(119, "Service is disabled")])
    with pytest.raises(DisabledError, match="disabled") as raised:
        dialogue.jobs.load(LABEL, PLIST, GUI)
    assert raised.value.returncode == 119


def test_on_older_systems_a_disabled_label_hides_behind_code_5() -> None:
    off = Completed(0, f'disabled services = {{\n\t"{LABEL}" => true\n}}\n')
    dialogue = talk(job=[NOT_LOADED], bootstrap=[failed(5)], print_disabled=[off])
    with pytest.raises(DisabledError):
        dialogue.jobs.load(LABEL, PLIST, GUI)


def test_a_domain_that_exists_and_refuses_points_to_login_items() -> None:
    dialogue = talk(job=[NOT_LOADED], bootstrap=[failed(125)])
    with pytest.raises(DisabledError) as raised:
        dialogue.jobs.load(LABEL, PLIST, GUI)
    assert "Login Items" in raised.value.hint


def test_a_domain_that_vanished_before_the_bootstrap_is_no_session() -> None:
    dialogue = talk(
        print=[OK, Completed(112, "", "Bad request.\n")], job=[NOT_LOADED], bootstrap=[failed(125)]
    )
    with pytest.raises(NoSessionError):
        dialogue.jobs.load(LABEL, PLIST, GUI)


@pytest.mark.parametrize(
    ("code", "word"), [(122, "0644"), (2, "no file"), (5, "plutil -lint"), (37, "same time")]
)
def test_a_refused_file_says_what_to_look_at(code: int, word: str) -> None:
    dialogue = talk(job=[NOT_LOADED], bootstrap=[failed(code)])
    with pytest.raises(LaunchctlError) as raised:
        dialogue.jobs.load(LABEL, PLIST, GUI)
    assert word in raised.value.hint


IO_ERROR = Completed(
    5,
    "",
    "Bootstrap failed: 5: Input/output error\n"
    "Try re-running the command as root for richer errors.\n",
)


@pytest.mark.parametrize("plist", [PLIST, Path("/Volumes/Ext/robin/Library/LaunchAgents/a.plist")])
def test_the_error_is_what_launchctl_says_and_not_its_advice_to_use_root(plist: Path) -> None:
    with pytest.raises(LaunchctlError, match="Bootstrap failed: 5: Input/output error") as raised:
        talk(job=[NOT_LOADED], bootstrap=[IO_ERROR]).jobs.load(LABEL, plist, GUI)
    assert "as root" not in raised.value.message + raised.value.hint


@pytest.mark.parametrize("answer", [IO_ERROR, failed(122)])
def test_a_plist_on_another_disk_is_told_with_its_volume_and_the_way_out(answer: Completed) -> None:
    plist = Path("/Volumes/Big Disk/robin/Library/LaunchAgents/org.quill.indexd.plist")
    dialogue = talk(job=[NOT_LOADED], bootstrap=[answer])
    jobs = Jobs(Launchctl(dialogue), dialogue, as_daemon="run `quill install --system`")
    with pytest.raises(LaunchctlError) as raised:
        jobs.load(LABEL, plist, GUI)
    assert "the volume /Volumes/Big Disk:" in raised.value.hint
    assert "run `quill install --system`" in raised.value.hint


def test_a_home_that_is_a_link_to_another_disk_is_told_with_its_volume(tmp_path: Path) -> None:
    (tmp_path / "robin").symlink_to("/Volumes/Ext/robin")
    dialogue = talk(job=[NOT_LOADED], bootstrap=[IO_ERROR])
    with pytest.raises(LaunchctlError) as raised:
        dialogue.jobs.load(LABEL, tmp_path / "robin/Library/LaunchAgents/a.plist", GUI)
    assert "the volume /Volumes/Ext:" in raised.value.hint


@pytest.mark.parametrize("code", [122, 2, 1, 125, 64])
def test_what_waiting_cannot_cure_is_not_tried_again(code: int) -> None:
    dialogue = talk(job=[NOT_LOADED], bootstrap=[failed(code)])
    with pytest.raises(LaunchctlError):
        dialogue.jobs.load(LABEL, PLIST, GUI)
    assert dialogue.verbs().count("bootstrap") == 1


def test_the_system_domain_without_rights_is_not_permitted() -> None:
    dialogue = talk(job=[NOT_LOADED], bootstrap=[failed(1, "Operation not permitted")])
    with pytest.raises(NotPermittedError, match="Operation not permitted"):
        dialogue.jobs.load(LABEL, PLIST, SYSTEM)


def test_an_absent_domain_is_no_session() -> None:
    absent = Completed(112, "", "Bad request.\nCould not find domain for user gui: 502\n")
    dialogue = talk(print=[absent])
    with pytest.raises(NoSessionError, match="Could not find domain") as raised:
        dialogue.jobs.load(LABEL, PLIST, GUI)
    assert raised.value.returncode == 112
    assert dialogue.verbs() == ["print"]


def test_another_users_domain_is_not_permitted() -> None:
    foreign = Completed(1, "", "Could not print domain: 1: Operation not permitted\n")
    with pytest.raises(NotPermittedError):
        talk(print=[foreign]).jobs.load(LABEL, PLIST, GUI)


def test_an_unknown_code_is_reported_with_the_command_to_look_it_up() -> None:
    dialogue = talk(job=[NOT_LOADED], bootstrap=[failed(141, "something new")])
    with pytest.raises(LaunchctlError) as raised:
        dialogue.jobs.load(LABEL, PLIST, GUI)
    assert (raised.value.returncode, raised.value.text) == (
        141,
        "Bootstrap failed: 141: something new",
    )
    assert "launchctl error 141" in raised.value.hint


@pytest.mark.parametrize("code", [3, 113, 125])
def test_a_bootout_of_what_has_gone_meanwhile_is_done(code: int) -> None:
    dialogue = talk(job=[printed(), NOT_LOADED], bootout=[Completed(code)])
    assert dialogue.jobs.unload(LABEL, GUI)
    assert dialogue.now_s == 0


@pytest.mark.parametrize("code", [3, 113, 125])
def test_a_bootout_that_says_nothing_is_there_is_not_believed_while_print_shows_it(
    code: int,
) -> None:
    dialogue = talk(job=[printed()], bootout=[Completed(code)])
    with pytest.raises(StillStoppingError):
        dialogue.jobs.unload(LABEL, GUI)


@pytest.mark.parametrize("code", [0, 36, 5])
def test_a_bootout_returns_only_once_the_job_has_gone(code: int) -> None:
    dialogue = talk(job=[printed(), printed(), printed(), NOT_LOADED], bootout=[Completed(code)])
    assert dialogue.jobs.unload(LABEL, GUI)
    assert dialogue.now_s == pytest.approx(2 * JobTimeouts().poll_s)


def test_a_job_that_does_not_stop_is_waited_for_no_longer_than_its_exit_timeout_allows() -> None:
    dialogue = talk(job=[printed()], bootout=[Completed(36)])
    with pytest.raises(StillStoppingError) as raised:
        dialogue.jobs.unload(LABEL, GUI)
    assert raised.value.returncode == 36
    assert 20 + JobTimeouts().teardown_s <= dialogue.now_s <= 26


def test_a_bootout_without_rights_is_not_permitted() -> None:
    dialogue = talk(job=[printed()], bootout=[Completed(1, "", "Boot-out failed: 1: …")])
    with pytest.raises(NotPermittedError):
        dialogue.jobs.unload(LABEL, SYSTEM)


def test_unloading_what_is_not_loaded_touches_nothing() -> None:
    dialogue = talk(job=[NOT_LOADED])
    assert not dialogue.jobs.unload(LABEL, GUI)
    assert set(dialogue.verbs()) == {"print"}


def test_a_loaded_job_that_was_not_started_is_kicked() -> None:
    idle = printed(pid=None, state="not running", runs=0)
    dialogue = talk(job=[NOT_LOADED, idle, idle, printed()])
    assert dialogue.jobs.load(LABEL, PLIST, GUI).job.pid == 900
    assert dialogue.verbs().count("kickstart") == 1


def test_a_job_that_starts_later_is_loaded_without_waiting_for_its_program() -> None:
    idle = printed(pid=None, state="not running", runs=0)
    dialogue = talk(job=[NOT_LOADED, idle])
    assert dialogue.jobs.load(LABEL, PLIST, GUI, starts=False).job.pid is None
    assert (dialogue.verbs().count("kickstart"), dialogue.now_s) == (0, 0)


def test_a_job_that_vanishes_before_it_is_kicked_is_said_not_to_be_loaded() -> None:
    idle = printed(pid=None, state="not running", runs=0)
    dialogue = talk(job=[NOT_LOADED, idle], kickstart=[NOT_LOADED])
    with pytest.raises(LaunchctlError, match="the job is not loaded: Could not find") as raised:
        dialogue.jobs.load(LABEL, PLIST, GUI)
    assert raised.value.returncode == 113


def test_a_program_that_has_done_its_work_is_no_failure() -> None:
    done = printed(pid=None, state="not running", ending="last exit code = 0")
    dialogue = talk(job=[NOT_LOADED, done])
    assert dialogue.jobs.load(LABEL, PLIST, GUI).job.pid is None


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("last exit code = 78: EX_CONFIG", "exited with 78, EX_CONFIG"),
        ("last terminating signal = Killed: 9", "ended by Killed (9)"),
        ("last exit code = (never exited)", "was never started"),
    ],
)
def test_a_program_that_does_not_stay_alive_is_reported_with_its_end(
    ending: str, words: str
) -> None:
    dying = printed(pid=None, state="spawn scheduled", runs=3, ending=ending)
    dialogue = talk(job=[NOT_LOADED, dying])
    with pytest.raises(NotRunningError) as raised:
        dialogue.jobs.load(LABEL, PLIST, GUI)
    assert words in raised.value.message


def test_a_program_that_starts_again_all_the_time_does_not_count_as_running() -> None:
    crashing = [printed(pid=pid) for pid in range(100, 200)]
    dialogue = talk(job=[NOT_LOADED, *crashing])
    with pytest.raises(NotRunningError):
        dialogue.jobs.load(LABEL, PLIST, GUI)


def test_a_replaced_binary_is_recognised_by_the_kernels_reason() -> None:
    killed = printed(
        pid=None,
        state="spawn scheduled",
        ending="last exit reason = OS_REASON_CODESIGNING",
    )
    with pytest.raises(NotRunningError) as raised:
        talk(job=[NOT_LOADED, killed]).jobs.load(LABEL, PLIST, GUI)
    assert "rename" in raised.value.hint


def test_only_what_changes_a_domain_is_run_with_privilege() -> None:
    dialogue = talk(job=[NOT_LOADED, printed()])
    launchctl = Launchctl(dialogue, privilege=("sudo",))
    Jobs(launchctl, clock=dialogue).load(LABEL, PLIST, SYSTEM)
    with_sudo = {words[2] for words in dialogue.asked if words[0] == "sudo"}
    without = {words[1] for words in dialogue.asked if words[0] == "launchctl"}
    assert with_sudo == {"enable", "bootstrap"}
    assert without == {"print"}


def test_enabling_a_label_of_the_system_without_rights_is_not_permitted() -> None:
    dialogue = talk(job=[NOT_LOADED], enable=[Completed(1, "", "Operation not permitted")])
    with pytest.raises(NotPermittedError):
        dialogue.jobs.load(LABEL, PLIST, SYSTEM)
    assert "bootstrap" not in dialogue.verbs()


def test_starting_a_job_of_the_system_without_rights_is_not_permitted() -> None:
    idle = printed(pid=None, state="not running", runs=0)
    with pytest.raises(NotPermittedError):
        talk(job=[NOT_LOADED, idle], kickstart=[Completed(1)]).jobs.load(LABEL, PLIST, SYSTEM)


@pytest.mark.parametrize("answer", [Completed(112), Completed(0, "garbage")])
def test_whether_a_label_is_disabled_can_be_unknown(answer: Completed) -> None:
    assert talk(print_disabled=[answer]).jobs.is_disabled(LABEL, GUI) is None


@pytest.mark.parametrize(
    ("verb", "code", "status"),
    [
        (Verb.PRINT, 113, LaunchctlStatus.NOT_LOADED),
        (Verb.PRINT, 112, LaunchctlStatus.NO_DOMAIN),
        (Verb.PRINT, 1, LaunchctlStatus.NOT_PERMITTED),
        (Verb.BOOTSTRAP, 0, LaunchctlStatus.DONE),
        (Verb.BOOTSTRAP, 5, LaunchctlStatus.IO_ERROR),
        (Verb.BOOTSTRAP, 37, LaunchctlStatus.ALREADY_LOADED),
        (Verb.BOOTSTRAP, 17, LaunchctlStatus.ALREADY_LOADED),
        (Verb.BOOTSTRAP, 119, LaunchctlStatus.DISABLED),
        (Verb.BOOTSTRAP, 125, LaunchctlStatus.REFUSED),
        (Verb.BOOTSTRAP, 122, LaunchctlStatus.BAD_FILE),
        (Verb.BOOTSTRAP, 2, LaunchctlStatus.NO_FILE),
        (Verb.BOOTSTRAP, 1, LaunchctlStatus.NOT_PERMITTED),
        (Verb.BOOTOUT, 3, LaunchctlStatus.NOT_LOADED),
        (Verb.BOOTOUT, 113, LaunchctlStatus.NOT_LOADED),
        (Verb.BOOTOUT, 5, LaunchctlStatus.IO_ERROR),
        (Verb.BOOTOUT, 36, LaunchctlStatus.STOPPING),
        (Verb.BOOTOUT, 1, LaunchctlStatus.NOT_PERMITTED),
        (Verb.BOOTOUT, 125, LaunchctlStatus.NO_DOMAIN),
        (Verb.KICKSTART, 113, LaunchctlStatus.NOT_LOADED),
        (Verb.KICKSTART, 0, LaunchctlStatus.DONE),
        (Verb.PRINT, 250, LaunchctlStatus.UNKNOWN),
    ],
)
def test_an_exit_code_means_what_was_recorded(
    verb: Verb, code: int, status: LaunchctlStatus
) -> None:
    assert classify(verb, code) is status


def test_the_legacy_verbs_that_fail_with_0_are_never_used() -> None:
    dialogue = talk(job=[NOT_LOADED, *[printed(pid=1)] * 8, printed(pid=2)])
    dialogue.jobs.load(LABEL, PLIST, GUI)
    dialogue.jobs.find(LABEL, GUI)
    assert not {"load", "unload", "start", "stop"} & set(dialogue.verbs())
