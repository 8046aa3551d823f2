"""Folders with real safetensors files of a few kilobytes."""

import json
import struct
from math import prod
from pathlib import Path

import pytest

from mlx_catalog import UnreadableModelError
from mlx_catalog.model_files import MAX_JSON_BYTES, read_model
from mlx_catalog.safetensors import missing_shards, read_header, weight_files

BYTES = {"BF16": 2, "F32": 4, "U32": 4, "U8": 1}

type Shapes = dict[str, tuple[str, list[int]]]


def write_safetensors(path: Path, tensors: Shapes) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        size = BYTES[dtype] * prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(offset))


def affine(name: str, rows: int, columns: int, bits: int, group_size: int) -> Shapes:
    """The three tensors that MLX keeps for a quantized matrix."""
    return {
        f"{name}.weight": ("U32", [rows, columns * bits // 32]),
        f"{name}.scales": ("BF16", [rows, columns // group_size]),
        f"{name}.biases": ("BF16", [rows, columns // group_size]),
    }


def mxfp4(name: str, experts: int, rows: int, columns: int) -> Shapes:
    return {
        f"{name}.weight": ("U32", [experts, rows, columns // 8]),
        f"{name}.scales": ("U8", [experts, rows, columns // 32]),
    }


CONFIG: dict[str, object] = {
    "model_type": "llama",
    "num_hidden_layers": 1,
    "hidden_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
}


def write_model(folder: Path, config: dict[str, object], *files: Shapes) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}), encoding="utf-8")
    for index, tensors in enumerate(files):
        write_safetensors(folder / f"model-{index:05}.safetensors", tensors)
    return folder


def test_a_mixed_quantization_is_weighed_to_the_byte(tmp_path: Path):
    folder = write_model(
        tmp_path / "mixed",
        {
            "quantization": {
                "group_size": 64,
                "bits": 4,
                "model.embed_tokens": {"group_size": 32, "bits": 8},
            }
        },
        affine("model.embed_tokens", 512, 256, 8, 32),
        affine("model.layers.0.mlp.up_proj", 512, 256, 4, 64)
        | {"model.norm.weight": ("BF16", [256])},
    )
    reading = read_model(folder)
    files = sum(
        file.stat().st_size - 8 - struct.unpack("<Q", file.read_bytes()[:8])[0]
        for file in folder.glob("*.safetensors")
    )
    assert reading.weights_bytes == files
    assert reading.weights_exact
    assert reading.params == 2 * 512 * 256 + 256
    assert reading.bits_per_weight == pytest.approx(files * 8 / reading.params)
    assert reading.quantization == "4/8-bit"
    assert reading.active_params == reading.params


@pytest.mark.parametrize(
    ("bits", "quant"),
    [(2, "2bit"), (3, "3bit"), (4, "int4"), (5, "5bit"), (6, "6bit"), (8, "int8")],
)
def test_the_bits_are_found_in_the_headers_at_any_precision(
    tmp_path: Path, bits: int, quant: str | None
):
    folder = write_model(
        tmp_path / "one",
        {"quantization": {"group_size": 64, "bits": bits}},
        affine("model.layers.0.mlp.up_proj", 64, 2048, bits, 64),
    )
    reading = read_model(folder)
    assert reading.params == 64 * 2048
    assert reading.bits_per_weight == bits + 0.5
    assert reading.quantization == f"{bits}-bit"
    assert reading.quant == quant


def test_experts_in_mxfp4_beside_8_bits_are_told_apart_and_counted_by_use(tmp_path: Path):
    folder = write_model(
        tmp_path / "moe",
        {
            "model_type": "gpt_oss",
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "quantization": {
                "group_size": 32,
                "bits": 4,
                "mode": "mxfp4",
                "model.layers.0.self_attn.q_proj": {"group_size": 64, "bits": 8, "mode": "affine"},
            },
        },
        mxfp4("model.layers.0.mlp.experts.gate_up_proj", 8, 256, 256)
        | affine("model.layers.0.self_attn.q_proj", 256, 256, 8, 64),
    )
    reading = read_model(folder)
    assert reading.params == 9 * 256 * 256
    assert reading.active_params == 3 * 256 * 256
    assert reading.quantization == "4/8-bit"


def test_weights_in_16_bits_are_named_by_their_dtype(tmp_path: Path):
    tensors: Shapes = {"model.embed_tokens.weight": ("BF16", [512, 256])}
    reading = read_model(write_model(tmp_path / "plain", {}, tensors))
    assert (reading.params, reading.weights_bytes) == (512 * 256, 512 * 256 * 2)
    assert (reading.quantization, reading.quant) == ("bfloat16", "bf16")


def test_a_folder_without_weights_says_what_its_config_says(tmp_path: Path):
    reading = read_model(write_model(tmp_path / "bare", {}))
    assert reading.weights_bytes is None
    assert reading.params is None
    assert reading.geometry is not None
    assert reading.bits_per_weight == 16


def test_a_folder_without_a_config_is_told(tmp_path: Path):
    with pytest.raises(UnreadableModelError, match=r"config\.json: No such file"):
        read_model(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00"])
def test_a_config_that_is_no_json_object_is_told(tmp_path: Path, text: str):
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(UnreadableModelError, match="JSON"):
        read_model(file)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x10\x00\x00",
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 64) + b'{"a": {"dtype": "BF16", "sha',
        struct.pack("<Q", 9) + b'{"a": []}',
        struct.pack("<Q", 34) + b'{"a": {"dtype":"Q9","shape":[1]}}',
    ],
    ids=["empty", "short", "huge", "cut", "no tensor", "unknown dtype"],
)
def test_a_damaged_weight_file_is_told_by_name(tmp_path: Path, raw: bytes):
    file = tmp_path / "model.safetensors"
    file.write_bytes(raw)
    with pytest.raises(UnreadableModelError, match=r"model\.safetensors"):
        read_header(file)


def test_a_scalar_is_one_parameter(tmp_path: Path):
    file = tmp_path / "model.safetensors"
    raw = b'{"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}'
    file.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(4))
    assert read_header(file)["a"].elements == 1


def test_weight_files_without_tensors_tell_nothing(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    write_safetensors(tmp_path / "model.safetensors", {})
    reading = read_model(tmp_path)
    assert (reading.params, reading.weights_bytes) == (None, None)


def test_a_second_layout_of_the_same_weights_is_not_counted(tmp_path: Path):
    folder = write_model(tmp_path / "twice", {}, {"model.norm.weight": ("BF16", [256])})
    write_safetensors(folder / "consolidated.safetensors", {"norm.weight": ("BF16", [256])})
    assert read_model(folder).weights_bytes == 512


def test_the_headers_of_what_is_there_beat_an_index_that_was_left_over(tmp_path: Path):
    tensors: Shapes = {"model.embed_tokens.weight": ("BF16", [64, 256])}
    folder = write_model(tmp_path / "stale", {}, tensors)
    before = read_model(folder)
    shards = {"a": "model-00001-of-00003.safetensors", "b": "model-00003-of-00003.safetensors"}
    index = {"metadata": {"total_size": 10**10}, "weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    reading = read_model(folder)
    assert (reading.weights_bytes, reading.params) == (before.weights_bytes, 64 * 256)
    assert reading.weights_exact
    assert any("stale" in note for note in reading.notes)


def test_a_shard_is_missed_by_the_numbers_of_the_others_alone():
    one, two, three = (f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3))
    assert missing_shards([one, three, "tokenizer.json"]) == (two,)
    assert missing_shards([one, two, three]) == ()
    assert missing_shards(["model.safetensors", "adapter-1.safetensors"]) == ()


def test_a_file_that_is_not_as_long_as_its_header_says_is_told(tmp_path: Path):
    file = tmp_path / "model.safetensors"
    write_safetensors(file, {"a": ("BF16", [100])})
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    with pytest.raises(UnreadableModelError, match="cut short"):
        read_header(file)
    file.write_bytes(whole + b"more")
    with pytest.raises(UnreadableModelError, match="too long"):
        read_header(file)


@pytest.mark.parametrize(
    "text",
    [
        '{"model_type": "llama", "time_step_limit": [0.0, Infinity], "x": NaN, "y": -Infinity}',
        '\ufeff{"model_type": "llama"}',
    ],
)
def test_a_configuration_is_read_as_leniently_as_mlx_reads_it(tmp_path: Path, text: str):
    file = tmp_path / "config.json"
    file.write_text(text, encoding="utf-8")
    assert read_model(file).model_type == "llama"


@pytest.mark.parametrize("text", ["[" * 200_000, "1" * 10_000, '{"a": ' * 50_000])
def test_a_configuration_without_end_is_told(tmp_path: Path, text: str):
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(UnreadableModelError, match="not JSON"):
        read_model(file)


def test_a_configuration_larger_than_any_is_not_read(tmp_path: Path):
    file = tmp_path / "config.json"
    with file.open("wb") as hole:
        hole.truncate(MAX_JSON_BYTES + 1)
    with pytest.raises(UnreadableModelError, match="larger than 64 MB"):
        read_model(file)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/tty"])
def test_a_device_is_refused_rather_than_read(device: str):
    with pytest.raises(UnreadableModelError, match="a device, not a file"):
        read_model(Path(device))


def test_weights_are_the_files_that_mlx_loads():
    shards = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    others = ("consolidated.safetensors", "original/model.safetensors", "config.json")
    assert weight_files([*others, *reversed(shards)]) == shards
    hidden = "._weights.00.safetensors"
    assert weight_files(["weights.00.safetensors", hidden, *others]) == ("weights.00.safetensors",)


def test_a_folder_that_misses_a_shard_is_as_big_as_its_index_says(tmp_path: Path):
    folder = write_model(tmp_path / "half", {}, {"model.norm.weight": ("BF16", [256])})
    (folder / "model-00000.safetensors").rename(folder / "model-00001-of-00003.safetensors")
    shards = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
    index = {
        "metadata": {"total_size": 3000},
        "weight_map": {f"layer.{number}": shard for number, shard in enumerate(shards)},
    }
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(index), encoding="utf-8")

    reading = read_model(folder)
    assert (reading.weights_bytes, reading.weights_exact) == (3000, False)
    assert "model-00002-of-00003.safetensors and 1 more is missing" in reading.notes[0]


@pytest.mark.parametrize(
    ("weight", "scales"),
    [([], []), ([4], [0]), ([0, 0], [0, 0]), ([4, 8], []), ([4, 2**40], [4, 1])],
)
def test_shapes_that_no_quantization_has_are_no_crash(
    tmp_path: Path, weight: list[int], scales: list[int]
):
    tensors = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]}
        for name, dtype, shape in (("a.weight", "U32", weight), ("a.scales", "BF16", scales))
    }
    raw = json.dumps(tensors).encode()
    folder = write_model(tmp_path / "odd", {"quantization": {"bits": 4, "group_size": 64}})
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw)
    assert (read_model(folder).weights_bytes or 0) >= 0


def test_a_negative_shape_is_told(tmp_path: Path):
    file = tmp_path / "model.safetensors"
    raw = b'{"a": {"dtype": "BF16", "shape": [-4, 4], "data_offsets": [0, 0]}}'
    file.write_bytes(struct.pack("<Q", len(raw)) + raw)
    with pytest.raises(UnreadableModelError, match="damaged"):
        read_header(file)


def test_weights_packed_in_a_way_that_is_unknown_have_unknown_bits(tmp_path: Path):
    folder = write_model(tmp_path / "odd", {"quantization_config": {"quant_method": "aqlm"}})
    reading = read_model(folder)
    assert (reading.bits_per_weight, reading.quant, reading.quantization) == (None, None, "")
