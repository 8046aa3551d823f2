import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_hwprobe import (
    HwprobeError,
    InvalidDocumentError,
    UnknownChipError,
    chip_table,
    describe_mac,
    parse_hardware_spec,
    parse_hardware_specs,
)

CAPTURES = Path(__file__).parent / "captures"


@pytest.mark.parametrize(
    ("spec", "gpu_cores", "gb_s", "source", "profile_id"),
    [
        ("m4-max:40:128", 40, 546, "table", "m4-max-128"),
        ("m4-max:32:36", 32, 410, "table", "m4-max-36"),
        ("m4-max::128", 40, 546, "table-by-memory", "m4-max-128"),
        ("m4-max-128", 40, 546, "table-by-memory", "m4-max-128"),
        ("M4 Max:40:128gb", 40, 546, "table", "m4-max-128"),
        ("m3-max-96", 30, 300, "table-by-memory", "m3-max-96"),
        ("m6:12:16", 12, 153, "table-by-memory", "m6-16"),
        ("m6::32", 12, 170, "table-by-memory", "m6-32"),
        ("a18-pro-8", 5, 60, "table", "a18-pro-8"),
        ("M4Max-128", 40, 546, "table-by-memory", "m4-max-128"),
        ("m1::16", None, 68, "table", "m1-16"),
        ("m4-max:40:96", 40, 546, "table", "m4-max-96"),
    ],
)
def test_a_mac_can_be_named_in_one_word(
    spec: str, gpu_cores: int | None, gb_s: int, source: str, profile_id: str
) -> None:
    profile = parse_hardware_spec(spec)
    assert profile.gpu_cores == gpu_cores
    assert (profile.memory_bandwidth_gb_s, profile.bandwidth_source) == (gb_s, source)
    assert profile.profile_id == profile_id
    assert profile.gpu_memory_limit_source == "estimate"


def test_every_bin_of_the_table_can_be_named() -> None:
    for row in chip_table():
        for size in row.memory_options_gb:
            profile = parse_hardware_spec(f"{row.chip}:{row.gpu_cores}:{size}")
            assert profile.memory_bandwidth_gb_s == row.memory_bandwidth_gb_s
            by_id = parse_hardware_spec(profile.profile_id or "")
            assert by_id.memory_bandwidth_gb_s == row.memory_bandwidth_gb_s
            assert by_id.gpu_cores in (None, row.gpu_cores)


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("m4-mx:40:128", "M4 Max"),
        ("m4-ultra-256", "M3 Ultra"),
        ("m4-max:30:128", "32 GPU cores with 36 GB"),
        ("m4-max:0:128", "32 GPU cores with 36 GB"),
    ],
)
def test_a_mac_that_was_never_made_is_answered_with_what_there_is(spec: str, hint: str) -> None:
    with pytest.raises(UnknownChipError) as caught:
        parse_hardware_spec(spec)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    "spec", ["", "m4-max", "m4-max:40:0", "no/such/file.json", "a\0b", "x" * 5000, "/"]
)
def test_anything_else_is_refused_with_the_three_forms(spec: str) -> None:
    with pytest.raises(InvalidDocumentError) as caught:
        parse_hardware_spec(spec)
    assert "m4-max:40:128" in (caught.value.hint or "")


def test_a_saved_profile_and_a_capture_can_be_given_by_their_path(tmp_path: Path) -> None:
    capture = CAPTURES / "m6_32_three_levels.json"
    from_capture = parse_hardware_spec(str(capture))
    assert from_capture.profile_id == "m6-32"
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(from_capture.to_document()))
    assert parse_hardware_spec(str(path)) == from_capture


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"schema_version": 1}'])
def test_a_damaged_file_is_refused_by_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(content)
    with pytest.raises(InvalidDocumentError, match=r"profile\.json"):
        parse_hardware_spec(str(path))


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/tty", "/dev/null"])
def test_a_device_is_refused_rather_than_read(device: str) -> None:
    with pytest.raises(InvalidDocumentError, match=f"{device}: not a file"):
        parse_hardware_spec(device)


def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(InvalidDocumentError, match="too large for a profile"):
        parse_hardware_spec(str(path))


def test_a_capture_can_come_from_a_pipe() -> None:
    reader, writer = os.pipe()
    os.write(writer, (CAPTURES / "m6_32_three_levels.json").read_bytes())
    os.close(writer)
    assert parse_hardware_spec(f"/dev/fd/{reader}").profile_id == "m6-32"
    os.close(reader)


def test_memory_that_no_bin_has_picks_no_bin() -> None:
    profile = describe_mac("M4 Max", memory_gb=100)
    assert profile.gpu_cores is None
    assert (profile.memory_bandwidth_gb_s, profile.bandwidth_source) == (410, "estimate")


@given(st.text(max_size=30))
def test_no_text_breaks_it(text: str) -> None:
    try:
        parse_hardware_spec(text)
    except HwprobeError as error:
        assert error.message  # noqa: PT017 - most texts are refused, some name a Mac


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("m4-max:40:128", ["m4-max-128"]),
        ("m4-max:40:128+m2-ultra:76:192", ["m4-max-128", "m2-ultra-192"]),
        ("m4-max-128 + m4-max-128", ["m4-max-128", "m4-max-128"]),
        ("+".join(["m4:10:16"] * 8), ["m4-16"] * 8),
    ],
)
def test_several_macs_are_named_with_a_plus_between(text: str, ids: list[str]) -> None:
    assert [each.profile_id for each in parse_hardware_specs(text)] == ids


def test_several_macs_may_be_saved_profiles(tmp_path: Path) -> None:
    saved = tmp_path / "studio.json"
    saved.write_text(json.dumps(parse_hardware_spec("m2-ultra:76:192").to_document()))

    found = parse_hardware_specs(f"m4-max:40:128+{saved}")

    assert [each.profile_id for each in found] == ["m4-max-128", "m2-ultra-192"]


def test_a_file_with_a_plus_in_its_name_is_a_file(tmp_path: Path) -> None:
    saved = tmp_path / "mine+yours.json"
    saved.write_text(json.dumps(parse_hardware_spec("m4:10:16").to_document()))

    assert [each.profile_id for each in parse_hardware_specs(str(saved))] == ["m4-16"]


@pytest.mark.parametrize(
    ("text", "error", "word"),
    [
        ("m4-max:40:128+", InvalidDocumentError, "one side of a `+`"),
        ("+", InvalidDocumentError, "one side of a `+`"),
        ("m4:10:16++m4:10:16", InvalidDocumentError, "one side of a `+`"),
        ("+".join(["m4:10:16"] * 9), InvalidDocumentError, "9 machines are too many"),
        ("a+a", InvalidDocumentError, "'a' is neither"),
        ("m4-max:40:128+m9-giga:1:1", UnknownChipError, "m9-giga"),
        ("m4-max:40:128+m4:10:0", InvalidDocumentError, "no memory"),
        ("m4-max:40:128+/no/such/file", InvalidDocumentError, "/no/such/file"),
    ],
)
def test_a_damaged_part_is_refused(text: str, error: type[HwprobeError], word: str) -> None:
    with pytest.raises(error, match=re.escape(word)):
        parse_hardware_specs(text)
