"""Reading and changing the configuration."""

import pytest

from mlx_stack.config import CONFIG_KEYS, ConfigValidationError, load_config
from mlx_stack.configure import get_setting, list_settings, reset, set_value
from mlx_stack.errors import InvalidFileError
from mlx_stack.home import Home


def test_every_key_is_listed_with_its_source(home: Home):
    set_value(home, "keep-awake", "never")
    settings = {each.definition.name: each for each in list_settings(home).settings}
    assert list(settings) == list(CONFIG_KEYS)
    assert (settings["keep-awake"].value, settings["keep-awake"].source) == ("never", "file")
    assert settings["litellm-port"].source == "default"
    assert settings["model-dir"].value == settings["model-dir"].default == home.models


def test_setting_one_key_leaves_the_others(home: Home):
    set_value(home, "litellm-port", "4100")
    set_value(home, "log-max-files", "9")
    config = load_config(home)
    assert (config.litellm_port, config.log_max_files) == (4100, 9)


def test_resetting_one_key_leaves_the_others(home: Home):
    set_value(home, "litellm-port", "4100")
    set_value(home, "log-max-files", "9")
    assert reset(home, "litellm-port").keys == ("litellm-port",)
    assert reset(home, "litellm-port").keys == ()
    assert get_setting(home, "litellm-port").source == "default"
    assert load_config(home).log_max_files == 9


def test_resetting_everything_also_mends_a_damaged_file(home: Home):
    assert reset(home, None).keys == ()
    home.config.write_text("litellm-port: [", encoding="utf-8")
    with pytest.raises(InvalidFileError):
        set_value(home, "litellm-port", "4100")
    with pytest.raises(InvalidFileError):
        reset(home, "litellm-port")
    assert reset(home, None).keys
    assert load_config(home).litellm_port == 4000


def test_the_gateway_can_only_listen_where_this_machine_is(home: Home):
    for ours in ("127.0.0.1", "0.0.0.0", "localhost"):
        assert set_value(home, "gateway-host", ours).value == ours
    with pytest.raises(ConfigValidationError, match="no address of this machine"):
        set_value(home, "gateway-host", "203.0.113.7")
    assert load_config(home).gateway_host == "localhost"


@pytest.mark.parametrize("act", [get_setting, reset])
def test_a_key_that_is_none_is_refused(home: Home, act):
    with pytest.raises(ConfigValidationError):
        act(home, "nope")
