"""What a user notices of the configuration."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_stack.config import (
    CONFIG_KEYS,
    Config,
    ConfigValidationError,
    find_key,
    get_setting,
    list_settings,
    load_config,
    read_values,
    reset,
    save_values,
    set_value,
)
from mlx_stack.errors import InvalidFileError
from mlx_stack.home import Home


def write(home: Home, text: str) -> None:
    home.create()
    home.config.write_text(text)


def test_there_are_the_documented_keys_with_their_documented_defaults():
    assert {name: key.default for name, key in CONFIG_KEYS.items()} == {
        "openrouter-key": "",
        "default-quant": "int4",
        "memory-budget-pct": 40,
        "litellm-port": 4000,
        "ollama-port": 0,
        "litellm": "on-demand",
        "cloud-fallback": "when-down",
        "model-dir": Path("models"),
        "auto-health-check": True,
        "log-max-size-mb": 50,
        "log-max-files": 5,
        "dashboard": True,
        "dashboard-on-lan": False,
        "stable-prompts": True,
        "gateway-host": "127.0.0.1",
        "node-host": "",
        "node-port": 4443,
        "gateway-max-memory-mb": 2048,
        "keep-awake": "serving",
        "remote-images": False,
        "idle-check": True,
    }


def test_without_a_file_everything_has_its_default_and_nothing_is_created(tmp_path: Path):
    home = Home(tmp_path / "not-there")
    assert load_config(home) == Config(model_dir=home.models)
    assert not home.root.exists()


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("litellm-port", " 4100 ", 4100),
        ("auto-health-check", "No", False),
        ("auto-health-check", "on", True),
        ("default-quant", "bf16", "bf16"),
        ("openrouter-key", "", ""),
        ("gateway-host", "::1", "::1"),
        ("model-dir", "/models", Path("/models")),
        ("model-dir", "~/m", Path.home() / "m"),
        ("model-dir", "m", Path.cwd() / "m"),
    ],
)
def test_what_a_person_types_becomes_a_value(key: str, text: str, value: object):
    assert find_key(key).parse(text) == value


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("litellm-port", "0"),
        ("litellm-port", "65536"),
        ("litellm-port", "4_000"),
        ("litellm-port", "-1"),
        ("memory-budget-pct", "0"),
        ("memory-budget-pct", "101"),
        ("memory-budget-pct", "40%"),
        ("default-quant", "int3"),
        ("auto-health-check", "maybe"),
        ("gateway-host", "nowhere.example"),
        ("gateway-max-memory-mb", "255"),
        ("keep-awake", "sometimes"),
        ("log-max-files", "0"),
        ("model-dir", " "),
        ("model-dir", "/mod\udcffels"),
        ("model-dir", "/mod\0els"),
        ("model-dir", "~nobody-of-this-name/models"),
        ("openrouter-key", "sk-\udcff"),
    ],
)
def test_a_value_that_a_key_does_not_take_is_refused_with_what_it_takes(key: str, text: str):
    with pytest.raises(ConfigValidationError) as caught:
        find_key(key).parse(text)
    assert CONFIG_KEYS[key].valid in caught.value.message


def test_a_refused_secret_is_not_repeated():
    with pytest.raises(ConfigValidationError) as caught:
        find_key("openrouter-key").parse("sk-or-12345 67890")
    assert "12345" not in caught.value.message


@pytest.mark.parametrize("text", ["sk-or-12345", "openrouter-key sk-or-12345", "- sk-or-12345"])
def test_a_secret_that_damages_the_file_is_not_repeated(home: Home, text: str):
    write(home, f"{text}\n")
    with pytest.raises(InvalidFileError) as caught:
        load_config(home)
    assert caught.value.line == 1
    assert "12345" not in caught.value.message


def test_a_mistyped_key_names_the_nearest():
    with pytest.raises(ConfigValidationError) as caught:
        find_key("litelm_port")
    assert "litellm-port" in (caught.value.hint or "")


def test_saved_values_come_back_and_only_the_owner_can_read_them(home: Home):
    save_values(home, {"litellm-port": 4100, "model-dir": Path("/m"), "openrouter-key": "sk-x"})
    assert load_config(home) == Config(
        litellm_port=4100, model_dir=Path("/m"), openrouter_key="sk-x"
    )
    assert home.config.stat().st_mode & 0o777 == 0o600


def test_a_relative_folder_in_the_file_is_taken_from_the_state_folder(home: Home):
    write(home, "model-dir: elsewhere\n")
    assert load_config(home).model_dir == home.root / "elsewhere"


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("litellm-port: 4100\nkeep-awake: sometimes\n", 2, "serving"),
        ("\nlitellm-port: true\n", 2, "65535"),
        ("\n\nlog-max-files: '3'\n", 3, "1 or more"),
        ("model-dir:\n", 1, "folder"),
        ('\nmodel-dir: "a\\0b"\n', 2, "folder"),
        ("model-dir: ~nobody-of-this-name/models\n", 1, "folder"),
        ("litellm-prot: 1\n", 1, "no configuration key"),
        ("a: [1\n", 2, "YAML"),
        ("- 1\n", 1, "object"),
        ("litellm-port: 1\nlitellm-port: 2\n", 2, "twice"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_the_line(
    home: Home, text: str, line: int, word: str
):
    write(home, text)
    with pytest.raises(InvalidFileError) as caught:
        load_config(home)
    assert caught.value.line == line
    assert word in caught.value.message


def test_an_empty_file_means_the_defaults(home: Home):
    write(home, "# nothing yet\n")
    assert read_values(home) == {}


@given(st.text(min_size=1))
def test_masking_never_shows_more_than_the_last_characters_of_a_key(secret: str):
    shown = find_key("openrouter-key").mask(secret).removeprefix("********")
    assert len(shown) <= min(4, len(secret) // 4)
    assert secret.endswith(shown)


def test_values_that_are_no_secret_are_shown_as_they_are():
    assert find_key("auto-health-check").mask(True) == "true"
    assert find_key("litellm-port").mask(4000) == "4000"
    assert find_key("openrouter-key").mask("") == ""


def test_a_number_of_thousands_of_digits_is_refused_like_any_other():
    with pytest.raises(ConfigValidationError):
        find_key("litellm-port").parse("9" * 5000)


def test_every_key_is_listed_with_its_source(home: Home):
    set_value(home, "keep-awake", "never")
    settings = {each.definition.name: each for each in list_settings(home).settings}
    assert list(settings) == list(CONFIG_KEYS)
    assert (settings["keep-awake"].value, settings["keep-awake"].source) == ("never", "file")
    assert settings["litellm-port"].source == "default"
    assert settings["model-dir"].value == settings["model-dir"].default == home.models


def test_every_key_says_when_a_change_takes_effect_unless_the_next_command_reads_it():
    silent = {each.name for each in CONFIG_KEYS.values() if not each.applied_by}
    assert silent == {"auto-health-check"}


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


def test_resetting_everything_also_repairs_a_damaged_file(home: Home):
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
    with pytest.raises(ConfigValidationError, match="isn't an address of this machine"):
        set_value(home, "gateway-host", "203.0.113.7")
    assert load_config(home).gateway_host == "localhost"


@pytest.mark.parametrize("act", [get_setting, reset])
def test_a_key_that_does_not_exist_is_refused(home: Home, act):
    with pytest.raises(ConfigValidationError):
        act(home, "nope")
