"""What a person may change of a plan that `setup` shows."""

from click.testing import CliRunner

from mlx_stack.cli.frame.output import Output
from mlx_stack.cli.setup import _Review  # pyright: ignore[reportPrivateUsage]
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.init import draft_stack
from mlx_stack.setup import Choices


def test_an_embedder_is_planned_whatever_was_chosen_before_the_model_it_replaces(
    home: Home,
) -> None:
    draft, review = draft_stack(OpenStack(home)), _Review(Output())
    typed = ["e\nembedder", "e\nmodel\nqwen3-8b", "e\nembedder", "e\nembedder"]
    choices, seen = Choices(), list[tuple[str | None, bool | None]]()
    for each in typed:
        with CliRunner().isolation(f"{each}\n"):
            changed = review(draft, choices, None)
        assert changed is not None
        choices = changed
        seen.append((choices.model, choices.embedder))

    assert seen == [(None, True), ("qwen3-8b", True), (None, True), (None, False)]
