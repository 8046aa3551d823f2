import itertools
import tomllib
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_hwprobe import (
    ChipBin,
    UnknownChipError,
    bandwidth_of,
    chip_names,
    chip_of_model,
    chip_table,
    lookup,
    parse_chip_name,
)

TABLE = chip_table()
VARIANTS = ["", "Pro", "Max", "Ultra"]


def generation_and_variant(chip: str) -> tuple[str, int]:
    generation, _, variant = chip.partition(" ")
    return generation, VARIANTS.index(variant)


def test_every_chip_apple_announced_for_the_mac_is_there_and_no_other() -> None:
    assert chip_names() == (
        *("M1", "M1 Pro", "M1 Max", "M1 Ultra"),
        *("M2", "M2 Pro", "M2 Max", "M2 Ultra"),
        *("M3", "M3 Pro", "M3 Max", "M3 Ultra"),
        *("M4", "M4 Pro", "M4 Max"),
        *("M5", "M5 Pro", "M5 Max", "M5 Ultra"),
        "M6",
        "A18 Pro",
    )


def test_chip_gpu_cores_and_memory_name_one_row_each() -> None:
    configurations = [
        (row.chip, row.gpu_cores, size) for row in TABLE for size in row.memory_options_gb
    ]
    assert len(configurations) == len(set(configurations))


def test_only_m6_has_two_rows_for_one_number_of_gpu_cores() -> None:
    bins = [(row.chip, row.gpu_cores) for row in TABLE]
    assert {chip for chip, cores in bins if bins.count((chip, cores)) > 1} == {"M6"}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.chip}-{row.gpu_cores}")
def test_every_row_says_where_and_when_it_was_read(row: ChipBin) -> None:
    assert "https://" in row.source
    year, month = row.checked.split("-")
    assert int(year) >= 2026
    assert 1 <= int(month) <= 12
    assert row.confidence in ("high", "medium", "low")
    assert (row.fp16_tflops is None) == (row.fp16_tflops_confidence is None)
    assert list(row.memory_options_gb) == sorted(set(row.memory_options_gb))
    assert row.cpu_cores_options
    assert all(count > 0 for cores in row.cpu_cores_options for count in cores.values())


def test_more_gpu_cores_are_never_slower_within_a_chip() -> None:
    for first, second in itertools.pairwise(TABLE):
        if first.chip == second.chip:
            assert first.gpu_cores <= second.gpu_cores
            assert first.memory_bandwidth_gb_s <= second.memory_bandwidth_gb_s
            assert max(first.memory_options_gb) <= max(second.memory_options_gb)


def test_the_larger_chip_of_a_generation_is_larger_in_everything() -> None:
    for generation in {generation_and_variant(chip)[0] for chip in chip_names()}:
        rows = [row for row in TABLE if row.chip.split(" ")[0] == generation]
        for small, large in itertools.combinations(rows, 2):
            if generation_and_variant(small.chip)[1] < generation_and_variant(large.chip)[1]:
                assert small.memory_bandwidth_gb_s < large.memory_bandwidth_gb_s
                assert small.gpu_cores <= large.gpu_cores


def test_every_model_identifier_names_a_chip_of_the_table() -> None:
    text = files("mlx_hwprobe").joinpath("data/chips.toml").read_text()
    models = tomllib.loads(text)["hw_models"]
    assert set(models.values()) == set(chip_names())
    assert chip_of_model("Mac16,9") == "M4 Max"
    assert chip_of_model("Macmini6,2") is None


@pytest.mark.parametrize(
    ("typed", "chip"),
    [
        ("m4max", "M4 Max"),
        ("Apple M4 Max", "M4 Max"),
        ("M3 Ultra", "M3 Ultra"),
        ("m5-pro", "M5 Pro"),
        ("  APPLE   m1_ultra ", "M1 Ultra"),
        ("Apple M1 (Virtual)", "M1"),
        ("apple m2 chip", "M2"),
        ("a18pro", "A18 Pro"),
        ("Apple M7 Extreme", "M7 Extreme"),
        ("Intel(R) Core(TM) i7", None),
        ("Apple processor", None),
        ("VirtualApple @ 2.50GHz", None),
        ("", None),
    ],
)
def test_a_chip_is_understood_as_people_and_programs_write_it(typed: str, chip: str | None) -> None:
    assert parse_chip_name(typed) == chip


@given(st.sampled_from(chip_names()), st.sampled_from(["", " ", "-", "_"]), st.booleans())
def test_spacing_and_case_do_not_matter(chip: str, separator: str, upper: bool) -> None:
    typed = chip.replace(" ", separator)
    assert lookup(typed.upper() if upper else typed.lower())[0].chip == chip


@pytest.mark.parametrize(
    ("chip", "gpu_cores", "memory_gb", "gb_s", "source"),
    [
        ("M4 Max", 32, 36, 410, "table"),
        ("M4 Max", 40, 128, 546, "table"),
        ("M4 Max", None, 36, 410, "table-by-memory"),
        ("M4 Max", None, 64, 546, "table-by-memory"),
        ("M4 Max", None, None, 410, "estimate"),
        ("M4 Max", None, 40, 410, "estimate"),
        ("M4 Max", 38, 64, 410, "estimate"),
        ("M3 Max", 30, 96, 300, "table"),
        ("M3 Max", None, 96, 300, "table-by-memory"),
        ("M3 Max", None, 128, 400, "table-by-memory"),
        ("M5 Max", 32, 36, 460, "table"),
        ("M5 Max", 40, 48, 614, "table"),
        ("M6", 12, 16, 153, "table-by-memory"),
        ("M6", None, 24, 170, "table-by-memory"),
        ("M6", 12, 64, 153, "estimate"),
        ("M6", 12, None, 153, "estimate"),
        ("M1", None, None, 68, "table"),
        ("M3 Ultra", None, 512, 819, "table"),
        ("M7", 14, 32, 153, "estimate"),
        ("M6 Max", 40, 64, 614, "estimate"),
        ("M6 Max", None, None, 460, "estimate"),
        ("M4 Ultra", 80, 256, 819, "estimate"),
        ("M9 Extreme", None, None, 153, "estimate"),
        ("A19 Pro", 6, 12, 60, "estimate"),
    ],
)
def test_bandwidth_follows_the_bin_and_says_how_it_knows(
    chip: str, gpu_cores: int | None, memory_gb: int | None, gb_s: int, source: str
) -> None:
    bandwidth = bandwidth_of(chip, gpu_cores=gpu_cores, memory_gb=memory_gb)
    assert bandwidth is not None
    assert (bandwidth.gb_s, bandwidth.source) == (gb_s, source)


@pytest.mark.parametrize("chip", ["M0", "A14", "AMD EPYC", ""])
def test_a_chip_of_no_known_family_has_no_bandwidth(chip: str) -> None:
    assert bandwidth_of(chip, gpu_cores=8, memory_gb=16) is None


def test_an_ambiguous_name_gives_all_its_bins() -> None:
    assert [row.gpu_cores for row in lookup("m5max")] == [32, 40]
    assert [row.gpu_cores for row in lookup("m5max", memory_gb=36)] == [32]
    assert [row.memory_bandwidth_gb_s for row in lookup("M6")] == [153, 170]


def test_an_unknown_chip_is_answered_with_the_nearest_names() -> None:
    with pytest.raises(UnknownChipError) as caught:
        lookup("M4 Ultra")
    assert "M3 Ultra" in caught.value.nearest
    with pytest.raises(UnknownChipError) as caught:
        lookup("threadripper")
    assert "M4 Max" in (caught.value.hint or "")


def test_a_combination_never_sold_is_answered_with_what_there_is() -> None:
    with pytest.raises(UnknownChipError, match="no M4 Max with 32 GPU cores and 128 GB") as caught:
        lookup("M4 Max", gpu_cores=32, memory_gb=128)
    assert caught.value.hint is not None
    assert "32 GPU cores with 36 GB" in caught.value.hint
    assert "48, 64 or 128 GB" in caught.value.hint
