"""Reports of kernel panics, shaped as macOS shapes them, with values of our own."""

import json
from datetime import UTC, datetime

_WORDS = """panic(cpu 4 caller 0xfffffe0012345678): "completeMemory() prepare count underflow" \
@IOGPUMemory.cpp:550
Debugger message: panic
Memory ID: 0x6
OS release type: User
OS version: 25D125
Kernel version: Darwin Kernel Version 25.3.0
Fileset Kernelcache UUID: 00000000000000000000000000000000
secure boot?: YES
Panicked task 0xfffffe2000000000: {task}
Panicked thread: 0xfffffe2100000000, backtrace: 0xfffffe3000000000, tid: 4711
"""


def panic_report(at: float, *, pid: int | None, form: str = "ips") -> tuple[str, str]:
    """The name and the text of the report of a panic.

    Args:
        at: When it was, in seconds since the epoch.
        pid: The process that the kernel names; None for the kernel's own.
        form: `ips`, where the kernel's words are a string in JSON, or `panic`, where they follow
            the first line.
    """
    moment = datetime.fromtimestamp(at, UTC)
    shown = f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 10_000:02} +0000"
    task = "1234 pages, 471 threads: pid 0: kernel_task"
    if pid is not None:
        task = f"1250000 pages, 24 threads: pid {pid}: python3.13"
    words = _WORDS.format(task=task)
    head = {
        "bug_type": "210",
        "timestamp": shown,
        "os_version": "macOS 26.3 (25D125)",
        "roots_installed": 0,
        "incident_id": "00000000-0000-0000-0000-000000000000",
    }
    stamp = f"{moment:%Y-%m-%d-%H%M%S}"
    if form == "panic":
        return f"Kernel-{stamp}.panic", f"{json.dumps(head)}\n{words}"
    body = {"product": "Mac16,11", "date": shown, "panicString": words}
    return f"panic-full-{stamp}.0002.ips", f"{json.dumps(head)}\n{json.dumps(body, indent=2)}\n"
