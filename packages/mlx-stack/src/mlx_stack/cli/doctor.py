"""`mlx-stack doctor`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_stack import exit_codes
from mlx_stack.cli.frame.context import Context, json_option, open_context, quiet_option

if TYPE_CHECKING:
    from mlx_stack.doctor.finding import Examination

_SIGNS = {
    "ok": ("✓", "green"),
    "info": ("i", "cyan"),
    "warning": ("!", "yellow"),
    "problem": ("✗", "red"),
}


@click.command("doctor")
@click.option("--fix", is_flag=True, help="Fix what can be fixed safely.")
@click.option(
    "--bundle",
    type=click.Path(dir_okay=False, path_type=Path),
    is_flag=False,
    flag_value=Path("mlx-stack-doctor.json"),
    help="Also write a file for a bug report, without names or keys.",
)
@json_option
@quiet_option
def command(bundle: Path | None, *, fix: bool, json: bool, quiet: bool) -> int:
    """Check the machine, the state folder, the engines, the ports and the power settings.

    Each finding says what to do. Exits with 1 while there is a problem.
    """
    from mlx_stack.doctor.bundle import write_bundle
    from mlx_stack.doctor.examine import examine

    context = open_context(json=json, quiet=quiet)
    with context.output.waiting("Looking"):
        examination = examine(context.opened, fix=fix)
    if bundle is not None:
        examination = write_bundle(context.opened, examination, bundle)
    if json:
        context.output.document(examination.to_document())
    else:
        _show(context, examination)
        if bundle is not None:
            context.output.say(f"Read {bundle} before you share it.")
    return exit_codes.DONE if examination.is_well else exit_codes.FAILED


def _show(context: Context, examination: "Examination") -> None:
    output = context.output
    for finding in examination.findings:
        sign, colour = _SIGNS[finding.severity]
        weight = "bold" if finding.severity == "problem" else ""
        output.item(sign, finding.message, colour=colour, style=weight)
        if finding.severity == "ok":
            continue
        if finding.reason:
            output.item(" ", finding.reason, style="dim")
        if finding.fix:
            output.item("→", finding.fix, indent=2)
    problems, warnings = examination.count("problem"), examination.count("warning")
    can_fix = any(finding.repair is not None for finding in examination.findings)
    output.say(
        f"\n{problems} problem{'s' * (problems != 1)}, {warnings} warning{'s' * (warnings != 1)}."
        + (" `mlx-stack doctor --fix` can fix some of these." if can_fix else "")
    )
