"""`gateway.yaml`: what is read, and what is refused with a reason."""

import hashlib
import os
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway.errors import ConfigError
from mlx_gateway.settings import (
    GatewaySettings,
    ModelSettings,
    Upstream,
    load_settings,
    load_version,
    parse_settings,
)

MODEL = 'models: {m: {upstreams: [{url: "http://127.0.0.1:8000", model: big}]}}'


def test_what_the_documentation_shows_is_read() -> None:
    settings = parse_settings(
        """
        schema_version: 1
        host: 127.0.0.1
        port: 4000
        models:
          standard:
            upstreams:
            - {url: "http://127.0.0.1:8000", model: qwen3-8b}
            - {url: "http://127.0.0.1:8010/", model: qwen3-8b}
            fallbacks: [cloud]
            context_tokens: 32768
            max_concurrent: 4
            queue: 16
            sees_images: false
            silence_s: 600
          cloud: {upstreams: [{url: "http://127.0.0.1:4001", model: cloud}]}
        aliases: {coder: standard, gpt-5: coder}
        litellm: {url: "http://127.0.0.1:4001"}
        """
    )

    standard = settings.models["standard"]
    assert standard.upstreams[1].root == "http://127.0.0.1:8010"
    assert standard.fallbacks == ("cloud",)
    assert (standard.context_tokens, standard.max_concurrent, standard.queue) == (32768, 4, 16)
    assert not settings.is_cloud(standard.upstreams[0].root)
    assert settings.is_cloud(settings.models["cloud"].upstreams[0].root)


@pytest.mark.parametrize(
    "name", ["yes", "no", "on", "null", "~", "1e3", "0x10", "1:30", "010", "."]
)
def test_a_model_may_be_called_what_yaml_takes_for_something_else(name: str) -> None:
    settings = parse_settings(f"schema_version: 1\n{MODEL}\naliases: {{{name}: m}}")

    assert settings.aliases == {name: "m"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expected `object`"),
        ("[]", "Expected `object`"),
        (MODEL, "schema_version"),
        (f"schema_version: 2\nnews: 1\n{MODEL}", "schema_version is 2; this gateway reads 1"),
        ("schema_version: 1\nmodels: {}", "needs at least one"),
        (f"schema_version: 1\nprot: 4000\n{MODEL}", "unknown field `prot`"),
        (f"schema_version: 1\nport: 0\n{MODEL}", "$.port"),
        (f"schema_version: 1\nport: 65536\n{MODEL}", "$.port"),
        (f"schema_version: 1\nport: x\n{MODEL}", "$.port"),
        (f"schema_version: 1\n{MODEL}\naliases: {{a: b}}", "names 'b', which is not defined"),
        (f"schema_version: 1\n{MODEL}\naliases: {{a: b, b: a}}", "leads nowhere"),
        (f"schema_version: 1\n{MODEL}\naliases: {{m: n, n: m}}", "also the name of a model"),
        (f'schema_version: 1\n{MODEL}\naliases: {{"a\\r\\nx": m}}', "aliases"),
        (f'schema_version: 1\n{MODEL}\naliases: {{"a\\n": m}}', "aliases"),
        ("schema_version: 1\nmodels: {m: {upstreams: []}}", "upstreams"),
        (
            'schema_version: 1\nmodels: {m: {upstreams: [{url: "http://x:1\\n", model: y}]}}',
            "upstreams",
        ),
        (
            'schema_version: 1\nmodels: {m: {upstreams: [{url: "file:///x", model: y}]}}',
            "upstreams",
        ),
        *(
            (
                f'schema_version: 1\nmodels: {{m: {{upstreams: [{{url: "{url}", model: y}}]}}}}',
                f"an invalid URL: {url}",
            )
            for url in (
                "http://127.0.0.1:99999",
                "http://127.0.0.1:80a",
                "http://127.0.0.1:0",
                "http://[::1:8000",
                "http://:8000",
                "http://a..b:8000",
                "http://127.0.0.1:8000/ü",
            )
        ),
        (
            f'schema_version: 1\n{MODEL}\nlitellm: {{url: "http://127.0.0.1:65536"}}',
            "`litellm` has an invalid URL",
        ),
        (f"schema_version: 1\n{MODEL[:-2]}, fallbacks: [n]}}}}", "falls back to 'n'"),
        (f"schema_version: 1\n{MODEL[:-2]}, context_tokens: 0}}}}", "context_tokens"),
        ("schema_version: 1\nschema_version: 1\nmodels: {}", "'schema_version' occurs twice"),
        ("schema_version: 1\nmodels: {m: &a {}, n: *a}", "aliases are not allowed"),
        ("schema_version: [1\n", "expected"),
        ("a: " + "[" * 5000, "recursion"),
        ("\0", "special characters"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.yaml: ") as caught:
        parse_settings(text, Path("gateway.yaml"))

    assert reason in str(caught.value)


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_settings(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_settings(tmp_path / "bad.yaml")


def test_a_file_without_end_is_refused_rather_than_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="/dev/zero: is a device"):
        load_settings(Path("/dev/zero"))
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(ConfigError, match=r"huge\.yaml: is larger than 1 MB"):
        load_settings(tmp_path / "huge.yaml")


def test_settings_can_come_from_a_pipe() -> None:
    reader, writer = os.pipe()
    content = b"{schema_version: 1, models: {m: {upstreams: [{url: http://here, model: m}]}}}"
    os.write(writer, content)
    os.close(writer)
    settings, version = load_version(Path(f"/dev/fd/{reader}"))
    os.close(reader)
    assert (list(settings.models), version) == (["m"], hashlib.sha256(content).hexdigest())


_names = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="\x85\ufeff"),
    min_size=1,
    max_size=20,
)


@given(_names, _names, st.none() | st.floats(0.5, 1e6), st.none() | st.booleans())
def test_settings_that_are_written_as_yaml_are_read_as_the_same(
    name: str, model: str, silence_s: float | None, sees_images: bool | None
) -> None:
    upstream = Upstream("http://127.0.0.1:8000", model)
    written = GatewaySettings(
        schema_version=1,
        models={
            name: ModelSettings((upstream,), silence_s=silence_s, sees_images=sees_images),
        },
    )

    text = yaml.safe_dump(msgspec.to_builtins(written), allow_unicode=True)

    assert parse_settings(text) == written
