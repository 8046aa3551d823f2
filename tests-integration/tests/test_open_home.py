"""What `up` refuses to start from."""

from pathlib import Path

import pytest

from mlx_stack.errors import StackError
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.up import up
from stack_testkit.home import define_stack, install_fake_engines


def test_a_state_folder_that_others_may_write_to_starts_nothing(tmp_path: Path):
    home = Home(tmp_path / "home")
    install_fake_engines(home)
    define_stack(home, {"fast": {}})
    home.root.chmod(0o777)
    with pytest.raises(StackError, match="may write") as caught:
        up(OpenStack(home))
    assert f"chmod go-w {home.root}" in (caught.value.hint or "")
    assert not home.credentials.exists()
