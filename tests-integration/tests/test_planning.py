"""`recommend`, `estimate`, `init` and `config` of the installed program."""

import json
from pathlib import Path

import pytest
import yaml

from mlx_hwprobe import parse_hardware_spec
from stack_testkit.hub import HubServer, write_repository
from stack_testkit.llama_config import LLAMA_1B
from stack_testkit.program import Program

pytestmark = pytest.mark.story

MAC = ("--hardware", "m4-max:40:128")


@pytest.fixture
def on_mac(program: Program) -> Program:
    """The program in a home whose saved profile is a Mac."""
    program.home.create()
    profile = parse_hardware_spec("m4-max:40:64").to_document()
    program.home.profile.write_text(json.dumps(profile), encoding="utf-8")
    return program


def test_estimate_gives_every_part_in_json(program: Program) -> None:
    done = program.run("estimate", "qwen3-8b", *MAC, "--context", "16384", "--json")

    assert done.code == 0, done.err
    document = done.document
    assert document["schema_version"] == 1
    assert (document["model"], document["quant"]) == ("qwen3-8b", "int4")
    assert (document["context_tokens"], document["concurrency"]) == (16384, 1)
    assert document["hardware"]["profile_id"] == "m4-max-128"
    assert document["fits"] is True
    memory = document["memory"]
    parts = ("weights_bytes", "kv_cache_bytes", "state_bytes", "overhead_bytes")
    assert sum(memory[part] for part in parts) == memory["total_bytes"] < memory["limit_bytes"]
    for speed in (document["generation_tps"], document["prompt_tps"]):
        assert speed["low"] < speed["value"] < speed["high"]
        assert speed["basis"] in ("measured", "reference", "estimate")
    assert document["ttft_s"] > 0
    assert not program.home.root.exists()


def test_estimate_exits_with_0_also_when_it_does_not_fit(program: Program) -> None:
    done = program.run("estimate", "qwen3-32b", "--hardware", "m2:8:8", "--json")

    assert done.code == 0
    assert done.document["fits"] is False
    assert done.document["max_context_tokens"] == 0


def test_published_figures_can_be_left_aside(program: Program) -> None:
    mac = ("--hardware", "m4-pro:20:24", "--json")

    published = program.run("estimate", "qwen3-8b", *mac).document
    bare = program.run("estimate", "qwen3-8b", *mac, "--no-measured").document

    assert published["generation_tps"]["basis"] == "reference"
    assert bare["generation_tps"]["basis"] == "estimate"


def test_estimate_in_words_says_whether_it_fits(program: Program) -> None:
    done = program.run("estimate", "qwen3.5-14b", *MAC)

    assert done.code == 0
    assert "It fits" in done.out
    assert "No Qwen3.5 of 14B" in done.out
    assert "tokens/s" in done.out


def test_a_config_json_alone_tells_what_an_uncommon_architecture_takes(
    program: Program, tmp_path: Path
) -> None:
    states = {"mamba_num_heads": 64, "mamba_head_dim": 64, "n_groups": 8, "ssm_state_size": 128}
    hybrid = {
        **{key: value for key, value in LLAMA_1B.items() if key != "quantization"},
        **states,
        "model_type": "nemotron_h",
        "hybrid_override_pattern": "M-M*-M-",
        "conv_kernel": 4,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(hybrid), encoding="utf-8")

    done = program.run("estimate", str(path), *MAC, "--context", "32768", "--json")

    assert done.code == 0, done.err
    memory = done.document["memory"]
    recurrent = 2048 * (2 * 4096 + 2 * 8 * 128 + 64) + 4096 * 2048
    attention, network = 2 * 2048 * 2048 + 2 * 2048 * 512, 2 * 2048 * 8192
    weights = 3 * recurrent + attention + 3 * network + 128256 * 2048
    assert memory["weights_bytes"] == pytest.approx(2 * weights, rel=0.01)
    assert memory["kv_cache_bytes"] == 1 * 2 * 8 * 64 * 32768 * 2
    assert memory["state_bytes"] > 0
    assert done.document["generation_tps"]["value"] > 0


def test_a_part_of_an_estimate_that_is_unknown_leaves_the_others(
    program: Program, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    narrow = {key: value for key, value in LLAMA_1B.items() if key != "intermediate_size"}
    path.write_text(json.dumps(narrow), encoding="utf-8")

    document = program.run("estimate", str(path), *MAC, "--json").document

    assert document["memory"]["weights_bytes"] is None
    assert document["memory"]["kv_cache_bytes"] == 16 * 2 * 8 * 64 * 8192 * 2
    assert (document["fits"], document["memory"]["total_bytes"]) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("estimate", "qwen3-8bb"), 2, "qwen3-8b"),
        (("estimate", "/nowhere/config.json"), 1, "No such file"),
        (("estimate", "qwen3-8b", "--hardware", "m9-giga:1:1"), 2, "m9-giga"),
        (("estimate", "qwen3-8b", "--hardware", "m4:10:16+m9-giga:1:1"), 2, "m9-giga"),
        (("estimate", "qwen3-8b", "--hardware", "m4:10:16+"), 2, "one side of a `+`"),
        (("recommend", "--hardware", "+".join(["m4:10:16"] * 9)), 2, "9 machines"),
        (("models", "show", "qwen3-8b", "--hardware", "m4:10:16+m4:10:16"), 2, "several Macs"),
        (("estimate", "qwen3-8b", "--context", "0"), 2, "context"),
        (("estimate", "qwen3-8b", "--quant", "int7"), 2, "int4-dwq"),
        (("recommend", "--budget", "plenty"), 2, "30gb"),
        (("recommend", "--budget", "9" * 400 + "gb"), 2, "30gb"),
        (("recommend", "--budget", "3gb", "--budget-pct", "3"), 2, "combined"),
        (("recommend", "--budget-pct", "0"), 2, "from 1 to 100"),
        (("init", "--as", "x", "--add", "qwen3-8b"), 2, "--as x"),
        (("init", "--host", "b", "--add", "qwen3-8b"), 2, "--host b"),
        (("init", "--add", "qwen3-8b", "--host=-oProxyCommand=sh"), 2, "can't be a host for ssh"),
        (("init", "--add", "qwen3-8b", "--private-link"), 2, "--private-link"),
        (("config", "set", "litellm-prot", "1"), 2, "litellm-port"),
        (("config", "set", "litellm-port", "0"), 2, "1 to 65535"),
        (("config", "set", "gateway-host", "203.0.113.7"), 2, "an address of this machine"),
        (("config", "reset"), 2, "--yes"),
    ],
)
def test_what_cannot_be_is_refused_in_words_and_in_json(
    program: Program, arguments: tuple[str, ...], code: int, word: str
) -> None:
    done = program.run(*arguments, "--json")

    assert done.code == code
    assert word in done.err
    assert "Traceback" not in done.err
    assert done.document["error"]["message"]
    assert set(done.document["error"]) == {"type", "message", "hint"}


def test_the_hub_out_of_reach_is_said_and_no_traceback(program: Program) -> None:
    offline = program.with_variables(HF_ENDPOINT="http://127.0.0.1:9")
    done = offline.run("estimate", "someone/Some-Model-4bit")

    assert done.code == 1
    assert "Traceback" not in done.err
    assert "HF_ENDPOINT" in done.err

    forbidden = program.with_variables(HF_HUB_OFFLINE="1")
    assert forbidden.run("estimate", "someone/Some-Model-4bit").code == 5


def test_recommend_proposes_tiers_that_share_the_budget(program: Program) -> None:
    done = program.run("recommend", *MAC, "--budget", "30gb", "--json")

    assert done.code == 0, done.err
    document = done.document
    assert document["intent"] == "balanced"
    assert document["budget_bytes"] == 30 * 10**9
    assert [tier["tier"] for tier in document["tiers"]] == ["standard", "fast", "longctx"]
    assert sum(tier["memory"]["total_bytes"] for tier in document["tiers"]) <= 30 * 10**9
    for tier in document["tiers"]:
        assert 0 <= tier["score"] <= 1
        assert tier["reasons"]
        assert all(reason["kind"] and reason["text"] for reason in tier["reasons"])
    scores = [each["score"] for each in document["candidates"]]
    assert scores == sorted(scores, reverse=True)
    assert not program.home.root.exists()


def test_recommend_reads_well_at_80_columns(program: Program) -> None:
    narrow = program.with_variables(COLUMNS="80")
    done = narrow.run("recommend", "--hardware", "m1:8:8")

    assert done.code == 0
    assert max(map(len, done.out.splitlines())) <= 80
    assert "standard" in done.out
    assert "Left out" in done.out


TWO_MACS = ("--hardware", "m4-max:40:128+m4-max:40:128")


def test_two_macs_run_what_neither_runs_alone(program: Program) -> None:
    model = "qwen3-235b-a22b-instruct-2507"
    alone = program.run("estimate", model, "--hardware", "m4-max:40:128", "--json").document
    done = program.run("estimate", model, *TWO_MACS, "--json").document

    assert (alone["fits"], done["fits"]) == (False, True)
    assert [mac["rank"] for mac in done["macs"]] == [0, 1]
    assert done["memory"] in [mac["memory"] for mac in done["macs"]]
    assert sum(mac["layers"] for mac in done["macs"]) == 94
    assert done["generation_tps"] == done["links"][0]["generation_tps"]
    assert done["generation_tps"]["basis"] == "estimate"
    assert done["other_split"]["split"] == "tensor"
    assert done["max_context_tokens"] > 8192


def test_a_model_that_macs_cannot_divide_says_why(program: Program) -> None:
    done = program.run("estimate", "gemma4-31b", *TWO_MACS, "--json")

    assert done.code == 0
    assert (done.document["fits"], done.document["split"]) == (False, None)
    assert "gemma4" in done.document["refusals"][0]


def test_two_macs_are_proposed_one_model_more(program: Program) -> None:
    one = program.run("recommend", "--hardware", "m4-max:40:128", "--json").document
    two = program.run("recommend", *TWO_MACS, "--json").document

    *tiers, together = two["tiers"]
    assert tiers == one["tiers"]
    assert together["tier"] == "huge"
    assert [mac["fits"] for mac in together["macs"]] == [True, True]
    assert together["reasons"][0]["kind"] == "too-large"
    assert len(two["macs"]) == 2
    assert not program.home.root.exists()


@pytest.mark.parametrize("columns", [80, 140])
@pytest.mark.parametrize(
    "arguments", [("estimate", "qwen3-235b-a22b-instruct-2507"), ("recommend",)], ids=" ".join
)
def test_several_macs_read_well(program: Program, arguments: tuple[str, ...], columns: int) -> None:
    wide = program.with_variables(COLUMNS=str(columns))
    done = wide.run(*arguments, *TWO_MACS)

    assert done.code == 0
    assert max(map(len, done.out.splitlines())) <= columns
    assert "M4 Max" in done.out
    assert "huge" in done.out or "Thunderbolt" in done.out


def test_show_all_lists_what_does_not_fit_and_why(program: Program) -> None:
    done = program.run("recommend", "--hardware", "m4:10:16", "--show-all")

    assert "over" in done.out
    assert "gated: needs a Hub token" in done.out


def test_a_token_admits_gated_models(program: Program) -> None:
    with_token = program.with_variables(HF_TOKEN="hf_test")
    candidates = with_token.run("recommend", *MAC, "--json").document["candidates"]

    assert "gated" not in {each["excluded"] for each in candidates}


def test_init_writes_the_stack_once(on_mac: Program) -> None:
    done = on_mac.run("init", "--accept-defaults", "--json")

    assert done.code == 0, done.err
    names = [tier["name"] for tier in done.document["tiers"]]
    assert names == ["standard", "fast", "longctx"]
    written = yaml.safe_load(on_mac.home.stack.read_text())
    assert written["schema_version"] == 1
    assert [tier["name"] for tier in written["tiers"]] == names
    assert on_mac.home.gateway_settings.exists()
    before = on_mac.home.stack.read_bytes()

    again = on_mac.run("init", "--accept-defaults")

    assert again.code == 1
    assert "--force" in again.err
    assert on_mac.home.stack.read_bytes() == before
    assert on_mac.run("init", "--accept-defaults", "--force").code == 0


def test_init_pairs_each_name_with_the_model_before_it(on_mac: Program) -> None:
    added = ("--add", "qwen3-0.6b", "--add=qwen3-8b", "--as=coder", "--remove", "longctx")
    done = on_mac.run("init", "--accept-defaults", *added, "--json")

    assert done.code == 0, done.err
    models = {tier["name"]: tier["model"] for tier in done.document["tiers"]}
    assert models["coder"] == "qwen3-8b"
    assert models["qwen3-0-6b"] == "qwen3-0.6b"
    assert "longctx" not in models


def test_config_keeps_a_secret_from_every_output(program: Program) -> None:
    secret = "sk-or-v1-0123456789abcdef"

    set_ = program.run("config", "set", "openrouter-key", "-", stdin=f"{secret}\n")
    outputs = [
        set_,
        program.run("config", "get", "openrouter-key"),
        program.run("config", "list"),
        program.run("config", "list", "--json"),
        program.run("config", "get", "openrouter-key", "--json"),
    ]

    assert set_.code == 0, set_.err
    assert all(secret not in done.out + done.err for done in outputs)
    assert secret in program.home.config.read_text()
    assert program.home.config.stat().st_mode & 0o777 == 0o600


def test_config_shows_value_default_and_source(program: Program) -> None:
    assert program.run("config", "set", "litellm-port", "4100").code == 0

    rows = {row["key"]: row for row in program.run("config", "list", "--json").document["config"]}

    assert (rows["litellm-port"]["value"], rows["litellm-port"]["default"]) == (4100, 4000)
    assert rows["litellm-port"]["source"] == "file"
    assert rows["keep-awake"]["source"] == "default"
    assert program.run("config", "get", "litellm-port").out == "4100\n"
    assert program.run("config", "reset", "litellm-port").code == 0
    assert program.run("config", "get", "litellm-port").out == "4000\n"


def test_a_damaged_configuration_names_its_line_in_every_command(program: Program) -> None:
    program.home.create()
    program.home.config.write_text("litellm-port: 4100\nkeep-awake: often\n", encoding="utf-8")

    for arguments in (("config", "list"), ("recommend", *MAC), ("init", "--accept-defaults")):
        done = program.run(*arguments)
        assert done.code == 2
        assert "line 2" in done.err
    assert program.run("config", "reset", "--yes").code == 0
    assert program.run("config", "list").code == 0


def test_a_folder_can_be_estimated(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA_1B), encoding="utf-8")

    document = program.run("estimate", str(path), *MAC, "--json").document

    assert document["quant"] == "int4"
    assert document["memory"]["weights_bytes"] == pytest.approx(697e6, rel=0.02)


def test_a_repository_on_the_hub_can_be_estimated_without_its_weights(
    program: Program, tmp_path: Path
) -> None:
    files = {"config.json": json.dumps(LLAMA_1B).encode(), "model.safetensors": b"x" * 700_000}
    write_repository(tmp_path / "hub", "someone/Lynx-1B-4bit", files)
    with HubServer(tmp_path / "hub") as hub:
        online = program.with_variables(HF_ENDPOINT=hub.url)
        done = online.run("estimate", "someone/Lynx-1B-4bit", *MAC, "--json")
        assert hub.sent_bytes < 10_000

    assert done.code == 0, done.err
    assert done.document["memory"]["weights_bytes"] == 700_000
    assert done.document["generation_tps"]["basis"] == "estimate"
