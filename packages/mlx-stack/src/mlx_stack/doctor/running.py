"""Engines, models, the Hub, ports and processes: whether the stack could start."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import psutil

from mlx_gateway.ledger import LedgerError, NewerLedgerError
from mlx_procsup import locate, stop_service, tail_with_archive
from mlx_stack import nodes
from mlx_stack.doctor.finding import Finding, Severity, of_error, ok
from mlx_stack.engines.environment import (
    USUAL,
    EngineName,
    Environment,
    current_environment,
    environment_for,
    shipped_lock,
    unused_environments,
)
from mlx_stack.engines.kept_prompts import list_kept, remove_kept, remove_old, unused
from mlx_stack.engines.manage import engines_here, install_engines, prune_engines
from mlx_stack.engines.uv_process import own_toolchain
from mlx_stack.engines.verify import verify
from mlx_stack.errors import StackError
from mlx_stack.format import format_bytes
from mlx_stack.home import Home
from mlx_stack.models.disk.local import list_local
from mlx_stack.models.find import local_model_of
from mlx_stack.models.hub.client import open_hub
from mlx_stack.models.hub.environment import read_environment
from mlx_stack.models.shelf import models_on_disk
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.learned import find_drifts
from mlx_stack.services import panic_reports, panics
from mlx_stack.services.assembly import model_folder
from mlx_stack.services.ports import is_free
from mlx_stack.services.service import GATEWAY, known_services
from mlx_stack.services.status import read_status

SERVICE, PANIC = "service", "panic"
"""The findings about what runs, and about what the Mac panicked over."""
_MOST_NAMED = 3
_STATES = {
    "crashed": "has crashed",
    "down": "doesn't answer",
    "degraded": "answers slowly",
}
_HUB_TIMEOUT_S = 3.0


def check_services(opened: OpenStack) -> Iterator[Finding]:
    """Whether what was started still runs and answers.

    Raises:
        StackError: When the stack or the configuration can't be read.
    """
    report = read_status(opened)
    for row in report.services:
        if row.kind in ("watchdog", "rank") or row.state in ("healthy", "stopped"):
            continue
        if row.kind == "replica":
            fix = f"`mlx-stack nodes check {row.name.partition('@')[2]}` says why."
            yield Finding(SERVICE, "warning", f"{row.name} does not answer.", "", fix)
            continue
        said = tail_with_archive(opened.home.state_dirs.log_file(row.name), 1)
        why = row.reason if row.state != "crashed" else None
        reasons = [f"{why[0].upper()}{why[1:]}."] if why else []
        reasons += [f"Last log line: {line}" for line in said]
        yield Finding(
            SERVICE,
            "problem",
            f"{row.name} {_STATES[row.state]}.",
            " ".join(reasons),
            f"`mlx-stack logs {row.name}` shows more; `mlx-stack up` starts it again."
            if row.state == "crashed"
            else f"`mlx-stack logs {row.name}` shows more; `mlx-stack restart` starts it again.",
        )
    if report.is_healthy:
        yield ok(SERVICE, "Every service is healthy.")
    elif all(row.state == "stopped" for row in report.services):
        yield Finding(SERVICE, "info", "The stack is stopped.", fix="`mlx-stack up` starts it.")


def check_panics(opened: OpenStack) -> Iterator[Finding]:
    """Whether the Mac panicked over a tier.

    Raises:
        StackError: When the stack or the record of panics can't be read.
    """
    folder = panic_reports.folder_of(opened.variables)
    if not folder.is_dir():
        return
    if not os.access(folder, os.R_OK | os.X_OK):
        yield Finding(
            PANIC,
            "info",
            f"Reports of panics in {folder} can't be read.",
            "A tier that panics the Mac would be started again and again.",
            "Run the watchdog as a user who administers this Mac.",
        )
        return
    record = panics.read(opened.home)
    severities: dict[panics.Standing, Severity] = {
        panics.Standing.AS_DEFINED: "info",
        panics.Standing.SMALLER: "warning",
        panics.Standing.NOT_AT_ALL: "problem",
    }
    blamed = [tier.name for tier in opened.stack.tiers if record.held_against(tier.name)]
    for name in blamed:
        yield Finding(
            PANIC,
            severities[record.standing(name)],
            f"{name}: {panics.words_of(name, record)}.",
            "The model may need more memory than this Mac has, or macOS has a defect.",
            f"A smaller model or context; then `mlx-stack up --tier {name}` starts it as defined.",
        )
    if not blamed:
        yield ok(PANIC, "No panic counts against a tier.")


def check_engines(home: Home, *, reads_files: bool) -> Iterator[Finding]:
    """Whether the engines are installed, intact, and the versions that this mlx-stack pins.

    Args:
        reads_files: Compare every file with the lock, which takes seconds, not only the packages.
    """
    for engine in engines_here(home):
        environment = current_environment(home.engines, engine)
        pinned = environment_for(home.engines, engine, shipped_lock(engine))
        if environment is None:
            yield Finding(
                "engine",
                "problem",
                f"{engine} is not installed.",
                "Nothing can be served without it."
                if engine in USUAL
                else "There are tiers that only it can serve.",
                "`mlx-stack doctor --fix` installs it.",
                repair=partial(install_engines, home, own_toolchain(), only=(engine,)),
                repaired=f"{engine} is installed now.",
            )
        elif environment != pinned:
            what = pinned.version
            if pinned.version == environment.version:
                what = "that version with other dependencies"
            yield Finding(
                "engine",
                "warning",
                f"{engine} {environment.version} is in use; this mlx-stack pins {what}.",
                fix="mlx-stack engines upgrade",
            )
        else:
            yield _compare_with_lock(home, environment, reads_files=reads_files)
    unused = [each for engine in EngineName for each in unused_environments(home.engines, engine)]
    if unused:
        disk = format_bytes(sum(environment.disk_bytes() for environment in unused))
        count = f"{len(unused)} old engine installation{'s' * (len(unused) != 1)}"
        yield Finding(
            "old-engines",
            "info",
            f"{count}: {disk} on disk, neither in use nor kept for a rollback.",
            fix="`mlx-stack doctor --fix` removes those that no service is running from.",
            repair=partial(prune_engines, home, own_toolchain(), only=tuple(EngineName)),
            repaired="Removed the old engine installations that no service runs from.",
        )


def _compare_with_lock(home: Home, environment: Environment, *, reads_files: bool) -> Finding:
    """An engine compared with its lock."""
    name = f"{environment.engine} {environment.version}"
    problems = verify(environment, contents=reads_files).problems
    if not problems:
        return ok("engine", f"{name} has exactly the packages that its lock pins.")
    named = ", ".join(f"{problem.what} ({problem.kind})" for problem in problems[:_MOST_NAMED])
    more = f" and {len(problems) - _MOST_NAMED} more" if len(problems) > _MOST_NAMED else ""
    return Finding(
        "engine",
        "problem",
        f"{name} differs from its lock: {named}{more}.",
        "Something other than mlx-stack changed it.",
        "`mlx-stack down`, then `mlx-stack doctor --fix` reinstalls it.",
        repair=partial(
            install_engines, home, own_toolchain(), only=(environment.engine,), reinstall=True
        ),
        repaired=f"{name} is reinstalled.",
    )


def check_kept_prompts(opened: OpenStack) -> Iterator[Finding]:
    """Whether conversations are kept on disk that nothing goes on with.

    Raises:
        StackError: When the stack can't be read.
    """
    folder = opened.home.kept_prompts
    tiers = opened.defined_stack.tiers if opened.defined_stack is not None else ()
    doomed = unused(folder, tiers)
    for kept in list_kept(folder):
        size, is_unused = format_bytes(kept.size_bytes), kept in doomed
        if is_unused:
            yield Finding(
                "kept-prompts",
                "warning",
                f"{kept.path} contains conversations of {kept.tier} ({size}).",
                "No tier of that name keeps conversations on disk.",
                "`mlx-stack doctor --fix` removes them.",
                repair=partial(remove_kept, kept),
                repaired=f"Removed the conversations of {kept.tier}.",
            )
        elif kept.old:
            yield Finding(
                "kept-prompts",
                "info",
                f"{kept.path} holds {len(kept.old)} old conversations.",
                "They had no new turn for two weeks.",
                "`mlx-stack doctor --fix` removes them.",
                repair=partial(remove_old, kept),
                repaired=f"Removed the old conversations of {kept.tier}.",
            )


def check_models(opened: OpenStack) -> Iterator[Finding]:
    """Whether each tier's model is on this disk, and every model there complete.

    Raises:
        StackError: When the stack or the configuration can't be read.
    """
    config, of_tiers = opened.config, set[Path]()
    for tier in opened.stack.tiers:
        local = local_model_of(opened, tier)
        of_tiers |= {local.path} if local is not None else set()
        try:
            folder = model_folder(opened, tier)
        except StackError as error:
            yield of_error("model", error)
        else:
            yield ok("model", f"{tier.name}: {folder}.")
    for local in list_local(config.model_dir):
        if not local.is_whole and local.path not in of_tiers:
            yield Finding(
                "model",
                "warning",
                f"The model {local.condition}.",
                "A request for it by name is answered with 503.",
                local.cure,
            )


def check_aliases(opened: OpenStack) -> Iterator[Finding]:
    """Whether each alias means a tier, or a model that is on this disk.

    Raises:
        StackError: When the stack or the configuration can't be read.
    """
    names = {name for tier in opened.stack.tiers for name in (tier.name, tier.model)}
    names |= {name for model in models_on_disk(opened, None).models for name in model.names}
    aliases = opened.stack.aliases
    for alias, target in aliases.items():
        if target not in names and target not in aliases:
            yield Finding(
                "alias",
                "warning",
                f"The alias {alias!r} means {target!r}, which is neither a tier nor a model here.",
                "A request for it is answered with 404.",
                f"mlx-stack pull {target}",
            )


def check_hub() -> Iterator[Finding]:
    """Whether the Hub answers within three seconds, and whether there is a token for it."""
    environment = read_environment()
    if environment.is_offline:
        yield Finding("hub", "info", "HF_HUB_OFFLINE is set: nothing is downloaded.")
        return
    try:
        limited = replace(environment.ready(), timeout_s=_HUB_TIMEOUT_S)
        with open_hub(limited, attempts=1) as hub:
            hub.search(limit=1)
    except StackError as error:
        without = "Models on this disk work without it."
        yield Finding("hub", "warning", error.message, without, error.hint or "")
    else:
        yield ok("hub", f"The Hub answers at {environment.shown_endpoint}.")
    if environment.problems:
        return
    if environment.token is None:
        yield Finding(
            "hub-token",
            "info",
            "No Hub token is set.",
            "Only gated models need one.",
            "`hf auth login`, or HF_TOKEN.",
        )
    else:
        yield ok("hub-token", "A Hub token is set.")


def check_ports(opened: OpenStack) -> Iterator[Finding]:
    """Whether the ports of services that don't run are free.

    Raises:
        StackError: When the stack or the configuration can't be read.
    """
    config = opened.config
    needed = [(tier.name, tier.port, "") for tier in opened.stack.tiers]
    needed.append((GATEWAY, config.litellm_port, "litellm-port"))
    if config.ollama_port:
        needed.append((GATEWAY, config.ollama_port, "ollama-port"))
    if config.node_host:
        needed.append((GATEWAY, config.node_port, "node-port"))
    taken = [
        each
        for each in needed
        if locate(opened.home.state_dirs, each[0]).process is None and not is_free(each[1])
    ]
    for name, port, key in taken:
        yield Finding(
            "port",
            "problem",
            f"Port {port}, which {name} needs, is taken by {_holder(port)}.",
            fix=f"Stop it, or give {name} another port"
            + (f" with `mlx-stack config set {key}`." if key else "."),
        )
    if not taken:
        yield ok("port", "All ports are available.")


def _holder(port: int) -> str:
    """Who listens on a port, as far as this user may know."""
    for process in psutil.process_iter(["name"]):
        try:
            connections = process.net_connections(kind="tcp")
        except psutil.Error:  # another user's process, or one that has just ended
            continue
        if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections):
            return f"{process.info['name']} (PID {process.pid})"
    return "a program of another user"


def check_node_door(opened: OpenStack) -> Iterator[Finding]:
    """Whether other Macs can reach this one, if they may.

    Raises:
        StackError: When the configuration can't be read.
    """
    problem = nodes.own_door.closed_because(opened) if opened.config.node_host else None
    if problem is not None:
        yield Finding("node-door", "warning", problem, fix=nodes.own_door.HINT)


def check_hosts(opened: OpenStack) -> Iterator[Finding]:
    """Whether tiers that run on several Macs could be started on them.

    Raises:
        StackError: When the stack or the configuration can't be read, or there is no `ssh` here.
    """
    for tier in opened.stack.tiers:
        found = nodes.group_check.check_group(opened, tier) if tier.workers else ()
        for each in found:
            yield Finding("hosts", "problem", f"{tier.name}: {each.message}", "", each.fix)
        if tier.workers and not found:
            yield ok("hosts", f"{tier.name} can be started on all of its Macs.")


def check_leftovers(home: Home) -> Iterator[Finding]:
    """PID files of processes that are gone."""
    stale = [
        name
        for name, found in ((name, locate(home.state_dirs, name)) for name in known_services(home))
        if found.has_pid_file and found.process is None
    ]
    for name in stale:
        yield Finding(
            "stale-pid",
            "info",
            f"The PID file of {name} is left over.",
            "It crashed, or the machine was switched off.",
            "`mlx-stack up` starts it again; `--fix` only removes the file.",
            # `wanted=None`: whether the user wants it to run stays recorded
            repair=partial(stop_service, name, home.state_dirs, wanted=None),
            repaired=f"Removed the PID file that {name} left.",
        )
    if not stale:
        yield ok("stale-pid", "No stale PID files.")


def check_speed(opened: OpenStack) -> Iterator[Finding]:
    """Whether the tiers are as fast as they were, as far as their requests tell.

    Raises:
        StackError: When the stack can't be read.
    """
    try:
        drifts = list(find_drifts(opened, time.time()))
    except LedgerError as error:
        is_newer = isinstance(error, NewerLedgerError)
        fix = "Upgrade mlx-stack." if is_newer else "Move the file away; a new one is made."
        yield Finding("ledger", "warning", f"{error}.", "Requests aren't recorded.", fix)
        return
    for drift in drifts:
        day = datetime.fromtimestamp(drift.since).astimezone()
        since = f"since the engine upgrade of {day.day} {day:%B}" if drift.cause else "in a week"
        has_fallen = drift.change < 0
        yield Finding(
            "speed",
            "warning" if has_fallen else "info",
            f"{drift.figure} of `{drift.tier}` {'fell' if has_fallen else 'rose'} "
            f"{abs(drift.change) * 100:.0f} % {since}.",
            f"{drift.cause}." if drift.cause else "",
            "`mlx-stack engines rollback` goes back." if drift.cause and has_fallen else "",
        )
    if not drifts:
        yield ok("speed", "No tier has become notably slower or faster.")
