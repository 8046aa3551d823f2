"""What a request may start: the tiers and the models on this disk, whatever else is there."""

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec import structs

from mlx_gateway.routing import resolve
from mlx_gateway.settings import GatewaySettings
from mlx_stack.gateway.settings import build_settings
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.inventory import Inventory, take
from mlx_stack.stack import load_stack, save_stack
from stack_testkit.home import define_stack, make_model_folder


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A stack of one tier, and one model without a tier."""
    home = Home(tmp_path / "home")
    define_stack(home, {"standard": {}})
    make_model_folder(home.models / "Guest")
    return home


def names(inventory: Inventory) -> set[str]:
    return {held.name for held in inventory.held}


@contextmanager
def unreadable(folder: Path) -> Generator[None]:
    folder.mkdir(exist_ok=True)
    folder.chmod(0)
    try:
        yield
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize("name", [".Trashes", "lost+found"])
def test_a_disk_with_folders_of_its_own_can_be_the_models_folder(home: Home, name: str) -> None:
    """It is so on every external disk; as root, nothing is unreadable."""
    with unreadable(home.models / name):
        assert names(take(home, None)) == {"standard", "Guest"}


def test_a_tier_whose_model_may_not_be_read_leaves_the_others_alone(home: Home) -> None:
    with unreadable(home.models / "standard-model"):
        assert names(take(home, None)) == {"standard", "Guest"}


def test_a_model_on_a_disk_that_comes_back_needs_its_room_again(home: Home, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    shutil.move(home.models / "standard-model", disk)
    stack = load_stack(home.stack)
    tier = structs.replace(stack.tiers[0], source=str(disk))
    save_stack(home.stack, structs.replace(stack, tiers=(tier,)))
    disk.rename(tmp_path / "away")
    gone = take(home, None)
    assert gone.held[0].plan.claim_bytes == 0

    (tmp_path / "away").rename(disk)

    assert (take(home, gone).held[0].plan.claim_bytes or 0) > 0


def test_a_start_that_failed_is_tried_again_once_its_model_or_its_tier_is_another(
    home: Home,
) -> None:
    def made_of(name: str) -> object:
        return next(held.plan.made_of for held in take(home, None).held if held.name == name)

    tier, guest = made_of("standard"), made_of("Guest")
    make_model_folder(home.models / "Another")
    assert (made_of("standard"), made_of("Guest")) == (tier, guest)

    (home.models / "Guest" / "tokenizer.json").write_text("{}", encoding="utf-8")
    stack = load_stack(home.stack)
    smaller = structs.replace(stack.tiers[0], context_tokens=4096)
    save_stack(home.stack, structs.replace(stack, tiers=(smaller,)))

    assert made_of("standard") != tier
    assert made_of("Guest") != guest


def test_an_alias_may_mean_another_that_comes_after_it(home: Home) -> None:
    aliases = {
        "third": "second",
        "second": "first",
        "first": "Guest",
        "loop": "pool",
        "pool": "loop",
    }
    save_stack(home.stack, structs.replace(load_stack(home.stack), aliases=aliases))

    settings = take(home, None).extended(_settings(home))

    assert resolve(settings, "third") == "Guest"
    assert {"loop", "pool"}.isdisjoint(settings.aliases)


def _settings(home: Home) -> GatewaySettings:
    opened = OpenStack(home)
    return build_settings(opened.stack, opened.config, {}, litellm_port=1)
