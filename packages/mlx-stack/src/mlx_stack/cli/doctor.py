"""`mlx-stack doctor`."""

from functools import partial
from pathlib import Path

import click

from mlx_stack import doctor, exit_codes
from mlx_stack.cli.frame.context import Context, examples, with_context
from mlx_stack.cli.frame.output import Output

_SIGNS = {
    "ok": ("✓", "green"),
    "info": ("i", "cyan"),
    "warning": ("!", "yellow"),
    "problem": ("✗", "red"),
}


@click.command("doctor")
@click.option("--fix", is_flag=True, help="Fix what can be fixed safely; this can install engines.")
@click.option("--verbose", "-v", is_flag=True, help="Also list the checks that found nothing.")
@click.option(
    "--bundle",
    type=click.Path(dir_okay=False, path_type=Path),
    is_flag=False,
    flag_value=Path("mlx-stack-doctor.json"),
    help="Also write a file for a bug report, without names or keys.",
)
@with_context()
@examples("mlx-stack doctor", "mlx-stack doctor --fix")
def command(context: Context, bundle: Path | None, *, fix: bool, verbose: bool) -> int:
    """Check the services, the machine, the state folder, the engines, the ports and power settings.

    Each finding explains how to fix it. Exits with 1 while there is a problem.
    """
    with context.output.waiting("Fixing" if fix else "Looking"):
        examination = doctor.examine.examine(context.opened, fix=fix)
    if bundle is not None:
        examination = doctor.bundle.write_bundle(context.opened, examination, bundle)
    context.output.show(examination, partial(_show, verbose=verbose))
    return exit_codes.DONE if examination.is_well else exit_codes.FAILED


def _show(output: Output, examination: "doctor.finding.Examination", *, verbose: bool) -> None:
    """What was found, the worst first; what is as it should be is only counted."""
    shown = [
        finding
        for severity in reversed(_SIGNS)
        for finding in examination.findings
        if finding.severity == severity
        and (verbose or severity != "ok" or finding.check in examination.fixed)
    ]
    for finding in shown:
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
    fine = len(examination.findings) - len(shown)
    output.say(
        f"\n{problems} problem{'s' * (problems != 1)}, {warnings} warning{'s' * (warnings != 1)}"
        + (f"; {fine} checks found nothing wrong." if fine else ".")
        + (" `mlx-stack doctor --fix` can fix some of these." if can_fix else "")
    )
    if examination.bundle is not None:
        output.say(f"Read {examination.bundle} before you share it.")
