"""A stand-in for launchd: jobs in domains, with their state in one file, answering as launchctl.

It knows nothing of the library under test. Exit codes, texts and the order of things follow what
was recorded on macOS 11 to 27: bootout returns before the job has gone, a bootstrap right behind it
fails, a disabled label and a barred login item are refused, a job that dies is started again no
sooner than its ThrottleInterval.

The same code answers in two ways. A test that holds a `FakeLaunchd` with simulated processes moves
its clock by hand. The `launchctl` program on PATH shares the state file with a small background
process, `fake_launchd_daemon`, that starts and reaps real processes as launchd would.
"""

import fcntl
import json
import plistlib
import stat
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from xml.parsers.expat import ExpatError

type Job = dict[str, Any]
type State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """An exit code and two texts."""

    returncode: int
    stdout: str = ""
    stderr: str = ""


class Processes(Protocol):
    """Starts programs and tells how they ended."""

    def start(self, job: Job) -> int:
        """Start the job's program and give its pid."""
        ...

    def ended(self, pid: int) -> tuple[str, int] | None:
        """Give `("exit", code)` or `("signal", number)` once it has ended."""
        ...

    def terminate(self, pid: int) -> None:
        """Send SIGTERM."""
        ...

    def kill(self, pid: int) -> None:
        """Send SIGKILL to the whole process group."""
        ...

    def power_off(self) -> None:
        """End everything at once, whatever it does about signals."""
        ...


def initial_state(*, uid: int = 501, user: str = "alice", macos: str = "26.5.1") -> State:
    """Give a Mac on which this user is logged in at the console."""
    return {
        "macos": macos,
        "uid": uid,
        "user": user,
        "console_uid": uid,
        "gui": [uid],
        "user_domains": [uid],
        "overrides": {},
        "login_items_off": [],
        "root_owned": [],
        "jobs": {},
        "ghosts": {},
        "faults": [],
        "teardown_s": 0.0,
        "ghost_s": 0.0,
        "throttle_scale": 1.0,
        "bootout_code": 0,
        "loaded_code": 5,
        "next_pid": 4200,
        "daemon_pid": None,
        "machine": {},
    }


class FakeLaunchd:
    """Answers as launchctl would, and lets time pass for the jobs."""

    def __init__(
        self,
        folder: Path,
        *,
        now: Callable[[], float],
        processes: Processes | None = None,
    ) -> None:
        """Take a folder with `state.json`; without processes, another process settles the jobs."""
        self.folder = folder
        self.now = now
        self.processes = processes

    @property
    def path(self) -> Path:
        """Give the state file."""
        return self.folder / "state.json"

    @contextmanager
    def state(self) -> Generator[State]:
        """Give the state under a lock and write it back; due transitions happen first."""
        with (self.folder / "state.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = self.path.read_text()
            state: State = json.loads(before)
            self._settle(state)
            yield state
            self._settle(state)
            after = json.dumps(state)
            if after != before:
                self.path.write_text(after)

    def launchctl(self, arguments: Sequence[str], *, uid: int | None = None) -> Reply:
        """Answer one command line; the caller is the Mac's user unless another uid is given."""
        verbs: dict[str, Callable[[State, int, Sequence[str]], Reply]] = {
            "print": _print,
            "print-disabled": _print_disabled,
            "list": _list,
            "bootstrap": self._bootstrap,
            "bootout": self._bootout,
            "kickstart": self._kickstart,
            "enable": _enable,
            "disable": _disable,
            "managername": _manager_name,
        }
        if not arguments or arguments[0] not in verbs:
            return Reply(64, "", f"Unrecognized subcommand: {' '.join(arguments)}\n")
        verb, *rest = arguments
        with self.state() as state:
            caller = state["uid"] if uid is None else uid
            fault = _due_fault(state, verb)
            if fault is None:
                return verbs[verb](state, caller, rest)
            if fault.get("does_it_anyway"):
                verbs[verb](state, caller, rest)
            return Reply(fault["code"], "", fault.get("text", "") + "\n")

    def power_cut(self) -> None:
        """End every process and forget every loaded job and session, as a dead machine does."""
        with self.state() as state:
            if self.processes is not None:
                self.processes.power_off()
            state["jobs"] = {}
            state["ghosts"] = {}
            state["gui"] = []
            state["user_domains"] = []
            state["console_uid"] = 0

    def boot(self, *, daemons: Path, agents: Path) -> None:
        """Start the machine: daemons at once, agents only where somebody is logged in by itself."""
        with self.state() as state:
            machine = state["machine"]
            if machine.get("filevault"):
                return
            self._load_folder(state, "system", daemons)
            if machine.get("auto_login_user") == state["user"]:
                self._log_in(state, agents)

    def log_in(self, agents: Path) -> None:
        """Log the user in at the console, which loads that user's agents."""
        with self.state() as state:
            self._log_in(state, agents)

    def _log_in(self, state: State, agents: Path) -> None:
        state["console_uid"] = state["uid"]
        state["gui"] = [state["uid"]]
        state["user_domains"] = [state["uid"]]
        self._load_folder(state, f"gui/{state['uid']}", agents)

    def _load_folder(self, state: State, domain: str, folder: Path) -> None:
        for plist in sorted(folder.glob("*.plist")):
            self._bootstrap(state, 0, [domain, str(plist)])

    def _bootstrap(self, state: State, caller: int, arguments: Sequence[str]) -> Reply:
        domain, path = arguments[0], Path(arguments[1])
        refused = _refusal(state, caller, domain, path)
        if isinstance(refused, Reply):
            return refused
        entries = refused
        label = entries["Label"]
        target = f"{domain}/{label}"
        if target in state["jobs"] or target in state["ghosts"]:
            return _failed("Bootstrap", state["loaded_code"])
        if state["overrides"].get(_database(domain), {}).get(label):
            return _failed("Bootstrap", 119 if _major(state) >= 13 else 5)
        if label in state["login_items_off"] and domain != "system":
            return _failed("Bootstrap", 125)
        starts = bool(entries.get("RunAtLoad") or entries.get("KeepAlive"))
        state["jobs"][target] = {
            "label": label,
            "domain": domain,
            "path": str(path),
            "entries": entries,
            "pid": None,
            "runs": 0,
            "exit_code": None,
            "signal": None,
            "stopping": False,
            "restart_now": False,
            "told": False,
            "gone_at": None,
            "killed_at": None,
            "start_at": self.now() if starts else None,
            "started_at": None,
        }
        return Reply(0)

    def _bootout(self, state: State, caller: int, arguments: Sequence[str]) -> Reply:
        target = arguments[0]
        domain = target.rpartition("/")[0]
        if domain == "system" and caller != 0:
            return _failed("Boot-out", 1)
        if not _exists(state, domain):
            return _failed("Boot-out", 125)
        job = state["jobs"].get(target)
        if job is None:
            return _failed("Boot-out", 3)
        if not job["stopping"]:
            job["stopping"] = True
            job["start_at"] = None
            job["gone_at"] = self.now() + state["teardown_s"]
            timeout = job["entries"].get("ExitTimeOut", 5)
            job["killed_at"] = self.now() + timeout if timeout else None
        if state["bootout_code"]:
            return _failed("Boot-out", state["bootout_code"])
        return Reply(0)

    def _kickstart(self, state: State, caller: int, arguments: Sequence[str]) -> Reply:
        target = arguments[-1]
        if target.startswith("system/") and caller != 0:
            return Reply(1, "", "Operation not permitted\n")
        job = state["jobs"].get(target)
        if job is None or job["stopping"]:
            return Reply(113, "", f'Could not find service "{_label(target)}" in {_of(target)}\n')
        if "-k" in arguments and job["pid"] is not None:
            job["restart_now"] = True
            job["killed_at"] = self.now() + job["entries"].get("ExitTimeOut", 5)
        elif job["pid"] is None:
            job["start_at"] = self.now()
        return Reply(0)

    def _settle(self, state: State) -> None:
        now = self.now()
        for target in [t for t, until in state["ghosts"].items() if until <= now]:
            del state["ghosts"][target]
        for target, job in list(state["jobs"].items()):
            if self.processes is not None:
                self._settle_process(state, job, now, self.processes)
            if job["stopping"] and job["pid"] is None and job["gone_at"] <= now:
                del state["jobs"][target]
                if state["ghost_s"]:
                    state["ghosts"][target] = now + state["ghost_s"]

    def _settle_process(self, state: State, job: Job, now: float, processes: Processes) -> None:
        if job["pid"] is not None:
            ended = processes.ended(job["pid"])
            if ended is not None:
                if not job["entries"].get("AbandonProcessGroup"):
                    processes.kill(job["pid"])
                _record_end(state, job, ended, now)
            elif (job["stopping"] or job["restart_now"]) and not job["told"]:
                job["told"] = True
                processes.terminate(job["pid"])
            elif job["told"] and job["killed_at"] is not None and job["killed_at"] <= now:
                processes.kill(job["pid"])
        if job["pid"] is None and job["start_at"] is not None and job["start_at"] <= now:
            job["pid"] = processes.start(job)
            job["runs"] += 1
            job["start_at"] = None
            job["started_at"] = now


def _record_end(state: State, job: Job, ended: tuple[str, int], now: float) -> None:
    kind, number = ended
    job["pid"] = None
    job["told"] = False
    job["exit_code"] = number if kind == "exit" else None
    job["signal"] = number if kind == "signal" else None
    if job["stopping"]:
        return
    if job["restart_now"]:
        job["restart_now"] = False
        job["start_at"] = now
        return
    if _is_kept_alive(job["entries"].get("KeepAlive", False), kind, number):
        throttle = job["entries"].get("ThrottleInterval", 10) * state["throttle_scale"]
        job["start_at"] = max(now, job["started_at"] + throttle)


def _is_kept_alive(keep: bool | dict[str, bool], kind: str, number: int) -> bool:
    if isinstance(keep, bool):
        return keep
    ends = {"SuccessfulExit": kind == "exit" and number == 0, "Crashed": kind == "signal"}
    return any(keep[name] == happened for name, happened in ends.items() if name in keep)


def _due_fault(state: State, verb: str) -> State | None:
    for fault in state["faults"]:
        if fault["verb"] == verb and fault.get("times", 1) > 0:
            fault["times"] = fault.get("times", 1) - 1
            return fault
    return None


def _refusal(state: State, caller: int, domain: str, path: Path) -> Reply | dict[str, Any]:
    """Give the plist's entries, or why launchd would not look at them."""
    if not _exists(state, domain):
        return _failed("Bootstrap", 125)
    if domain == "system" and caller != 0:
        return _failed("Bootstrap", 1)
    try:
        found = path.lstat()
        entries = plistlib.loads(path.read_bytes())
    except FileNotFoundError:
        return _failed("Bootstrap", 2)
    except (ValueError, ExpatError):
        return _failed("Bootstrap", 5)
    trusted = stat.S_ISREG(found.st_mode) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if domain == "system":
        trusted = trusted and str(path) in state["root_owned"]
    if not trusted:
        return _failed("Bootstrap", 122 if _major(state) >= 13 else 5)
    return entries


_TEXTS = {
    1: "Operation not permitted",
    2: "No such file or directory",
    3: "No such process",
    5: "Input/output error",
    17: "File exists",
    36: "Operation now in progress",
    37: "Operation already in progress",
    119: "Service is disabled",
    122: "Path had bad ownership/permissions",
    125: "Domain does not support specified action",
}


def _failed(action: str, code: int) -> Reply:
    return Reply(code, "", f"{action} failed: {code}: {_TEXTS[code]}\n")


def _major(state: State) -> int:
    return int(state["macos"].partition(".")[0])


def _exists(state: State, domain: str) -> bool:
    kind, _, uid = domain.partition("/")
    if kind == "system":
        return True
    known: list[int] = state["gui"] if kind == "gui" else state["user_domains"]
    return uid.isdigit() and int(uid) in known


def _database(domain: str) -> str:
    """Give the name of the table of overrides: a user's two domains share one."""
    return domain.rpartition("/")[2]


def _label(target: str) -> str:
    return target.rpartition("/")[2]


def _of(target: str) -> str:
    kind, _, rest = target.partition("/")
    uid = rest.partition("/")[0]
    return {
        "gui": f"domain for user gui: {uid}",
        "user": f"domain for uid: {uid}",
    }.get(kind, "domain for system")


def _is_domain(target: str) -> bool:
    return target == "system" or (target.startswith(("gui/", "user/")) and target.count("/") == 1)


def _print(state: State, caller: int, arguments: Sequence[str]) -> Reply:
    target = arguments[0]
    domain = target if _is_domain(target) else target.rpartition("/")[0]
    bad = "Bad request.\n" if _major(state) >= 13 else ""
    if not _exists(state, domain):
        return Reply(112, "", f"{bad}Could not find {_of(target)}\n")
    uid = domain.partition("/")[2]
    if uid and int(uid) != caller and caller != 0:
        return Reply(1, "", "Could not print domain: 1: Operation not permitted\n")
    if _is_domain(target):
        return Reply(0, _domain_text(state, target))
    job = state["jobs"].get(target)
    if job is None:
        return Reply(113, "", f'{bad}Could not find service "{_label(target)}" in {_of(target)}\n')
    return Reply(0, job_text(job, target, _major(state)))


def _domain_text(state: State, target: str) -> str:
    jobs = [job for job in state["jobs"].values() if job["domain"] == target]
    services = "".join(f"\t\t{job['pid'] or 0:>8}      {'-':>3} \t{job['label']}\n" for job in jobs)
    return (
        f"{target} = {{\n\ttype = {'system' if target == 'system' else 'login'}\n"
        f"\thandle = 100011\n\tactive count = {len(jobs) + 3}\n\tservice count = {len(jobs)}\n"
        f"\tcreator = loginwindow[388]\n\tcreator euid = 0\n\n\tservices = {{\n{services}\t}}\n}}\n"
    )


_SIGNALS = {1: "Hangup", 2: "Interrupt", 6: "Abort trap", 9: "Killed", 11: "Segmentation fault"}


def job_text(job: Job, target: str, macos_major: int) -> str:
    """Give the text of `launchctl print` for a job, as that macOS writes it."""
    entries = job["entries"]
    program = entries.get("Program") or entries["ProgramArguments"][0]
    lines = [
        f"active count = {int(job['pid'] is not None)}",
        f"path = {job['path']}",
    ]
    if macos_major >= 13:
        lines.append(f"type = {'LaunchDaemon' if job['domain'] == 'system' else 'LaunchAgent'}")
    lines += [f"state = {_state_word(job)}", "", f"program = {program}"]
    lines += _block("arguments", list(entries.get("ProgramArguments", [])))
    for key, name in (("StandardOutPath", "stdout path"), ("StandardErrorPath", "stderr path")):
        if key in entries:
            lines.append(f"{name} = {entries[key]}")
    lines += _block("default environment", ["PATH => /usr/bin:/bin:/usr/sbin:/sbin"])
    environment = [f"{k} => {v}" for k, v in entries.get("EnvironmentVariables", {}).items()]
    if macos_major >= 26:
        environment.insert(0, "OSLogRateLimit => 64")
    lines += _block("environment", [*environment, f"XPC_SERVICE_NAME => {job['label']}"])
    lines += [
        f"domain = {job['domain']}" + ("" if job["domain"] == "system" else " [100011]"),
        f"minimum runtime = {entries.get('ThrottleInterval', 10)}",
        f"exit timeout = {entries.get('ExitTimeOut', 5)}",
        f"runs = {job['runs']}",
    ]
    lines += _ending(job)
    lines += _block("resource coalition", ["ID = 731", "type = resource", "state = active"])
    lines += _block("jetsam coalition", ["ID = 732", "type = jetsam", "state = active"])
    spawn = {"Interactive": "interactive (4)", "Background": "background (5)"}
    lines += [
        f"spawn type = {spawn.get(entries.get('ProcessType', ''), 'daemon (3)')}",
        f"job state = {'running' if job['pid'] else 'exited' if job['runs'] else 'uninitialized'}",
        "",
        "properties = " + " | ".join(_properties(entries)),
    ]
    body = "".join(f"\t{line}\n" if line else "\n" for line in lines)
    return f"{target} = {{\n{body}}}\n"


def _state_word(job: Job) -> str:
    if job["pid"] is not None:
        return "running"
    return "spawn scheduled" if job["start_at"] is not None else "not running"


def _ending(job: Job) -> list[str]:
    lines = [] if job["pid"] is None else [f"pid = {job['pid']}"]
    if job["signal"] is not None:
        name = _SIGNALS.get(job["signal"], "Terminated")
        return [*lines, f"last terminating signal = {name}: {job['signal']}", ""]
    if job["exit_code"] is None:
        return [*lines, "last exit code = (never exited)", ""]
    name = ": EX_CONFIG" if job["exit_code"] == 78 else ""
    return [*lines, f"last exit code = {job['exit_code']}{name}", ""]


def _properties(entries: dict[str, Any]) -> list[str]:
    words = ["keepalive"] if entries.get("KeepAlive") is True else []
    if entries.get("RunAtLoad") or entries.get("KeepAlive"):
        words.append("runatload")
    return [*words, "inferred program"]


def _block(name: str, lines: list[str]) -> list[str]:
    return [f"{name} = {{", *(f"\t{line}" for line in lines), "}", ""]


def _print_disabled(state: State, _caller: int, arguments: Sequence[str]) -> Reply:
    domain = arguments[0]
    if not _exists(state, domain):
        return Reply(112, "", f"Could not find {_of(domain)}\n")
    yes, no = ("disabled", "enabled") if _major(state) >= 13 else ("true", "false")
    rows = "".join(
        f'\t\t"{label}" => {yes if disabled else no}\n'
        for label, disabled in state["overrides"].get(_database(domain), {}).items()
    )
    text = f"\n\tdisabled services = {{\n{rows}\t}}\n"
    if _major(state) >= 13:
        text += "\n\tlogin item associations = {\n\t}\n"
    return Reply(0, text)


def _list(state: State, caller: int, arguments: Sequence[str]) -> Reply:
    domain = "system" if caller == 0 else f"gui/{caller}"
    jobs = {job["label"]: job for job in state["jobs"].values() if job["domain"] == domain}
    if not arguments:
        rows = "".join(
            f"{job['pid'] or '-'}\t{-job['signal'] if job['signal'] else job['exit_code'] or 0}"
            f"\t{label}\n"
            for label, job in jobs.items()
        )
        return Reply(0, "PID\tStatus\tLabel\n" + rows)
    job = jobs.get(arguments[0])
    if job is None:
        return Reply(113, "", f'Could not find service "{arguments[0]}" in domain for port\n')
    status = job["signal"] or (job["exit_code"] or 0) << 8
    pid = "" if job["pid"] is None else f'\t"PID" = {job["pid"]};\n'
    return Reply(
        0,
        '{\n\t"LimitLoadToSessionType" = "Aqua";\n'
        f'\t"Label" = "{job["label"]}";\n\t"OnDemand" = false;\n'
        f'\t"LastExitStatus" = {status};\n{pid}}};\n',
    )


def _manager_name(_state: State, _caller: int, _arguments: Sequence[str]) -> Reply:
    return Reply(0, "Aqua\n")


def _enable(state: State, caller: int, arguments: Sequence[str]) -> Reply:
    return _override(state, caller, arguments[0], disabled=False)


def _disable(state: State, caller: int, arguments: Sequence[str]) -> Reply:
    return _override(state, caller, arguments[0], disabled=True)


def _override(state: State, caller: int, target: str, *, disabled: bool) -> Reply:
    domain = target.rpartition("/")[0]
    if domain == "system" and caller != 0:
        return Reply(1, "", "Operation not permitted\n")
    state["overrides"].setdefault(_database(domain), {})[_label(target)] = disabled
    return Reply(0)
