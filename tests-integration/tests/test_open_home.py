"""What `up` and `watch` refuse to start from."""

import os
from pathlib import Path

import pytest

from mlx_stack.errors import StackError
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.up import up
from mlx_stack.services.watch import WatchOptions, watch
from stack_testkit.home import define_stack, install_fake_engines


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "above" / "home")
    install_fake_engines(home)
    define_stack(home, {"fast": {}})
    return home


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o707])
def test_a_state_folder_that_others_may_write_to_starts_nothing(home: Home, mode: int) -> None:
    home.root.chmod(mode)
    with pytest.raises(StackError, match="may write") as caught:
        up(OpenStack(home))
    assert f"chmod go-w {home.root}" in (caught.value.hint or "")
    assert not home.credentials.exists()
    with pytest.raises(StackError, match="may write"):
        watch(OpenStack(home), WatchOptions(), on_event=lambda _: None)


def test_a_state_folder_that_a_group_of_others_may_write_to_starts_nothing(home: Home) -> None:
    others = [group for group in os.getgroups() if group != os.getgid()]
    if not others and os.geteuid() != 0:
        pytest.skip("this user is in no group of others")
    os.chown(home.root, -1, others[0] if others else 12)
    home.root.chmod(0o770)
    with pytest.raises(StackError, match="may write"):
        up(OpenStack(home))


def test_a_folder_above_it_in_which_others_may_swap_it_starts_nothing(home: Home) -> None:
    home.root.parent.chmod(0o777)
    with pytest.raises(StackError, match="may write") as caught:
        up(OpenStack(home))
    assert f"chmod go-w {home.root.parent}" in (caught.value.hint or "")
