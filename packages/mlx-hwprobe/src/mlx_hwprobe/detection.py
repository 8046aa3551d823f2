"""Detecting the machine: the one module that runs programs and reads files (decision 0032)."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_hwprobe import _darwin, _linux
from mlx_hwprobe.capture import Capture, ProgramOutput, parse_json_object
from mlx_hwprobe.errors import HwprobeError, InvalidDocumentError, UnknownPlatformError
from mlx_hwprobe.profile import HardwareProfile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from subprocess import Popen
    from typing import BinaryIO

SYSCTL_NAMES = (
    "hw.memsize",
    "hw.model",
    "machdep.cpu.brand_string",
    "sysctl.proc_translated",
    "kern.hv_vmm_present",
    "kern.osproductversion",
    "iogpu.wired_limit_mb",
    "hw.nperflevels",
    *(
        f"hw.perflevel{level}.{key}"
        for level in range(3)
        for key in ("name", "physicalcpu", "physicalcpu_max")
    ),
)
"""What is asked of sysctl: names that a Mac does not know make it fail, and print the rest."""

_LONGEST_DOCUMENT_BYTES = 16 * 2**20
"""Real captures have less than 100 kB."""

FAST_MAC_PROGRAMS: dict[str, tuple[str, ...]] = {
    _darwin.SYSCTL: ("sysctl", *SYSCTL_NAMES),
    _darwin.IOREG: ("ioreg", "-rc", "AGXAccelerator", "-d1"),
    _darwin.SW_VERS: ("sw_vers",),
}
"""Each answers within milliseconds."""

SLOW_MAC_PROGRAMS: dict[str, tuple[str, ...]] = {
    _darwin.DISPLAYS: ("system_profiler", "-json", "SPDisplaysDataType"),
    _darwin.HARDWARE: ("system_profiler", "-json", "SPHardwareDataType"),
}
"""Each takes a good part of a second: asked only where the fast ones left something open."""

_METAL_PROGRAM = (
    "import json, mlx.core as mx; print(json.dumps(mx.device_info() if mx.metal.is_available()"
    " else {}))"
)

LINUX_PROGRAMS: dict[str, tuple[str, ...]] = {
    _linux.NVIDIA_SMI: ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"),
    _linux.LSCPU: ("lscpu",),
}

LINUX_FILES: dict[str, str] = {
    _linux.CPUINFO: "/proc/cpuinfo",
    _linux.MEMINFO: "/proc/meminfo",
    _linux.OS_RELEASE: "/etc/os-release",
}

TIMEOUT_S = 10.0
"""How long the programs may take together before those still running count as failed."""

type Runner = Callable[[Mapping[str, Sequence[str]]], dict[str, ProgramOutput]]
"""Runs programs, by name, and answers with what each printed."""

_LAST_LOOK_S = 0.25
_NOT_FOUND, _TIMED_OUT = 127, 124
# Where macOS and Linux keep their own tools: a service is started with a bare PATH.
_KEPT_VARIABLES = ("HOME", "USER", "LOGNAME", "TMPDIR")
"""All that the programs see of this process's environment, which may hold secrets."""
_SYSTEM_FOLDERS = "/usr/sbin:/usr/bin:/sbin:/bin"


def detect(*, platform: str = sys.platform, run: Runner | None = None) -> HardwareProfile:
    """The profile of the machine that this process runs on.

    On a Mac it takes as long as the slowest of three fast programs, and asks `system_profiler`
    only where they left the chip, the memory or the GPU's cores open.

    Raises:
        NotAppleSiliconError: This is a Mac with an Intel processor.
        UnknownPlatformError: The platform is neither macOS nor Linux.
        HwprobeError: Nothing could be read.
    """
    run = run or run_programs
    capture = read_machine(platform=platform, run=run)
    if platform == "darwin" and needs_system_profiler(capture):
        capture = Capture({**capture.outputs, **run(SLOW_MAC_PROGRAMS)})
    return profile_from_capture(capture)


def read_machine(
    *, thorough: bool = False, platform: str = sys.platform, run: Runner | None = None
) -> Capture:
    """What this machine's fast programs say; with `thorough`, what all of them say.

    All of them includes Metal's own limit for the GPU, where MLX is installed with this package.

    Nothing is removed from it: `redact` makes of it what may be shown to others.

    Raises:
        UnknownPlatformError: The platform is neither macOS nor Linux.
    """
    run = run or run_programs
    if platform == "darwin":
        programs = FAST_MAC_PROGRAMS | (SLOW_MAC_PROGRAMS if thorough else {})
        if thorough and find_spec("mlx") is not None:
            programs |= {_darwin.METAL: (sys.executable, "-c", _METAL_PROGRAM)}
        return Capture(run(programs))
    if platform == "linux":
        return _read_linux(run, thorough=thorough)
    raise UnknownPlatformError(
        f"no hardware detection for {platform}", hint="It knows macOS and Linux."
    )


def _read_linux(run: Runner, *, thorough: bool) -> Capture:
    files = _read_files(LINUX_FILES)
    programs = dict(LINUX_PROGRAMS)
    if not thorough and _linux.parse_cpu_name(files[_linux.CPUINFO].stdout):
        del programs[_linux.LSCPU]  # on Arm the kernel names no processor, and lscpu does
    return Capture(files | run(programs))


def profile_from_capture(capture: Capture) -> HardwareProfile:
    """The profile of the machine that a capture was made on.

    Raises:
        NotAppleSiliconError: It was a Mac with an Intel processor.
        HwprobeError: Nothing in the capture could be read.
    """
    is_linux = any(name in capture.outputs for name in (*LINUX_FILES, *LINUX_PROGRAMS))
    profile = _linux.linux_profile(capture) if is_linux else _darwin.mac_profile(capture)
    if profile == HardwareProfile():
        names = ", ".join(capture.outputs) or "none"
        raise HwprobeError(
            f"nothing about the machine could be read (outputs: {names})",
            hint="A capture contains the output of each program: text of sysctl, ioreg and sw_vers,"
            " JSON of system_profiler.",
        )
    return profile


def needs_system_profiler(capture: Capture) -> bool:
    """Whether the fast programs left the chip, the memory or the GPU's cores open."""
    try:
        profile = _darwin.mac_profile(capture)
    except _darwin.NotAppleSiliconError:
        return False
    if profile.is_virtual_machine and profile.chip is not None:
        return False  # it has no Apple GPU to ask
    return None in (profile.chip, profile.memory_bytes, profile.gpu_cores)


def load_profile(path: str | Path) -> HardwareProfile:
    """The profile in a file: a saved profile, or a saved capture.

    Raises:
        InvalidDocumentError: The file can't be read, or is neither.
        NotAppleSiliconError: It is the capture of an Intel Mac.
        HwprobeError: It is a capture from which nothing could be read.
    """
    if Path(path).is_char_device():  # it says nothing, or never stops
        raise InvalidDocumentError(f"{path}: not a file")
    try:
        with Path(path).open("rb") as file:
            return read_profile(file)
    except OSError as error:
        raise InvalidDocumentError(f"{path}: {error.strerror or error}") from error
    except InvalidDocumentError as error:
        where = f"{path}: {error.place}" if error.place else str(path)
        raise InvalidDocumentError(error.problem, place=where, hint=error.hint) from error


def read_profile(file: BinaryIO) -> HardwareProfile:
    """The profile in an open file or a pipe, as `parse_profile` has it; it may be endless."""
    return parse_profile(file.read(_LONGEST_DOCUMENT_BYTES + 1))


def parse_profile(content: bytes) -> HardwareProfile:
    """The profile in the content of a saved profile or a saved capture.

    Raises:
        InvalidDocumentError: The content is neither.
        NotAppleSiliconError: It is the capture of an Intel Mac.
        HwprobeError: It is a capture from which nothing could be read.
    """
    if len(content) > _LONGEST_DOCUMENT_BYTES:
        raise InvalidDocumentError("too large for a profile or a capture")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidDocumentError("not text in UTF-8") from error
    document = parse_json_object(text)
    if "outputs" in document:
        return profile_from_capture(Capture.from_document(document))
    return HardwareProfile.from_document(document)


def run_programs(
    programs: Mapping[str, Sequence[str]],
    *,
    timeout_s: float = TIMEOUT_S,
    search_path: str | None = None,
) -> dict[str, ProgramOutput]:
    """What each program printed; all of them run side by side.

    A program that is not there counts as failed with 127, one that takes too long with 124.

    Args:
        programs: Each one's command by the name its output gets.
        timeout_s: How long all of them together may take.
        search_path: Where to look for them; None is this process's own PATH, then the system's.
    """
    import time

    if search_path is None:
        search_path = f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_FOLDERS}"
    # In the C locale, numbers have a point and words are English. macOS tells its own version, and
    # not one that suits an old program.
    env = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    env |= {"LC_ALL": "C", "LANG": "C", "SYSTEM_VERSION_COMPAT": "0", "PATH": search_path}
    deadline = time.monotonic() + timeout_s
    started = {name: _start(command, env) for name, command in programs.items()}
    # One that hangs must not cost the answer of another that has long finished.
    return {
        name: _finish(process, max(_LAST_LOOK_S, deadline - time.monotonic()))
        for name, process in started.items()
    }


def _start(command: Sequence[str], env: Mapping[str, str]) -> Popen[bytes] | None:
    """The running program, or None where it can't be started."""
    import subprocess

    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
        )
    except OSError:
        return None


def _finish(process: Popen[bytes] | None, timeout_s: float) -> ProgramOutput:
    """What the program printed, once it has ended or has been ended."""
    import subprocess

    if process is None:
        return ProgramOutput(_NOT_FOUND, "")
    with process:  # closes its pipe, and waits for it
        try:
            stdout, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return ProgramOutput(_TIMED_OUT, "")
    return ProgramOutput(process.returncode, stdout.decode("utf-8", "replace"))


def _read_files(paths: Mapping[str, str]) -> dict[str, ProgramOutput]:
    outputs: dict[str, ProgramOutput] = {}
    for name, path in paths.items():
        try:
            outputs[name] = ProgramOutput(
                0, Path(path).read_text(encoding="utf-8", errors="replace")
            )
        except OSError:
            outputs[name] = ProgramOutput(1, "")
    return outputs
