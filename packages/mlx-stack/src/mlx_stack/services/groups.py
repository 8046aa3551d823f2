"""Tiers whose model runs on several Macs: asked whether it can before anything is started.

`python -m mlx_stack.services.groups HOME TIER` asks it at every start (decision 0115).
"""

import sys
from dataclasses import replace
from pathlib import Path

import msgspec

from mlx_catalog import CatalogError
from mlx_procsup import is_current, locate
from mlx_stack.errors import StackError
from mlx_stack.home import Home
from mlx_stack.nodes.group import Objection, Objections
from mlx_stack.nodes.group_check import Refusal, check_group
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.assembly import Assembly, tier_service
from mlx_stack.services.service import Service


def without_impossible(
    opened: OpenStack, assembly: Assembly, tier: str | None, *, ends_them: bool = False
) -> Assembly:
    """The services without the tiers that can't be started over their Macs: those are missing.

    Args:
        tier: Only this tier is to be started; None for all that aren't lazy. Others aren't asked.
        ends_them: Whether what runs is started again, too.
    """
    missing = dict(assembly.missing)
    for service in assembly.engines:
        if service.tier is None or not service.tier.workers or not _is_due(service, tier):
            continue
        if not ends_them and _runs(opened, service):
            continue
        try:
            refusals = check_group(opened, service.tier)
        except StackError as error:
            missing[service.name] = error
            continue
        if refusals:
            missing[service.name] = StackError(" ".join(map(_words, refusals)))
    engines = tuple(each for each in assembly.engines if each.name not in missing)
    return replace(assembly, engines=engines, missing=missing)


def _is_due(service: Service, tier: str | None) -> bool:
    assert service.tier is not None
    return service.name == tier or (tier is None and not service.tier.lazy)


def _runs(opened: OpenStack, service: Service) -> bool:
    """Whether it runs as it should, so that nothing is started."""
    spec = service.spec
    found = locate(opened.home.state_dirs, service.name, spec.masked_command())
    return found.own is not None and is_current(spec, found.record)


def _words(refusal: Refusal) -> str:
    return f"{refusal.message} {refusal.fix}"


def objections(opened: OpenStack, name: str) -> Objections:
    """What speaks against the tier of that name, which is being started.

    Raises:
        StackError: When that can't be found out.
        InvalidCatalogError: When one of the user's own catalog entries breaks the schema.
    """
    tier = opened.stack.tier(name)
    if tier is None or not tier.workers:
        return ()
    tier = tier_service(opened, tier).tier or tier  # as it is started after panics
    found = check_group(opened, tier, is_starting=True)
    return tuple(Objection(host=each.node, words=_words(each)) for each in found)


def main() -> int:
    """Print what speaks against a start; the exit code.

    What can't be found out stops nothing: a restart doesn't fail because a file is being edited.
    """
    try:
        found = objections(OpenStack(Home(Path(sys.argv[1]))), sys.argv[2])
    except (StackError, CatalogError, OSError) as error:
        sys.stderr.write(f"It could not be checked whether the Macs can run it: {error}\n")
        return 1
    sys.stdout.write(msgspec.json.encode(found).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
