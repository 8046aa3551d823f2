import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_hwprobe import HardwareProfile, InvalidDocumentError, parse_hardware_spec

KEYS = [
    "schema_version",
    "chip",
    "gpu_cores",
    "memory_gb",
    "memory_bytes",
    "memory_bandwidth_gb_s",
    "bandwidth_source",
    "gpu_memory_limit_bytes",
    "gpu_memory_limit_source",
    "cpu_cores",
    "hw_model",
    "os_version",
    "is_virtual_machine",
    "is_rosetta",
    "profile_id",
]

words = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)

profiles = st.builds(
    HardwareProfile,
    chip=st.just("M4 Max") | words,
    gpu_cores=st.none() | st.integers(1, 100),
    memory_bytes=st.integers(1 << 30, 1 << 40),
    memory_bandwidth_gb_s=st.none() | st.integers(1, 2000) | st.floats(1, 2000),
    bandwidth_source=st.sampled_from(["table", "table-by-memory", "measured", "estimate", None]),
    gpu_memory_limit_bytes=st.none() | st.integers(1, 1 << 40),
    gpu_memory_limit_source=st.sampled_from(
        ["sysctl", "metal", "table", "estimate", "nvidia-smi", None]
    ),
    cpu_cores=st.none() | st.dictionaries(words, st.integers(0, 64), max_size=3),
    hw_model=st.none() | words,
    os_version=st.none() | words,
    is_virtual_machine=st.booleans(),
    is_rosetta=st.booleans(),
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def saved(**changes: Any) -> dict[str, Any]:
    return {**parse_hardware_spec("m4-max:40:128").to_document(), **changes}


def test_the_json_has_the_names_others_read_in_their_order() -> None:
    assert list(parse_hardware_spec("m6::24").to_document()) == KEYS


@given(profiles)
def test_a_saved_profile_is_read_back_the_same(profile: HardwareProfile) -> None:
    assert HardwareProfile.from_document(json.loads(json.dumps(profile.to_document()))) == profile


@given(json_values)
def test_anything_else_is_refused_and_never_breaks(document: object) -> None:
    with pytest.raises(InvalidDocumentError):
        HardwareProfile.from_document(document)


@given(st.sampled_from(KEYS), json_values)
def test_one_wrong_value_is_refused_by_its_name_or_harmless(key: str, value: object) -> None:
    place, profile = key, None
    try:
        profile = HardwareProfile.from_document(saved(**{key: value}))
    except InvalidDocumentError as error:
        place = error.place.split(".")[0]
    # That one of the two sizes is wrong can only be told by the other.
    assert place in (key, "memory_gb")
    assert profile is None or json.dumps(profile.to_document(), allow_nan=False)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"schema_version": None}, "schema_version"),
        ({"schema_version": True}, "schema_version"),
        ({"gpu_cores": "40"}, "gpu_cores"),
        ({"gpu_cores": 40.5}, "gpu_cores"),
        ({"gpu_cores": 0}, "gpu_cores"),
        ({"memory_bytes": 10**400}, "memory_bytes"),
        ({"memory_gb": 64}, "memory_gb"),
        ({"memory_bandwidth_gb_s": float("nan")}, "memory_bandwidth_gb_s"),
        ({"bandwidth_source": "hearsay"}, "bandwidth_source"),
        ({"cpu_cores": {"performance": "12"}}, "cpu_cores.performance"),
        ({"is_rosetta": "no"}, "is_rosetta"),
        ({"chip": "\x1b[31mM4"}, "chip"),
        ({"hw_model": "\ud800"}, "hw_model"),
    ],
)
def test_a_wrong_value_is_refused_where_it_stands(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidDocumentError) as caught:
        HardwareProfile.from_document(saved(**changes))
    assert caught.value.place == place


def test_a_newer_version_is_refused_and_says_what_to_do() -> None:
    with pytest.raises(InvalidDocumentError, match="has version 7") as caught:
        HardwareProfile.from_document(saved(schema_version=7))
    assert "Upgrade" in (caught.value.hint or "")


def test_a_profile_written_by_hand_may_give_its_memory_in_gb_only() -> None:
    profile = HardwareProfile.from_document({"schema_version": 1, "chip": "M4", "memory_gb": 16})
    assert profile.memory_bytes == 16 << 30
    assert profile.profile_id == "m4-16"


def test_a_document_without_chip_and_memory_is_no_profile() -> None:
    with pytest.raises(InvalidDocumentError, match="not a profile"):
        HardwareProfile.from_document({"schema_version": 1})


@pytest.mark.parametrize(
    ("chip", "expected"),
    [("M4 Max", True), ("A18 Pro", True), ("M9 Extreme", True), ("AMD EPYC", False), (None, False)],
)
def test_only_apples_chips_count_as_apple_silicon(chip: str | None, expected: bool) -> None:
    assert HardwareProfile(chip=chip).is_apple_silicon is expected
