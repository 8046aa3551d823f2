"""A click group that answers a mistyped command with the nearest names."""

from typing import override

import click

_SUGGESTIONS = 3


class SuggestingGroup(click.Group):
    """A group whose sub-commands may be mistyped; they are listed as they are defined."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(f"There is no command {name!r}.{self._nearest(ctx, name)}")
        return super().resolve_command(ctx, args)

    def _nearest(self, ctx: click.Context, name: str) -> str:
        """A sentence that names the commands spelled nearest to `name`, or nothing."""
        import difflib

        names = self.list_commands(ctx)
        near = difflib.get_close_matches(name, names, n=_SUGGESTIONS, cutoff=0.55)
        near = near or [known for known in names if known.startswith(name[:2])][:_SUGGESTIONS]
        return f" Did you mean {' or '.join(near)}?" if near else ""
