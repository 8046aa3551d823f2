"""What stopping leaves of a service."""

from pathlib import Path

from mlx_stack.home import Home
from mlx_stack.nodes.group import Ranks, addresses_file, write_ranks
from mlx_stack.services.down import stop_one


def test_a_stopped_tier_leaves_nothing_of_its_ranks(tmp_path: Path) -> None:
    dirs = Home(tmp_path).state_dirs
    dirs.create()
    for tier in ("huge", "other"):
        write_ranks(dirs.run, tier, Ranks(pid=1, ranks=()))
        addresses_file(dirs.run, tier).write_text("[]", encoding="utf-8")

    stop_one("huge", dirs)
    stop_one("huge", dirs)  # there is nothing to remove any more

    assert {path.name for path in dirs.run.glob("*.ranks")} == {"other.ranks"}
    assert {path.name for path in dirs.run.glob("*.addresses")} == {"other.addresses"}
