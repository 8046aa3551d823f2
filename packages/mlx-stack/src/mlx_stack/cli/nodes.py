"""`mlx-stack nodes`."""

import click

from mlx_stack import exit_codes, nodes
from mlx_stack.cli.frame import standard_input
from mlx_stack.cli.frame.commands import OrderedGroup
from mlx_stack.cli.frame.context import Context, examples, list_by_default, with_context
from mlx_stack.cli.frame.options import completer
from mlx_stack.cli.frame.output import Column, Output
from mlx_stack.errors import UsageError
from mlx_stack.format import format_bytes

_complete_names = completer(
    lambda opened: (each.name for each in nodes.manage.list_nodes(opened.home).nodes)
)


@click.group("nodes", cls=OrderedGroup, invoke_without_command=True)
@with_context()
@examples("mlx-stack nodes", "mlx-stack nodes check")
def command(context: Context) -> None:
    """Show, discover, add, check and remove other Macs; without a COMMAND, list them.

    A node is the gateway of another mlx-stack. nodes.yaml in the state folder contains the keys for
    them, and is readable by its owner only.
    """
    list_by_default(context)


@command.command("list")
@with_context()
@examples("mlx-stack nodes list", "mlx-stack nodes list --json")
def list_command(context: Context) -> None:
    """Show the nodes without contacting them."""
    context.output.show(nodes.manage.list_nodes(context.home), _show_list)


def _show_list(output: Output, listed: "nodes.manage.ListedNodes") -> None:
    if not listed.nodes:
        output.say("There are no nodes yet. `mlx-stack nodes add URL` adds another Mac.")
        return
    output.table(
        [Column("Node", is_kept=True), Column("Address"), Column("Link"), Column("Wakes by")],
        [[each.name, each.url, _link(each), each.mac or ""] for each in listed.nodes],
    )


def _link(node: "nodes.file.Node") -> str:
    if node.url.startswith("https:"):
        return "TLS" if node.ca is None else "TLS, paired"
    return "private" if node.private_link else "this Mac, or a cable"


@command.command("add", short_help="Add another Mac, by the address of its gateway.")
@click.argument("url")
@click.option(
    "--name", metavar="NAME", help="The node's name on this Mac; by default its host name."
)
@click.option("--code", is_flag=True, help="Pair with the six digits that the other Mac shows.")
@click.option(
    "--fingerprint", metavar="HEX", help="Fingerprint that `nodes pair` shows on the other Mac."
)
@click.option(
    "--private-link", is_flag=True, help="Confirm that no one can eavesdrop between the Macs."
)
@click.option("--mac", metavar="ADDRESS", help="MAC address with which to wake it from sleep.")
@with_context()
@examples(
    "mlx-stack nodes add studio.local --code",
    "mlx-stack nodes add http://studio.local:4000 --private-link",
    "mlx-stack nodes add https://studio.example.org --name studio < key.txt",
)
def add_command(
    context: Context,
    url: str,
    name: str | None,
    mac: str | None,
    fingerprint: str | None,
    *,
    code: bool,
    private_link: bool,
) -> None:
    """Add the Mac whose gateway answers at URL.

    With --code, it asks for the six digits that `mlx-stack nodes pair` shows on that Mac, and gets
    a key from that Mac. Otherwise, it asks for a key from `mlx-stack keys add NAME` on that Mac.
    Both can also be read from standard input. An unencrypted network address is refused without
    --private-link.
    """
    if code and fingerprint is not None:
        raise UsageError("--code and --fingerprint can't be combined: the code proves it as well.")
    node = nodes.manage.prepared(
        *(context.home, url),
        name=name,
        is_private=private_link,
        mac=mac,
        is_paired=code or fingerprint is not None,
    )
    what = f"Code that {node.url} shows" if code else f"Key for {node.url}"
    secret = _asked_for(context, what, hide_input=not code)
    if code:
        added = nodes.pair.add_by_code(context.home, node, secret)
    elif fingerprint is not None:
        added = nodes.pair.add_by_fingerprint(context.home, node, fingerprint, secret)
    else:
        added = nodes.manage.add_node(context.home, node, secret)
    context.output.show(added, _show_added)


def _asked_for(context: Context, what: str, *, hide_input: bool) -> str:
    if not context.may_ask:
        return standard_input.read_line()
    said: str = click.prompt(what, hide_input=hide_input, err=True)
    return said


def _show_added(output: Output, added: "nodes.manage.AddedNode") -> None:
    said = added.answer.description
    tiers = ", ".join(each.tier for each in said.models) or "no tiers"
    output.say(f"{added.node.name} ({said.chip or 'unknown chip'}) was added. It has {tiers}.")


@command.command("discover", short_help="Listen for other Macs on the network.")
@with_context()
@examples("mlx-stack nodes discover", "mlx-stack nodes discover --json")
def discover_command(context: Context) -> None:
    """Listen for a second for other Macs that announce themselves as nodes (Bonjour).

    Macs with `node-host` announce themselves. These are only suggestions: a Mac isn't trusted
    until it has been paired.
    """
    with context.output.waiting("Listening"):
        discovered = nodes.discover.discover(context.home)
    context.output.show(discovered, _show_discovered)


def _show_discovered(output: Output, discovered: "nodes.discover.Discovered") -> None:
    if not discovered.found:
        output.say(
            "No other Mac was found. To make a Mac discoverable, run `mlx-stack config set "
            "node-host "
            "0.0.0.0` and `mlx-stack up` on it."
        )
        return
    output.table(
        [Column("Name", is_kept=True), Column("Host"), Column("mlx-stack"), Column("Added as")],
        [
            [each.said.name, each.host, each.said.version or "", each.node or ""]
            for each in discovered.found
        ],
    )
    output.say("`mlx-stack nodes pair` there shows a code for `mlx-stack nodes add HOST --code`.")


@command.command("pair", short_help="Show a code that lets another Mac add this one.")
@with_context()
@examples("mlx-stack nodes pair", "mlx-stack nodes pair --json")
def pair_command(context: Context) -> None:
    """Show six digits that let another Mac add this one, once, within five minutes.

    `mlx-stack nodes add HOST --code` on that Mac asks for them. That Mac then gets its own key,
    which `mlx-stack keys` shows. A new code replaces this one.
    """
    context.output.show(nodes.pair.show(context.opened), _show_code)


def _show_code(output: Output, shown: "nodes.pair.ShownCode") -> None:
    output.answer((f"{shown.code[:3]} {shown.code[3:]}", "bold"))
    output.say("This code works once, within five minutes.")
    output.say(f"On the other Mac: mlx-stack nodes add {shown.host} --code")
    output.say(f"Fingerprint of this Mac: {shown.fingerprint}", style="dim")


@command.command("remove")
@click.argument("name", shell_complete=_complete_names)
@with_context()
@examples("mlx-stack nodes remove studio", "mlx-stack nodes remove studio --json")
def remove_command(context: Context, name: str) -> None:
    """Remove the node NAME, and forget its key."""
    removed = nodes.manage.remove_node(context.opened, name)
    words = f"{name} was removed. `mlx-stack keys revoke` on that Mac revokes its key."
    context.output.show(removed, lambda output, _: output.say(words))


@command.command("check")
@click.argument("name", required=False, shell_complete=_complete_names)
@with_context()
@examples("mlx-stack nodes check", "mlx-stack nodes check studio --json")
def check_command(context: Context, name: str | None) -> int:
    """Contact the nodes, or only NAME, and show their hardware and their tiers.

    Over SSH, this also checks whether each tier with `hosts` can be started on its Macs.
    Exits with 1 if a node doesn't answer, or if a tier with `hosts` can't be started.
    """
    with context.output.waiting("Asking the nodes"):
        checked = nodes.check.check_nodes(context.opened, name)
    context.output.show(checked, _show_check)
    return exit_codes.DONE if checked.is_well else exit_codes.FAILED


def _show_check(output: Output, checked: "nodes.check.NodesCheck") -> None:
    if not checked.nodes and not checked.groups:
        output.say("There are no nodes yet. `mlx-stack nodes add URL` adds another Mac.")
    for each in checked.nodes:
        answer, link = each.answer, each.link
        if answer is None or link is None:
            output.item("✗", f"{each.node.name}: {each.problem}", colour="red", style="bold")
            if each.hint:
                output.item("→", each.hint, indent=2)
            continue
        said = answer.description
        memory = "" if said.memory_bytes is None else f", {said.memory_bytes / 2**30:.0f} GB"
        about = f"{said.chip or 'unknown chip'}{memory}, mlx-stack {said.version}"
        output.item("✓", f"{each.node.name}: {about}", colour="green")
        output.item(
            " ",
            f"{link.round_trip_s * 1000:.1f} ms away, {link.bytes_per_s / 1e6:.0f} MB/s, "
            f"clock {answer.clock_ahead_s:+.2f} s",
            style="dim",
        )
        for model, same in zip(each.models, each.same_weights, strict=True):
            weights = {True: "the same weights as here", False: "different weights than here"}
            words = f"{model.tier}: {model.model} {model.quant or ''}".rstrip()
            output.item(" ", ", ".join([words, *([weights[same]] if same in weights else [])]))
        for note in each.notes:
            output.item("!", note, colour="yellow")
    if checked.door_problem is not None:
        output.item("!", checked.door_problem, colour="yellow")
    for group in checked.groups:
        _show_group(output, group)


def _show_group(output: Output, checked: "nodes.check.CheckedGroup") -> None:
    """The Macs of one tier, then what speaks against a start."""
    names = ", ".join(
        "this Mac" if each.node == "here" else each.node for each in checked.group.members
    )
    if not checked.refusals:
        output.item("✓", f"{checked.group.tier}: can be started on {names}", colour="green")
    else:
        output.item(
            "✗", f"{checked.group.tier}: can't be started on {names}", colour="red", style="bold"
        )
    for each in checked.group.members:
        facts, interface = each.facts, each.interface
        if facts is None:
            continue
        memory, limit = facts.memory_bytes, facts.gpu_limit_bytes
        parts = [
            "this Mac" if each.node == "here" else each.node,
            f"{each.address} ({interface.interface})" if interface is not None else "no address",
            f"mlx-lm {facts.packages.get('mlx-lm') or 'unknown'}",
            f"{format_bytes(memory)} of memory" if memory is not None else "unknown memory",
        ]
        if limit is not None:
            parts.append(f"{format_bytes(limit)} for the GPU")
        if each.needs_bytes is not None:
            parts.append(f"its share is {format_bytes(each.needs_bytes)}")
        output.item(" ", ", ".join(parts), style="dim")
    for refusal in checked.refusals:
        output.item("✗", refusal.message, colour="red", indent=2)
        output.item("→", refusal.fix, indent=4)
