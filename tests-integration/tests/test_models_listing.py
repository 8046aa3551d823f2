"""`mlx-stack models --catalog` and `--available`, driven as a user would."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_stack.errors import StackError
from mlx_stack.home import Home
from mlx_stack.models.hub.environment import HubEnvironment
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.listings import ModelFilter, list_catalog, search_hub
from stack_testkit.hub import Fault, HubServer, Settings, write_repository
from stack_testkit.llama_config import LLAMA_1B
from stack_testkit.program import Program

pytestmark = pytest.mark.story

MAC = ("--hardware", "m4-max:40:64")
OWN_ENTRY = """\
id: lynx-1b
name: Lynx 1B
family: lynx
params_b: 1.2
architecture: transformer
model_type: llama
max_context_tokens: 8192
min_mlx_lm_version: 0.22.0
source: the model's page
geometry:
  layers: 16
  full_attention_layers: 16
  kv_heads: 8
  head_dim: 64
  sliding_layers: 0
  source: config.json
sources:
  int4: {hf_repo: example/Lynx-1B-4bit, source: the model's page}
capabilities: {tool_calling: false}
"""


def weights(words: int) -> bytes:
    """A weight file that says it holds so many packed words, and holds none."""
    header = json.dumps({"a.weight": {"dtype": "U32", "shape": [words], "data_offsets": [0, 0]}})
    return len(header).to_bytes(8, "little") + header.encode()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    root = tmp_path / "hub"
    config = json.dumps(LLAMA_1B).encode()
    write_repository(
        root,
        "mlx-community/Qwen3-8B-4bit",
        {"config.json": config, "model.safetensors": weights(2**30)},
    )
    write_repository(
        root,
        "someone/Lynx-1B-4bit",
        {"config.json": config, "model.safetensors": weights(150_000_000)},
    )
    write_repository(
        root,
        "someone/Odd-Thing",
        {
            "config.json": json.dumps({**LLAMA_1B, "model_type": "spark9"}).encode(),
            "model.safetensors": weights(150_000_000),
        },
    )
    write_repository(root, "someone/No-Config", {"model.safetensors": weights(1000)})
    with HubServer(root) as server:
        yield server


def online(program: Program, hub: HubServer) -> Program:
    variables = {**program.variables, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    return Program(program.home, variables)


def test_the_catalog_is_listed_with_figures_for_the_named_machine(program: Program):
    done = program.run("models", "--catalog", *MAC, "--json")
    assert (done.code, done.err) == (0, "")
    document = done.document
    assert document["schema_version"] == 1
    assert document["hardware"]["profile_id"] == "m4-max-64"
    models = {model["id"]: model for model in document["models"]}
    assert len(models) >= 45
    model = models["qwen3.5-27b"]
    assert model["aliases"] == ["qwen3.5-32b"]
    assert model["family"] == "qwen3.5"
    assert model["params_b"] == 27.78
    assert model["active_params_b"] is None
    assert model["architecture"] == "gated-deltanet-hybrid"
    assert model["capabilities"]["tool_call_parser"] == "qwen3_coder"
    assert model["quality"]["overall"] == 67.8
    assert model["sources"]["int4"]["hf_repo"] == "mlx-community/Qwen3.5-27B-4bit"
    estimate = model["estimate"]
    assert estimate["fits"] is True
    assert estimate["memory"]["weights_bytes"] == 16_050_000_000
    assert estimate["generation_tps"]["basis"] == "estimate"
    low, value, high = (estimate["generation_tps"][key] for key in ("low", "value", "high"))
    assert low < value < high


def test_a_smaller_machine_fits_fewer(program: Program):
    def fitting(spec: str) -> int:
        document = program.run("models", "--catalog", "--hardware", spec, "--json").document
        return sum(model["estimate"]["fits"] is True for model in document["models"])

    assert 5 < fitting("m1:8:8") < fitting("m4-max:40:64") < fitting("m3-ultra:80:512")


def test_the_filters_join(program: Program):
    done = program.run(
        "models",
        "--catalog",
        *MAC,
        "--family",
        "qwen3.5",
        "--tag",
        "moe",
        "--tool-calling",
        "--json",
    )
    assert [model["id"] for model in done.document["models"]] == [
        "qwen3.5-35b-a3b",
        "qwen3.5-122b-a10b",
        "qwen3.5-397b-a17b",
    ]


def test_a_filter_that_nothing_meets_says_so(program: Program):
    done = program.run("models", "--catalog", *MAC, "--family", "nonesuch")
    assert (done.code, done.out) == (0, "")
    assert "None of the catalog's" in done.err


def test_the_table_names_every_model_in_full_at_80_columns(program: Program):
    narrow = program.with_variables(COLUMNS="80")
    done = narrow.run("models", "--catalog", *MAC)
    assert done.code == 0
    assert "\x1b" not in done.out
    assert max(len(line) for line in done.out.splitlines()) <= 80
    assert "nemotron-3.5-lightning-30b-a3b" in done.out
    assert "No pinned engine can serve" in done.err


def test_a_users_own_entry_is_listed(program: Program):
    write_own(program.home, "lynx-1b", OWN_ENTRY)
    done = program.run("models", "--catalog", *MAC, "--family", "lynx", "--json")
    (model,) = done.document["models"]
    assert model["sources"]["int4"]["hf_repo"] == "example/Lynx-1B-4bit"
    assert model["estimate"]["fits"] is True
    assert model["quality"]["overall"] is None
    assert set(model["sources"]) == {"int4"}
    assert model["capabilities"]["thinking"] is None


def test_a_users_entry_with_a_mistake_is_named_with_its_line(program: Program):
    write_own(program.home, "lynx-1b", OWN_ENTRY.replace("params_b: 1.2", "params_b: lots"))
    done = program.run("models", "--catalog", *MAC)
    assert done.code == 2
    assert "lynx-1b.yaml:4: params_b: expected float, got 'lots'" in done.err
    assert "Traceback" not in done.err


def test_a_users_entry_in_another_encoding_is_named(program: Program):
    write_own(program.home, "lynx-1b", OWN_ENTRY)
    (program.home.catalog / "lynx-1b.yaml").write_bytes("name: Lüchs".encode("latin-1"))
    done = program.run("models", "--catalog", *MAC)
    assert done.code == 2
    assert "lynx-1b.yaml: no UTF-8 text" in done.err


def test_the_mistake_is_told_as_json_too(program: Program):
    write_own(program.home, "lynx-1b", OWN_ENTRY.replace("layers: 16\n  full", "full", 1))
    done = program.run("models", "--catalog", *MAC, "--json")
    assert done.code == 2
    assert "geometry.layers" in done.document["error"]["message"]


def test_reading_the_catalog_writes_nothing(program: Program):
    program.run("models", "--catalog", *MAC)
    assert not program.home.root.exists()


def test_the_hubs_models_are_listed_with_size_downloads_and_what_fits(
    program: Program, hub: HubServer
):
    done = online(program, hub).run("models", "--available", *MAC, "--json")
    assert (done.code, done.err) == (0, "")
    models = {model["repo"]: model for model in done.document["models"]}
    known = models["mlx-community/Qwen3-8B-4bit"]
    assert known["catalog_id"] == "qwen3-8b"
    assert known["size_bytes"] == 4 * 2**30
    assert known["downloads"] == 400
    assert known["estimate"]["fits"] is True
    lynx = models["someone/Lynx-1B-4bit"]
    assert lynx["catalog_id"] is None
    assert lynx["model_type"] == "llama"
    assert lynx["quantization"] == "4-bit"
    assert lynx["estimate"]["memory"]["weights_bytes"] == 600_000_000
    assert lynx["estimate"]["memory"]["kv_cache_bytes"] == 8192 * 16 * 2 * 8 * 64 * 2
    odd = models["someone/Odd-Thing"]
    assert "'spark9' is not known" in odd["note"]
    assert odd["estimate"] is None or odd["estimate"]["fits"] is None
    assert "no config.json" in models["someone/No-Config"]["note"]
    assert not any("resolve" in each.path and "safetensors" in each.path for each in hub.requests)


def test_a_query_narrows_the_listing(program: Program, hub: HubServer):
    done = online(program, hub).run("models", "--available", "lynx", *MAC)
    assert done.code == 0
    assert "someone/Lynx-1B-4bit" in done.out
    assert "Qwen3" not in done.out


def test_a_query_that_finds_nothing_says_so(program: Program, hub: HubServer):
    done = online(program, hub).run("models", "--available", "nonesuch", *MAC)
    assert (done.code, done.out) == (0, "")
    assert "No MLX models" in done.err


def test_an_unreachable_hub_is_told_with_what_to_do(program: Program, hub: HubServer):
    hub.close()
    done = online(program, hub).run("models", "--available", *MAC, "--json")
    assert done.code == 1
    error = done.document["error"]
    assert hub.url in error["message"]
    assert "connection" in error["hint"]


def test_a_broken_hub_is_told(program: Program, hub: HubServer):
    hub.configure(Settings(faults=(Fault(kind="status", status=500),)))
    done = online(program, hub).run("models", "--available", *MAC)
    assert done.code == 1
    assert "HTTP 500" in done.err
    assert "Traceback" not in done.err


def test_offline_mode_asks_nobody(program: Program, hub: HubServer):
    asked = online(program, hub)
    offline = asked.with_variables(HF_HUB_OFFLINE="1")
    done = offline.run("models", "--available", *MAC)
    assert done.code == 1
    assert "HF_HUB_OFFLINE" in done.err
    assert hub.requests == []


def test_catalog_and_hub_exclude_each_other(program: Program):
    assert program.run("models", "--catalog", "--available").code == 2


def named(hub: HubServer, *, offline: bool = False) -> HubEnvironment:
    return HubEnvironment(endpoint=hub.url, is_offline=offline)


def test_the_operation_lists_what_is_wanted(tmp_path: Path):
    listing = list_catalog(
        OpenStack(Home(tmp_path)),
        ModelFilter("qwen3.5", ("moe",), True),
        hardware_spec="m4-max:40:64",
    )
    assert listing.models[0].entry.id == "qwen3.5-35b-a3b"
    assert listing.total > len(listing.models)
    assert all(model.quant == "int4" for model in listing.models)


def test_a_model_without_the_default_precision_is_estimated_at_one_that_it_has(tmp_path: Path):
    home = Home(tmp_path)
    write_own(home, "lynx-1b", OWN_ENTRY.replace("  int4: {", "  int8: {"))
    listing = list_catalog(OpenStack(home), ModelFilter("lynx"), hardware_spec="m4-max:40:64")
    assert [model.quant for model in listing.models] == ["int8"]


def test_the_operation_asks_the_named_hub(tmp_path: Path, hub: HubServer):
    asked = named(hub)
    listing = search_hub(
        OpenStack(Home(tmp_path)),
        "",
        ModelFilter(),
        hardware_spec="m4-max:40:64",
        environment=asked,
    )
    notes = {model.listed.repo: model.note for model in listing.models}
    assert notes["mlx-community/Qwen3-8B-4bit"] == ""
    assert "no config.json" in notes["someone/No-Config"]
    by_repo = {model.listed.repo: model for model in listing.models}
    known = by_repo["mlx-community/Qwen3-8B-4bit"]
    assert known.estimate is not None
    assert known.estimate.memory.weights_bytes == known.size_bytes == 4 * 2**30
    assert known.reading is None


@pytest.mark.parametrize(
    ("wanted", "repos"),
    [
        (ModelFilter(tool_calling=True), ["mlx-community/Qwen3-8B-4bit"]),
        (ModelFilter(family="lynx"), ["someone/Lynx-1B-4bit"]),
        (ModelFilter(tags=("tools",)), ["mlx-community/Qwen3-8B-4bit"]),
        (ModelFilter(tags=("no-such-tag",)), []),
    ],
)
def test_the_hubs_listing_is_filtered_too(
    tmp_path: Path, hub: HubServer, wanted: ModelFilter, repos: list[str]
):
    asked = named(hub)
    listing = search_hub(
        OpenStack(Home(tmp_path)), "", wanted, hardware_spec="m4-max:40:64", environment=asked
    )
    assert [model.listed.repo for model in listing.models] == repos


def test_an_offline_hub_is_not_asked(tmp_path: Path, hub: HubServer):
    asked = named(hub, offline=True)
    with pytest.raises(StackError, match="HF_HUB_OFFLINE"):
        search_hub(OpenStack(Home(tmp_path)), "", ModelFilter(), environment=asked)


def write_own(home: Home, name: str, text: str) -> None:
    home.catalog.mkdir(parents=True)
    (home.catalog / f"{name}.yaml").write_text(text, encoding="utf-8")
