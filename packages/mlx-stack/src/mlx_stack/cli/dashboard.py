"""`mlx-stack dashboard`."""

import webbrowser

import click

from mlx_stack import page
from mlx_stack.cli.frame.context import Context, examples, with_context
from mlx_stack.cli.frame.output import Output


@click.command("dashboard")
@click.option("--print-url", is_flag=True, help="Print the address instead of opening it.")
@examples("mlx-stack dashboard", "mlx-stack dashboard --print-url")
@with_context()
def command(context: Context, *, print_url: bool) -> None:
    """Open the dashboard in the browser.

    The address works once, within two minutes; the browser then stays signed in for a day. Without
    this address, the page asks for a key.
    """
    link = page.link.make_link(context.opened)
    if print_url or context.output.is_for_programs or not webbrowser.open(link.url):
        context.output.show(link, _show)
    else:
        context.output.say("The page is open in your browser.")


def _show(output: Output, link: "page.link.OneTimeLink") -> None:
    output.text(link.url)
