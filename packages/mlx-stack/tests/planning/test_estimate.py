"""What is expected of a model, however it is named."""

import json
from pathlib import Path

import pytest

from mlx_catalog import Quant, UnknownModelError, UnreadableModelError
from mlx_catalog.hub import RepoReading
from mlx_catalog.model_files import describe
from mlx_recommend import Workload
from mlx_stack.home import Home
from mlx_stack.models.name import HubRepo
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.estimate import ModelEstimate, estimate_model

CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 16,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
    "max_position_embeddings": 131072,
    "quantization": {"group_size": 64, "bits": 4},
}


def no_hub(repo: HubRepo) -> RepoReading:
    raise AssertionError(f"the Hub was asked for {repo}")


def look(home: Home, name: str, **options: object) -> ModelEstimate:
    return estimate_model(OpenStack(home), name, read_hub=no_hub, **options)


def write_model(folder: Path, config: object = CONFIG, words: int = 150_000_000) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensor = {"model.a.weight": {"dtype": "U32", "shape": [words], "data_offsets": [0, 0]}}
    header = json.dumps(tensor).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return folder


def test_a_catalog_id_is_estimated_at_the_default_precision(home: Home):
    found = look(home, "qwen3-8b")
    assert (found.model.name, found.model.quant) == ("qwen3-8b", "int4")
    assert found.estimate.fits


def test_an_alias_says_which_model_answers_to_it(home: Home):
    found = look(home, "qwen3.5-14b")
    assert found.model.name == "qwen3.5-9b"
    assert "No Qwen3.5 of 14B" in found.model.note


def test_a_repository_of_the_catalog_needs_no_hub_and_tells_its_precision(home: Home):
    found = look(home, "mlx-community/Qwen3-8B-8bit")
    assert (found.model.name, found.model.quant) == ("qwen3-8b", "int8")
    assert look(home, "Qwen/Qwen3-8B").model.quant == "bf16"


def test_a_folder_is_estimated_from_its_own_files(home: Home, tmp_path: Path):
    folder = write_model(tmp_path / "mine")
    found = look(home, str(folder))
    assert found.model.name == str(folder)
    assert found.estimate.memory.weights_bytes == 600_000_000
    assert found.estimate.max_context_tokens == 131072


def test_a_folder_with_a_repositorys_name_has_the_role_of_the_catalog(home: Home, tmp_path: Path):
    config = {**CONFIG, "model_type": "qwen3"}
    found = look(home, str(write_model(tmp_path / "Qwen3-Reranker-0.6B-4bit", config)))
    assert found.model.role == "rerank"
    assert found.to_document()["role"] == "rerank"
    assert found.estimate.memory.kv_cache_bytes == 0
    assert found.estimate.generation_tps is None


def test_a_config_json_alone_is_enough(home: Home, tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG), encoding="utf-8")
    found = look(home, str(path))
    assert found.estimate.memory.weights_bytes == pytest.approx(1.24e9 * 4.5 / 8, rel=0.02)
    wider = look(home, str(path), quant=Quant.BF16)
    assert wider.estimate.memory.weights_bytes == pytest.approx(1.24e9 * 2, rel=0.02)


def test_a_pulled_model_is_found_by_its_folders_name(home: Home):
    write_model(home.models / "my-own")
    assert look(home, "my-own").estimate.memory.weights_bytes == 600_000_000


def test_an_unknown_architecture_leaves_everything_open_and_says_so(home: Home, tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "brand_new", "hidden_size": 64}), encoding="utf-8")
    found = look(home, str(path))
    assert found.estimate is None
    assert "brand_new" in found.model.note


def test_a_damaged_config_json_is_an_error_that_names_it(home: Home, tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(UnreadableModelError, match="JSON"):
        look(home, str(path))


def test_a_mistyped_name_is_answered_with_the_nearest(home: Home):
    with pytest.raises(UnknownModelError) as caught:
        look(home, "qwen3-8bb")
    assert "qwen3-8b" in caught.value.close_matches


def test_anything_else_that_looks_like_a_repository_is_asked_of_the_hub(home: Home):
    asked: list[HubRepo] = []

    def read_hub(repo: HubRepo) -> RepoReading:
        asked.append(repo)
        model = describe(repo.repo, CONFIG, file_bytes=700_000_000)
        return RepoReading(
            repo=repo.repo,
            revision="a" * 40,
            gated=False,
            download_bytes=700_000_000,
            weights_bytes=700_000_000,
            config=CONFIG,
            model=model,
        )

    found = estimate_model(OpenStack(home), "someone/Lynx-1B-4bit@v2", read_hub=read_hub)
    assert asked == [HubRepo("someone/Lynx-1B-4bit", "v2")]
    assert found.model.name == "someone/Lynx-1B-4bit"
    assert found.estimate.memory.weights_bytes == 700_000_000
    assert found.model.quant == "int4"


def test_another_machine_can_be_named(home: Home):
    here = look(home, "qwen3-32b")
    small = look(home, "qwen3-32b", hardware_spec="m2:8:8")
    assert here.estimate.fits
    assert not small.estimate.fits
    assert small.estimate.max_context_tokens == 0


def test_heads_that_somebody_measured_give_a_second_speed_with_a_range(home: Home):
    found = look(home, "qwen3.5-27b").to_document()
    plain, drafted = found["generation_tps"], found["mtp"]
    assert drafted["acceptance"] == {"low": 0.44, "high": 0.83}
    assert drafted["source"].startswith("one draft a step")
    speed = drafted["generation_tps"]
    assert speed["low"] < plain["value"] < speed["high"]
    assert speed["basis"] == "estimate"


def test_heads_that_nobody_measured_give_none_and_no_heads_nothing(home: Home):
    unknown = {"generation_tps": None, "acceptance": None, "source": None}
    assert look(home, "glm-4.7").to_document()["mtp"] == unknown
    assert look(home, "qwen3-8b").to_document()["mtp"] is None


def test_an_8_bit_cache_is_told_where_somebody_measured_what_it_does(home: Home):
    work = Workload(context_tokens=32_768, concurrency=2)
    found = look(home, "qwen3.6-27b", workload=work)
    document = found.to_document()
    cache, memory = document["kv_8bit"], document["memory"]
    assert cache["safe"] is True
    saved = cache["conversation_bytes_16bit"] - cache["conversation_bytes"]
    assert saved == 15 / 32 * memory["kv_cache_bytes"] / 2
    assert memory["total_bytes"] - cache["total_bytes"] == 2 * saved
    assert look(home, "gpt-oss-20b").to_document()["kv_8bit"]["safe"] is False
    assert look(home, "qwen3-8b").to_document()["kv_8bit"] is None
