"""What `up` would run: the exact commands, secrets masked, nothing written or started."""

from dataclasses import dataclass

from mlx_procsup.spec import MASK
from mlx_stack.home import Home
from mlx_stack.services.assembly import assemble, chosen
from mlx_stack.services.service import Service, inherited_environment, service_names


@dataclass(frozen=True, slots=True)
class PlannedService:
    """One service as it would be started.

    Attributes:
        name: The service.
        kind: What it is.
        port: Where it would listen.
        command: Its command line.
        environment: Its variables beside those taken over from the shell; secrets masked.
        shell_line: Both as one line for a shell.
        problem: Why it can't be started, or None.
    """

    name: str
    kind: str
    port: int | None
    command: tuple[str, ...]
    environment: dict[str, str]
    shell_line: str
    problem: str | None = None


def plan_up(home: Home, *, tier: str | None = None) -> tuple[PlannedService, ...]:
    """The services that `up` would start or leave running, in the order of the stack.

    Raises:
        StackError: No stack is defined, a file is damaged, or the engines are not installed.
    """
    assembly = assemble(home, master_key=MASK)
    is_chosen = chosen(service_names(assembly.stack), tier)
    planned = {
        name: PlannedService(name, "engine", None, (), {}, "", error.message)
        for name, error in assembly.missing.items()
    } | {service.name: _planned(service) for service in assembly.services}
    return tuple(planned[name] for name in service_names(assembly.stack) if is_chosen(name))


def _planned(service: Service) -> PlannedService:
    spec = service.spec
    inherited = inherited_environment()
    own = {name: value for name, value in spec.env.items() if inherited.get(name) != value}
    shown = {name: MASK if name in spec.secret_env else value for name, value in own.items()}
    return PlannedService(
        service.name,
        service.kind,
        service.port,
        spec.masked_command(),
        dict(sorted(shown.items())),
        spec.shell_line(frozenset(own)),
    )
