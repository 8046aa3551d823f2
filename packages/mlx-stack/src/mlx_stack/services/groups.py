"""Tiers whose model runs on several Macs: asked whether it can before anything is started."""

from dataclasses import replace

from mlx_procsup import is_current, locate
from mlx_stack.errors import StackError
from mlx_stack.nodes.group_check import check_group
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.assembly import Assembly
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
            said = " ".join(f"{each.message} {each.fix}" for each in refusals)
            missing[service.name] = StackError(said)
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
